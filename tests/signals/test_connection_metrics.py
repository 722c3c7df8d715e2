"""Hand-made rows of a connection probe and levels of pools, and the complete set of points out of them."""

from __future__ import annotations

from otel_concurrency.probes.connections import ConnectionLevel, ConnectionRow
from otel_concurrency.probes.histogram import Histogram, HistogramState
from otel_concurrency.signals.connection_metrics import ConnectionMetrics
from otel_concurrency.signals.names import INSTRUMENTS

EMPTY = HistogramState()


def of(*values_ns: int) -> HistogramState:
    histogram = Histogram()
    for ns in values_ns:
        histogram.observe(ns)
    return histogram.read()


class HandMadeProbe:
    def read(self) -> list[ConnectionRow]:
        return [
            ConnectionRow("busy", 3, of(1), of(2, 3), of(4)),
            ConnectionRow("quiet", 0, EMPTY, EMPTY, EMPTY),
        ]

    def levels(self) -> list[tuple[str, ConnectionLevel]]:
        return [
            ("busy", ConnectionLevel(2, 1, 7, limit=3, idle_min=1, idle_max=2)),
            ("busy", ConnectionLevel(1, 0, 1, limit=5, idle_min=2, idle_max=3)),
            ("quiet", ConnectionLevel(0)),
        ]


def test_the_readings_are_complete() -> None:
    readings = ConnectionMetrics(HandMadeProbe()).collect()
    assert all(reading.instrument in INSTRUMENTS for reading in readings)
    assert all(
        set(labels) <= set(each.instrument.attributes) for each in readings for labels, _ in each.points
    )
    found = {
        reading.instrument.name.removeprefix("db.client.connection."): {
            tuple(labels.values()): value for labels, value in reading.points
        }
        for reading in readings
    }
    assert found == {
        "count": {("busy", "used"): 3, ("busy", "idle"): 1, ("quiet", "used"): 0},
        "max": {("busy",): 8},
        "idle.min": {("busy",): 3},
        "idle.max": {("busy",): 5},
        "pending_requests": {("busy",): 8, ("quiet",): 0},
        "timeouts": {("busy",): 3, ("quiet",): 0},
        "wait_time": {("busy",): of(1)},
        "use_time": {("busy",): of(2, 3)},
        "create_time": {("busy",): of(4)},
    }
