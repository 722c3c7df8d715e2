"""Hand-made rows of a work probe and levels of pools, and the complete set of points that comes of them."""

from __future__ import annotations

import pytest

from otel_concurrency.probes.histogram import Histogram, HistogramState
from otel_concurrency.probes.work import PoolLevel, PoolRow
from otel_concurrency.signals.names import INSTRUMENTS
from otel_concurrency.signals.work_metrics import WorkMetrics

EMPTY = HistogramState()


def of(*values_ns: int) -> HistogramState:
    histogram = Histogram()
    for ns in values_ns:
        histogram.observe(ns)
    return histogram.read()


class HandMadeProbe:
    def __init__(self, *rows: PoolRow) -> None:
        self.rows = rows

    def read(self) -> tuple[PoolRow, ...]:
        return self.rows


FULL = PoolRow(
    "files",
    "thread",
    9,
    2,
    1,
    {"ValueError": 3},
    1,
    2,
    {"ValueError": 1},
    {"SIGKILL": 4},
    of(1),
    of(2, 3),
    {"m.f": of(5)},
)
IDLE = PoolRow("idle", "process", 0, 0, 0, {}, 0, 0, {}, {}, EMPTY, EMPTY, {})
QUIET = PoolRow("quiet", "process", 1, 0, 0, {}, 0, 0, {}, {}, EMPTY, EMPTY, {})


def points(metrics: WorkMetrics) -> dict[str, dict[tuple[str, ...], object]]:
    """Every series: instrument to attribute values to value; the instruments without one left out."""
    readings = metrics.collect()
    assert all(reading.instrument in INSTRUMENTS for reading in readings)
    for reading in readings:
        assert all(set(labels) <= set(reading.instrument.attributes) for labels, _ in reading.points)
    return {
        reading.instrument.name.removeprefix("python.executor."): {
            tuple(str(value) for value in labels.values()): value for labels, value in reading.points
        }
        for reading in readings
        if reading.points
    }


def test_every_number_has_its_series() -> None:
    pool = ("thread", "files")
    assert points(WorkMetrics(HandMadeProbe(FULL, IDLE, QUIET))) == {
        "task.submitted": {pool: 9, ("process", "quiet"): 1},
        "task.completed": {
            (*pool, "finished"): 2,
            (*pool, "cancelled"): 1,
            (*pool, "failed", "ValueError"): 3,
            ("process", "quiet", "finished"): 0,
        },
        "task.rejected": {pool: 1},
        "task.abandoned": {pool: 2},
        "task.unretrieved": {(*pool, "ValueError"): 1},
        "task.queue.duration": {pool: of(1)},
        "task.duration": {(*pool, "m.f"): of(5)},
        "task.transfer.duration": {pool: of(2, 3)},
        "worker.crashes": {(*pool, "SIGKILL"): 4},
    }


def test_levels_of_one_name_add_up_and_what_nobody_knows_is_left_out() -> None:
    metrics = WorkMetrics(HandMadeProbe())
    forget = metrics.watch(
        lambda: [
            PoolLevel("a", "thread", active=1, idle=2, limit=4, queued=0),
            PoolLevel("a", "thread", active=1, idle=0, limit=4, queued=3),
        ]
    )
    metrics.watch(lambda: [PoolLevel("b", "anyio", active=1)])
    assert points(metrics) == {
        "worker.count": {
            ("thread", "a", "active"): 2,
            ("thread", "a", "idle"): 2,
            ("anyio", "b", "active"): 1,
        },
        "worker.limit": {("thread", "a"): 8},
        "queue.size": {("thread", "a"): 3},
    }
    forget()
    assert points(metrics) == {"worker.count": {("anyio", "b", "active"): 1}}


def test_a_reader_that_fails_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    metrics = WorkMetrics(HandMadeProbe())
    metrics.watch(lambda: [PoolLevel("a", "thread", limit=1 // 0)])
    metrics.watch(lambda: [PoolLevel("b", "thread", limit=1)])
    assert points(metrics) == points(metrics) == {"worker.limit": {("thread", "b"): 1}}
    assert caplog.text.count("said once") == 1


def test_it_begins_anew_when_the_probe_does() -> None:
    now = iter((5, 7))
    metrics = WorkMetrics(HandMadeProbe(), clock=lambda: next(now))
    assert metrics.start_unix_ns == 5
    metrics.begin()
    assert metrics.start_unix_ns == 7
