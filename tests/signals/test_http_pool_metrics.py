"""Hand-made levels and waits of HTTP clients, and the complete set of points that comes of them."""

from __future__ import annotations

from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.probes.http_pools import HttpPoolLevel, HttpPoolProbe, Server, ServerLevel
from otel_concurrency.signals.http_pool_metrics import HttpPoolMetrics
from otel_concurrency.signals.names import INSTRUMENTS
from otel_concurrency.signals.readings import HistogramReading

SHOP, UNIX = Server("shop.example", 443), Server("localhost", None)


def points(metrics: HttpPoolMetrics) -> dict[str, dict[tuple[object, ...], object]]:
    """Every series: instrument to attribute values to value; the instruments without one left out."""
    readings = metrics.collect()
    assert all(reading.instrument in INSTRUMENTS for reading in readings)
    for reading in readings:
        assert all(set(labels) <= set(reading.instrument.attributes) for labels, _ in reading.points)
    return {
        reading.instrument.name.removeprefix("http.client."): {
            tuple(labels.values()): value.sum_ns if isinstance(reading, HistogramReading) else value
            for labels, value in reading.points
        }
        for reading in readings
        if reading.points
    }


def test_every_number_has_its_series() -> None:
    probe = HttpPoolProbe()
    probe.waited(SHOP, 30)
    probe.waited(SHOP, 40, timed_out=True)
    probe.waited(UNIX, 5)
    levels = [
        HttpPoolLevel("app:1", 10, 3, None, {SHOP: ServerLevel(1, 2, 3)}),
        HttpPoolLevel("app:1", 10, 3, None, {SHOP: ServerLevel(10, 20, 30)}),
        HttpPoolLevel("app:2", None, None, 7, {UNIX: ServerLevel(4, 0, 0)}),
    ]
    shop, unix = ("shop.example", 443), ("localhost",)
    assert points(HttpPoolMetrics(probe, [lambda: levels[:1], lambda: levels[1:]])) == {
        "open_connections": {
            (*shop, "app:1", "active"): 11,
            (*shop, "app:1", "idle"): 22,
            (*unix, "app:2", "active"): 4,
            (*unix, "app:2", "idle"): 0,
        },
        "connection.limit": {("app:1",): 20},
        "connection.limit_per_host": {("app:1",): 6},
        "connection.idle.limit": {("app:2",): 7},
        "connection.pending_requests": {(*shop, "app:1"): 33, (*unix, "app:2"): 0},
        "connection.wait_time": {shop: 70, unix: 5},
        "connection.timeouts": {shop: 1},
    }


def test_nothing_there_is_nothing_told() -> None:
    assert points(HttpPoolMetrics(HttpPoolProbe(), [list])) == {}


def test_exemplars_are_told_once() -> None:
    probe = HttpPoolProbe()
    metrics = HttpPoolMetrics(probe, [])
    probe.waited(SHOP, 30, origin={"a": "context"}, at_unix_ns=4)
    expected = Histogram()
    expected.observe(30, {"a": "context"}, 4)
    (wait_time,) = (reading for reading in metrics.collect() if isinstance(reading, HistogramReading))
    assert wait_time.points[0][1] == expected.read()
    (wait_time,) = (reading for reading in metrics.collect() if isinstance(reading, HistogramReading))
    assert wait_time.points[0][1].exemplars == ()


def test_begin_is_a_new_start() -> None:
    times = iter([5, 9])
    metrics = HttpPoolMetrics(HttpPoolProbe(), [], clock=lambda: next(times))
    assert metrics.start_unix_ns == 5
    metrics.begin()
    assert metrics.start_unix_ns == 9
