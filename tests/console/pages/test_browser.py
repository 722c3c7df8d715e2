"""The console in Debian's chromium: fed by a real program, every page, and the ways between them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_concurrency.console.pages.routes import ROUTES
from tests.console.conftest import PROTOBUF, trace_request
from tests.console.pages.browser import CHROMIUM, WAIT_S, Browser

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium; `scripts/stack build` installs it"),
]
SCRIPTS = Path(sysconfig.get_path("scripts"))


class Console:
    """A console in a process of its own."""

    def __init__(self, folder: Path) -> None:
        options = ["--port", "0", "--http-port", "0", "--grpc-port", "0"]
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))
        } | {"XDG_RUNTIME_DIR": str(folder)}
        self.log = folder / "console.txt"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [SCRIPTS / "otel-concurrency", "console", *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.url = self._said(r"The console: (http://\S+?)/\s")
        self.otlp = self._said(r"OTEL_EXPORTER_OTLP_ENDPOINT=(\S+) OTEL_EXPORTER_OTLP_PROTOCOL=http")

    def run(self, program: Path) -> None:
        """Run a program that sends here, to its end."""
        told = {
            "OTEL_SERVICE_NAME": "kitchen",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        command = [SCRIPTS / "opentelemetry-instrument", sys.executable, program]
        done = subprocess.run(
            command, env=self.environment | told, capture_output=True, text=True, timeout=WAIT_S, check=False
        )
        assert done.returncode == 0, done.stderr

    def send(self, body: bytes) -> None:
        """Send an OTLP request of spans."""
        request = urllib.request.Request(f"{self.otlp}/v1/traces", body, {"Content-Type": PROTOBUF})
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            assert answer.status == 200

    def _said(self, pattern: str) -> str:
        deadline = time.monotonic() + WAIT_S
        while not (found := re.search(pattern, self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return found[1]


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console that a program with trouble has sent to."""
    console = Console(tmp_path_factory.mktemp("run"))
    try:
        console.run(Path(__file__).with_name("program.py"))
        yield console
    finally:
        console.process.terminate()
        console.process.wait(WAIT_S)


@pytest.fixture(scope="module")
def shared() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser) -> Browser:
    """A browser tab without problems so far."""
    shared.problems.clear()
    shared.requested.clear()
    return shared


def now_ns() -> int:
    return time.time_ns()


def spans(*fields: dict[str, Any]) -> bytes:
    return trace_request(*fields, service="late").SerializeToString()


def test_every_page_shows_the_program_and_asks_no_other_host(console: Console, browser: Browser) -> None:
    shown = {}
    for route in ROUTES:
        browser.open(console.url + route.path)
        shown[route.path] = browser.text()

    failed = [path for path, text in shown.items() if "This page failed" in text]
    assert (failed, browser.problems) == ([], [])
    without = {path for path, text in shown.items() if "kitchen" not in text}
    assert without == {"/metrics", "/graph", "/threads"}  # the last two are of programs that run
    assert "asyncio.task.created" in shown["/metrics"]
    assert "OTEL_PYTHON_CONCURRENCY_HTTP_PORT" in shown["/graph"]
    assert [url for url in browser.requested if not url.startswith((console.url, "data:", "ws"))] == []


def test_from_a_finding_to_its_trace_its_log_record_and_its_coroutine(
    console: Console, browser: Browser
) -> None:
    browser.open(f"{console.url}/findings?kind=asyncio.eventloop.stall.ended")
    assert "sharpen_knife in time.sleep" in browser.text()

    assert browser.click(".finding dd a[href*='/trace/']").startswith("/trace/")
    assert "cook dinner" in browser.text()
    assert "the knife is blunt" in browser.text()

    assert browser.click("a.line.log[title='the knife is blunt']").startswith("/logs?focus=")
    assert browser.run("document.querySelector('.drawer pre').innerText") == "the knife is blunt"

    assert browser.click(".drawer .ways a[href*='/trace/']").startswith("/trace/")
    task = browser.click("a.line[title*='sharpen_knife']")
    assert "span=" in task
    assert browser.click(".drawer a[href^='/tasks']").startswith("/tasks?focus=kitchen%3A")
    assert browser.run("document.querySelector('tr.chosen a').title") == "__main__.sharpen_knife"

    browser.run("history.back()")
    browser.wait_shown(task)
    assert browser.problems == []


def test_a_deep_link_filter_and_keys(console: Console, browser: Browser) -> None:
    browser.open(f"{console.url}/traces?name=sharpen&order=slowest&theme=dark")
    assert browser.run("document.querySelectorAll('tbody tr').length") == 1
    assert browser.run("document.querySelector('select[name=order]').value") == "slowest"
    dark = browser.run("getComputedStyle(document.body).backgroundColor")

    browser.press("d")
    assert browser.run("document.documentElement.dataset.theme") == "light"
    assert browser.run("getComputedStyle(document.body).backgroundColor") != dark

    browser.run("document.querySelector('.filters [name=name]').value = 'no such span'")
    browser.run("document.querySelector('.filters').requestSubmit()")
    assert "name=no+such+span" in browser.settle()
    assert "No trace fits" in browser.text()

    browser.press("g")
    browser.press("l")
    browser.wait_shown("/logs")
    browser.press("/")
    assert browser.run("document.activeElement.name") == "q"
    browser.press("Escape")
    assert browser.press("p") == "/logs?pause=1"
    assert browser.problems == []


def test_what_arrives_is_shown_until_the_page_is_paused(console: Console, browser: Browser) -> None:
    browser.open(f"{console.url}/traces?range=5m")
    seen = {"trace_id": b"\1" * 16, "start_time_unix_nano": now_ns(), "end_time_unix_nano": now_ns() + 5000}
    console.send(spans(seen | {"name": "arrives <img src=x onerror=fail()>"}))
    browser.wait_for("document.body.innerText.includes('arrives <img src=x onerror=fail()>')")

    browser.click("#pause")
    console.send(spans(seen | {"trace_id": b"\2" * 16, "name": "arrives later"}))
    browser.wait_for("document.querySelector('.foot').innerText.includes('paused')")
    assert "arrives later" not in browser.text()
    browser.click("#pause")
    browser.wait_for("document.body.innerText.includes('arrives later')")
    assert browser.problems == []


def test_markup_in_a_message_stays_text(console: Console, browser: Browser) -> None:
    browser.open(f"{console.url}/logs?q=burnt")
    assert "burnt <script>" in browser.text()
    assert browser.run("document.title") == "Logs · otel-concurrency"
