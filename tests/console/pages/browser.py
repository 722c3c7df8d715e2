"""Debian's chromium, driven over its own protocol: no driver program, no browser of anybody's download."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

WAIT_S = 60.0
CHROMIUM = shutil.which("chromium")


class Browser:
    """One tab of a headless chromium; all waits end after `WAIT_S`."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        assert CHROMIUM is not None
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
        options += [f"--user-data-dir={self._folder.name}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            [CHROMIUM, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._opened = ExitStack()
        self._number = 0
        self.problems: list[str] = []
        self.requested: list[str] = []
        try:
            self._socket = self._open()
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End chromium."""
        self._opened.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events that come first are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_S))
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def run(self, script: str) -> Any:
        """Return what an expression of JavaScript is."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait_for(self, claim: str) -> Any:
        """Wait until an expression is true, and return it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                value = self.run(claim)
            except AssertionError:  # the page is just being replaced
                value = None
            if value:
                return value
            assert time.monotonic() < deadline, f"never true: {claim}\n{self.text()[:3000]}\n{self.problems}"
            time.sleep(0.05)

    def open(self, url: str) -> None:
        """Go to a page of the console and wait until it is there."""
        self.send("Page.navigate", url=url)
        path = re.sub(r"^https?://[^/]+", "", url)
        self.wait_shown(path)

    def wait_shown(self, path: str) -> None:
        """Wait until the console shows an address."""
        self.wait_for(f"document.documentElement.dataset.shown === {json.dumps(path)}" + _SETTLED)

    def click(self, selector: str) -> str:
        """Click what a selector finds, wait until the console has answered, and return the new address."""
        self.wait_for(f"!!document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        return self.settle()

    def press(self, key: str) -> str:
        """Press a key, wait until the console has answered, and return the address."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")
        return self.settle()

    def settle(self) -> str:
        """Wait until what is shown is what the address says."""
        here = "location.pathname + location.search"
        self.wait_for(f"document.documentElement.dataset.shown === {here}" + _SETTLED)
        return str(self.run(here))

    def text(self) -> str:
        """Return what a person reads on the page."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def resize(self, width: int, height: int) -> None:
        """Change the size of the page."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _open(self) -> ClientConnection:
        port_file = Path(self._folder.name) / "DevToolsActivePort"
        deadline = time.monotonic() + WAIT_S
        while not (port_file.exists() and len(port_file.read_text().splitlines()) == 2):
            assert self._process.poll() is None, "chromium ended"
            assert time.monotonic() < deadline, "chromium never told its port"
            time.sleep(0.05)
        port, path = port_file.read_text().splitlines()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=WAIT_S) as browser:
            browser.send(
                json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}})
            )
            while True:
                message = json.loads(browser.recv(timeout=WAIT_S))
                if message.get("id") == 1:
                    target = message["result"]["targetId"]
                    break
        page = f"ws://127.0.0.1:{port}/devtools/page/{target}"
        return self._opened.enter_context(connect(page, max_size=None, open_timeout=WAIT_S))

    def _note(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(told["exceptionDetails"])[:600])
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.problems.append(json.dumps(told["args"])[:600])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.problems.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])


_SETTLED = " && !document.documentElement.classList.contains('loading')"
