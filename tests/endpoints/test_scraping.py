from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator, Mapping

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider

from otel_concurrency.endpoints import scraping
from otel_concurrency.endpoints.exposition import OPENMETRICS, TEXT
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response
from otel_concurrency.endpoints.scraping import Metrics, wants_openmetrics


@pytest.fixture
def provider() -> Iterator[MeterProvider]:
    provider = MeterProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def metrics(provider: MeterProvider) -> Iterator[Metrics]:
    metrics = Metrics(provider)
    assert metrics.install()
    yield metrics
    metrics.remove()


def ask(metrics: Metrics, headers: Mapping[str, str] | None = None) -> Response:
    return metrics(Request("GET", "/metrics", {}, headers or {}, True))


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text;q=0.3;version=1.0.0,text/plain;q=0.5", False),
        ("application/openmetrics-text;version=0.0.1", False),
        (
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,"
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            ),
            True,
        ),
    ],
)
def test_the_client_chooses_the_format(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


def test_an_answer_says_in_which_format_it_is(metrics: Metrics, provider: MeterProvider) -> None:
    provider.get_meter("m").create_counter("c").add(1)
    plain = ask(metrics)
    assert (plain.status, plain.media_type) == (200, TEXT)
    other = ask(metrics, {"accept": "application/openmetrics-text"})
    assert (other.status, other.media_type) == (200, OPENMETRICS)
    assert other.body.endswith(b"# EOF\n")
    assert b'c_total{otel_scope_name="m"} 1' in plain.body
    assert b'c_total{otel_scope_name="m"} 1' in other.body


def test_a_large_answer_is_compressed_for_those_who_can_read_that(
    metrics: Metrics, provider: MeterProvider
) -> None:
    counter = provider.get_meter("m").create_counter("c")
    for number in range(100):
        counter.add(1, {"n": number})
    packed = ask(metrics, {"accept-encoding": "gzip, deflate"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == ask(metrics).body
    assert len(packed.body) < len(ask(metrics).body) / 4


def test_whoever_asks_soon_gets_what_is_there(
    metrics: Metrics, provider: MeterProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def observe(options: CallbackOptions) -> list[Observation]:
        calls.append(1)
        return [Observation(len(calls))]

    provider.get_meter("m").create_observable_gauge("g", [observe])
    monkeypatch.setattr(scraping, "FRESH_S", 3600)
    assert ask(metrics).body == ask(metrics).body
    assert len(calls) == 1
    monkeypatch.setattr(scraping, "FRESH_S", 0)
    assert b"} 2\n" in ask(metrics).body


def test_a_callback_that_hangs_makes_the_answer_old_and_not_late(
    metrics: Metrics, provider: MeterProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "FRESH_S", 0)
    monkeypatch.setattr(scraping, "WAIT_S", 0.05)
    gate = threading.Event()
    gate.set()

    def observe(options: CallbackOptions) -> list[Observation]:
        gate.wait(60)
        return [Observation(1)]

    provider.get_meter("m").create_observable_gauge("g", [observe])
    deadline = time.monotonic() + 30
    while ask(metrics).status != 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    gate.clear()
    before = ask(metrics)
    assert before.status == 200
    assert [ask(metrics).body for _ in range(3)] == [before.body] * 3
    metrics.begin()  # and nothing is known at all
    assert ask(metrics).status == 503
    gate.set()
    while ask(metrics).status != 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ask(metrics).status == 200


def test_nothing_is_counted_any_more_once_it_is_removed(provider: MeterProvider) -> None:
    metrics = Metrics(provider)
    assert metrics.install()
    metrics.remove()
    assert provider._measurement_consumer._reader_storages == {}  # type: ignore[attr-defined]
