"""The doctor: in a process of its own as `otel-concurrency doctor` starts it, and part by part."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from otel_concurrency.cli import main
from otel_concurrency.config import Config
from otel_concurrency.doctor import choices, round_trips, surroundings
from otel_concurrency.doctor.report import Check, Report, Section
from tests.commands.answering import answering

OURS = "otel_concurrency"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """Takes whatever it gets; yields its URL, and the paths that it was sent to."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def unused_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def doctor(capsys: Captured, code: int) -> dict[str, dict[str, tuple[str, str]]]:
    """Run it; return status and text of each check, by section."""
    capsys.readouterr()
    assert main(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    return {
        section["title"]: {check["name"]: (check["status"], check["text"]) for check in section["checks"]}
        for section in report["sections"]
    }


def test_a_healthy_start(
    collector: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    url, paths = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_MAX_COROUTINES", "77")
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_HTTP_TOKEN", "not for everybody")
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "celery")
    monkeypatch.delenv("OTEL_PYTHON_DISTRO", raising=False)
    found = doctor(capsys, 0)
    assert found["Start"]["distro"] == (
        "ok",
        f"{OURS}, by OTEL_PYTHON_DISTRO (ours, unless you set it); there are distro, {OURS}",
    )
    differing = found["Settings that are not the default"]
    assert differing["max_coroutines"][1] == ("77 (default 200), by OTEL_PYTHON_CONCURRENCY_MAX_COROUTINES")
    assert differing["http_token"][1].startswith("set, not shown (default ")
    instrumentors = found["Instrumentors"]
    assert instrumentors["concurrency_asyncio"] == ("ok", "active (otel_concurrency.instrumentors.tasks)")
    assert instrumentors["asyncio"][1].startswith("replaced by concurrency_asyncio; ")
    assert instrumentors["celery"][1] == "left out: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names it"
    assert found["One source for each operation"]["what asyncio does"] == ("ok", "concurrency_asyncio alone")
    trips = found["Round trips"]
    assert {name: status for name, (status, _) in trips.items()} == dict.fromkeys(
        ("traces", "metrics", "logs"), "ok"
    )
    assert {"/v1/traces", "/v1/metrics", "/v1/logs"} <= set(paths)


def test_a_collector_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", unused_url())
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    trips = doctor(capsys, 1)["Round trips"]
    assert trips["traces"][0] == trips["metrics"][0] == "fail"
    assert "Connection refused" in trips["traces"][1]
    assert trips["logs"] == ("info", "sent nowhere: OTEL_LOGS_EXPORTER=none")


def test_another_distro_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "distro")
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    found = doctor(capsys, 1)
    assert found["Start"]["distro"][0] == "warn"
    assert found["Start"]["start"][0] == "fail"


def test_a_start_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    from otel_concurrency.commands import doctor as command

    monkeypatch.setattr(command, "_START", "raise SystemExit('no such thing')")
    assert main(["doctor"]) == 1
    assert "ended with exit code 1:\nno such thing" in capsys.readouterr().err


REPORT = Report(
    (
        Section("Start", (Check("distro", "ours"), Check("start", "not started", "fail"))),
        Section("Instrumentors", (Check("grpc", "left out: DependencyConflict: …", "info"),)),
    )
)


def test_a_running_program_is_asked(capsys: Captured) -> None:
    with answering({"/debug/doctor": REPORT.to_data()}) as (url, _):
        assert main(["doctor", url]) == 1
        assert capsys.readouterr().out.splitlines() == [
            "Start",
            "  ok    distro: ours",
            "  FAIL  start: not started",
        ]
        assert main(["doctor", url, "--verbose"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("        grpc: left out: ")


def test_a_report_survives_json() -> None:
    assert Report.from_data(json.loads(json.dumps(REPORT.to_data()))) == REPORT
    assert (REPORT.status, Report(()).status) == ("fail", "ok")


class Loaded:
    """A distro that has loaded these."""

    def __init__(self, *names: str) -> None:
        self.loaded = dict.fromkeys(names)
        self.started = True
        self.config = Config()


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (("asyncio", "concurrency_asyncio"), "warn"),
        (("concurrency_asyncio",), "ok"),
        (("starlette", "asgi"), "info"),
        (("sqlalchemy", "asyncpg"), "warn"),
        (("asyncpg",), "ok"),
    ],
)
def test_what_is_told_twice_is_found(names: tuple[str, ...], status: str) -> None:
    distro: Any = Loaded(*names)
    assert [check.status for check in choices.source_checks(distro)] == [status]


def test_a_switch_that_is_off_is_named() -> None:
    distro: Any = Loaded()
    distro.config = Config(tasks=False)
    told = {check.name: check.text for check in choices.instrumentor_checks(distro)}
    assert told["concurrency_asyncio"] == "left out: OTEL_PYTHON_CONCURRENCY_TASKS is off"


def test_by_default_no_setting_differs() -> None:
    assert list(surroundings.setting_checks(Config(), {})) == []


def test_who_set_it_is_told() -> None:
    config = Config(max_coroutines=3)
    assert [check.text for check in surroundings.setting_checks(config, {"max_coroutines": 3})] == [
        "3 (default 200), by instrument()"
    ]


class Refusing:
    """An exporter that never gets through."""

    def __init__(self, release: threading.Event | None = None) -> None:
        self._release = release

    def export(self, batch: object) -> Any:
        if self._release is None:
            raise PermissionError("not you")
        logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        logger.warning("Transient error (Caused by X('[Errno 111] Connection refused')), retrying")
        self._release.wait(30)
        return None


def test_exporters_that_raise_or_hang_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    trips = [
        round_trips._Trip("traces", Refusing(release), []),
        round_trips._Trip("logs", Refusing(), []),
    ]
    monkeypatch.setattr(round_trips, "_trips", lambda: iter(trips))
    told = {check.name: check for check in round_trips.round_trip_checks(timeout_s=0.2)}
    release.set()
    assert told["logs"].text.endswith(": PermissionError: not you")
    assert "[Errno 111] Connection refused" in told["traces"].text
    assert {check.status for check in told.values()} == {"fail", "warn"}
    assert caplog.records == []
