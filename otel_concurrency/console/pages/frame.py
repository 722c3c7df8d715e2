"""What stands around every page: the menu, the range, the services, and what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from otel_concurrency.console.pages.address import DEFAULT_RANGE, RANGES, Address
from otel_concurrency.console.pages.formats import clock
from otel_concurrency.console.pages.markup import Content, Markup, link, tag
from otel_concurrency.console.pages.routes import ROUTES
from otel_concurrency.console.queries.scope import Scope
from otel_concurrency.console.queries.services import Process
from otel_concurrency.console.store import TableCounts

_WORDS = {"spans": "spans", "logs": "log records", "metric_points": "data points"}
KEYS = {
    "g, then a letter": "go to a page: "
    + ", ".join(f"{route.key} {route.title.lower()}" for route in ROUTES),
    "/": "search",
    "j, k": "next and previous row; Enter opens it",
    "p": "pause, go on",
    "d": "dark, light",
    "[ and ]": "earlier, later",
    "Esc": "close what is open",
    "?": "this list",
}


def menu(address: Address) -> Markup:
    """Return the links to the pages."""
    here = "/traces" if address.path.startswith("/trace/") else address.path
    return tag(
        "nav",
        link(address.to("/"), tag("b", "otel"), "-concurrency", class_="brand"),
        [
            link(
                address.to(route.path),
                route.title,
                tag("kbd", f"g {route.key}"),
                class_="on" if route.path == here else None,
                data_key=route.key,
            )
            for route in ROUTES
        ],
        tag(
            "details",
            tag("summary", "keys ", tag("kbd", "?")),
            tag("dl", [(tag("dt", key), tag("dd", what)) for key, what in KEYS.items()]),
            class_="keys",
        ),
        class_="menu",
    )


def bar(address: Address, title: str, scope: Scope, known: Sequence[Process]) -> Markup:
    """Return the title, the range, the services, and the switches."""
    services: dict[str, list[Process]] = {}
    for process in known:
        services.setdefault(process.service, []).append(process)
    chosen = address.get("range") or DEFAULT_RANGE
    ranges: list[Content] = [
        tag("option", f"last {name}", value=name, selected=name == chosen and not address.is_fixed)
        for name in RANGES
    ]
    if address.is_fixed:
        ranges.insert(
            0, tag("option", f"{clock(scope.start_ns)} - {clock(scope.end_ns)}", value="", selected=True)
        )
    length = scope.end_ns - scope.start_ns
    shift = [
        link(
            address.with_(range=None, from_=scope.start_ns + by, to=scope.end_ns + by),
            sign,
            class_="button",
            title=what,
            data_key=key,
        )
        for by, sign, what, key in (
            (-length // 2, "\u2039", "earlier", "["),
            (length // 2, "\u203a", "later", "]"),
        )
    ]
    paused = address.is_paused
    pause = link(
        address.with_(pause=None if paused else 1),
        "go on" if paused else "pause",
        class_="button on" if paused else "button",
        title="pause (p)",
        data_key="p",
        id="pause",
    )
    form = tag(
        "form",
        shift[0],
        tag("select", ranges, name="range", aria_label="time range", data_submit=True),
        shift[1],
        _services(address, services),
        data_merge=True,
        data_clear="from,to",
        class_="scope",
    )
    theme = tag(
        "button", "◐", type="button", class_="button", id="theme", title="dark, light (d)", aria_label="theme"
    )
    return tag("header", tag("h1", title), form, pause, theme, class_="bar")


def _services(address: Address, services: Mapping[str, Sequence[Process]]) -> Markup:
    chosen, instances = address.all("service"), address.all("instance")
    boxes: list[Content] = []
    for name, each in services.items():
        boxes.append(_box("service", name, name, is_on=name in chosen))
        if len(each) > 1:
            boxes += [
                _box(
                    "instance",
                    process.instance,
                    f"process {process.pid or process.instance[:8]}",
                    is_on=process.instance in instances,
                    class_="sub",
                )
                for process in each
            ]
    told = ", ".join(chosen) or "all services"
    if instances:
        told += f", {len(instances)} processes"
    summary = tag("summary", told, class_="button")
    inside = boxes or [tag("p", "Nobody has sent anything yet.", class_="note")]
    return tag("details", summary, tag("div", inside, class_="pop"), class_="services")


def _box(name: str, value: str, label: str, *, is_on: bool, class_: str = "") -> Markup:
    box = tag("input", type="checkbox", name=name, value=value, checked=is_on, data_submit=True)
    return tag("label", box, label, class_=class_ or None)


def foot(counts: Mapping[str, TableCounts], took_s: float, now_ns: int, *, is_paused: bool) -> Markup:
    """Return what is stored, what was dropped, and how long the page took."""
    stored = ", ".join(f"{counts[name].stored:,} {word}" for name, word in _WORDS.items() if name in counts)
    lost = [
        f"{number:,} {word} {why}"
        for name, word in _WORDS.items()
        if name in counts
        for number, why in (
            (counts[name].evicted, "dropped to make room"),
            (counts[name].rejected, "malformed"),
        )
        if number
    ]
    return tag(
        "footer",
        tag("span", f"{stored} stored"),
        tag("span", ", ".join(lost), class_="bad") if lost else None,
        tag("span", "paused" if is_paused else "live", class_="on" if not is_paused else None),
        tag("span", f"{took_s * 1e3:.0f} ms at {clock(now_ns)[:8]} UTC"),
        class_="foot",
    )
