// Links, forms and keys of the console: each becomes a new address, which the server is asked for.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = (() => { try { return localStorage.getItem("console-theme"); } catch { return null; } })();
  const asked = new URLSearchParams(location.search).get("theme");
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const setTheme = (name, keep) => {
    root.dataset.theme = name;
    if (keep) try { localStorage.setItem("console-theme", name); } catch { /* a private window */ }
  };
  setTheme(["dark", "light"].includes(asked) ? asked : stored || system, false);

  const here = () => location.pathname + location.search;
  const tell = (url) => { root.classList.add("loading"); emitEvent("console_go", url); };
  window.consoleGo = (url) => {
    if (url !== here()) history.pushState(null, "", url);
    if (!url.includes("span=") && !url.includes("focus=")) scrollTo(0, 0);
    tell(url);
  };
  window.consoleShown = (title) => {
    root.classList.remove("loading");
    document.title = `${title} · otel-concurrency`;
    root.dataset.shown = here();
  };
  addEventListener("popstate", () => tell(here()));
  document.addEventListener("visibilitychange", () => emitEvent("console_hidden", document.hidden));

  const isOurs = (link) => link && link.origin === location.origin && !link.dataset.out && !link.target;
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("#theme")) { setTheme(root.dataset.theme === "dark" ? "light" : "dark", true); return; }
    const link = event.target.closest("a[href]");
    if (isOurs(link)) { event.preventDefault(); consoleGo(link.pathname + link.search); return; }
    const open = document.querySelector("details.services[open]");
    if (open && !open.contains(event.target)) open.open = false;
    if (link || event.target.closest("button,input,select,label,summary")) return;
    const row = event.target.closest("tr[data-href]");
    if (row && !String(getSelection())) consoleGo(row.dataset.href);
  });

  const go = (form) => {
    const merged = "merge" in form.dataset ? new URLSearchParams(location.search) : new URLSearchParams();
    for (const field of form.elements) if (field.name) merged.delete(field.name);
    if (form.elements.range && form.elements.range.value) for (const name of (form.dataset.clear || "").split(",")) merged.delete(name);
    for (const [name, value] of new FormData(form)) if (value !== "") merged.append(name, value);
    const query = merged.toString();
    consoleGo((form.getAttribute("action") || location.pathname) + (query ? "?" + query : ""));
  };
  document.addEventListener("submit", (event) => { event.preventDefault(); go(event.target); });
  document.addEventListener("change", (event) => { if ("submit" in event.target.dataset) go(event.target.form); });

  const rows = () => [...document.querySelectorAll("tr[data-href], a.line")];
  let goNext = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key;
    if (event.target.closest("input,select,textarea")) { if (key === "Escape") event.target.blur(); return; }
    const press = (selector) => { const found = document.querySelector(selector); if (found) { event.preventDefault(); found.click(); } };
    if (Date.now() < goNext) { goNext = 0; press(`.menu a[data-key="${CSS.escape(key)}"]`); return; }
    if (key === "g") goNext = Date.now() + 1500;
    else if (key === "d") press("#theme");
    else if ("p[]".includes(key)) press(`.bar a[data-key="${CSS.escape(key)}"]`);
    else if (key === "/") { const field = document.querySelector("[data-search]"); if (field) { event.preventDefault(); field.focus(); field.select(); } }
    else if (key === "Escape") press(".close");
    else if (key === "?") { const keys = document.querySelector(".keys"); if (keys) keys.open = !keys.open; }
    else if (key === "j" || key === "k") {
      const all = rows(), at = all.indexOf(document.activeElement);
      const next = all[Math.max(0, Math.min(all.length - 1, at + (key === "j" ? 1 : -1)))];
      if (next) { event.preventDefault(); next.focus(); next.scrollIntoView({ block: "nearest" }); }
    } else if (key === "Enter" && event.target.matches("tr[data-href]")) consoleGo(event.target.dataset.href);
  });
})();
