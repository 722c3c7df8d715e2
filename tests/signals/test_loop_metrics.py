"""Hand-made rows of event loops, and the complete set of readings that comes of them."""

from __future__ import annotations

from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.loop_time import (
    LIBUV_TOTALS,
    NO_TIME,
    SELECT,
    UNSEEN,
    LoopTimeRow,
    TimerReading,
)
from otel_concurrency.probes.thread_clock import ThreadUse
from otel_concurrency.signals.loop_metrics import WINDOW_NS, LoopMetrics
from otel_concurrency.signals.names import INSTRUMENTS

LOOP_0 = {"asyncio.eventloop.id": "0", "asyncio.eventloop.type": "selector"}
DURATIONS = HistogramState(2, 30, 10, 20, 0, 100, (1, 1))
DELAYS = HistogramState(count=3, zero_count=3)
SECOND = 1_000_000_000


class HandMade:
    def __init__(self, *rows):
        self.rows = list(rows)

    def read(self):
        return self.rows


def row(
    loop_id=0,
    loop_type="selector",
    way=SELECT,
    time=NO_TIME,
    use=ThreadUse(),  # noqa: B008
    ready=None,
    timers=None,
):
    return LoopTimeRow(loop_id, loop_type, way, True, 1, time, use, ready, timers)


def told(metrics):
    return {
        reading.instrument.name: [(dict(labels), value) for labels, value in reading.points]
        for reading in metrics.collect()
    }


def test_everything_that_a_row_holds_is_told_once() -> None:
    time = TimerReading(700, 300, 4, 3, 2, 0, 9, 20, 5, DURATIONS, DELAYS)
    metrics = LoopMetrics(
        HandMade(row(time=time, use=ThreadUse(400, 200, 100), ready=6, timers=7)),
        exceptions=lambda: {(0, "selector", "callback", "ValueError"): 3, (None, "other", "other", ""): 1},
    )
    of_loop_0 = "asyncio.eventloop."
    assert told(metrics) == {
        f"{of_loop_0}time": [
            ({**LOOP_0, "asyncio.eventloop.state": "active"}, 700),
            ({**LOOP_0, "asyncio.eventloop.state": "idle"}, 300),
        ],
        f"{of_loop_0}iterations": [
            ({**LOOP_0, "asyncio.eventloop.iteration.kind": "blocking"}, 4),
            ({**LOOP_0, "asyncio.eventloop.iteration.kind": "polling"}, 3),
            ({**LOOP_0, "asyncio.eventloop.iteration.kind": "empty"}, 2),
        ],
        f"{of_loop_0}iteration.duration": [(LOOP_0, DURATIONS)],
        f"{of_loop_0}delay": [({**LOOP_0, "asyncio.eventloop.delay.kind": "callback"}, DELAYS)],
        f"{of_loop_0}io.events": [(LOOP_0, 9)],
        f"{of_loop_0}utilization": [],
        f"{of_loop_0}cpu.time": [(LOOP_0, 400)],
        f"{of_loop_0}runqueue.time": [(LOOP_0, 200)],
        f"{of_loop_0}blocked.time": [(LOOP_0, 100)],
        f"{of_loop_0}callback.queue.size": [(LOOP_0, 6)],
        f"{of_loop_0}timer.count": [(LOOP_0, 7)],
        f"{of_loop_0}exceptions": [
            (
                {**LOOP_0, "asyncio.eventloop.exception.context": "callback", "error.type": "ValueError"},
                3,
            ),
            (
                {
                    "asyncio.eventloop.id": "_other",
                    "asyncio.eventloop.type": "other",
                    "asyncio.eventloop.exception.context": "other",
                },
                1,
            ),
        ],
    }


def test_every_name_is_declared_with_the_attributes_that_it_carries() -> None:
    time = NO_TIME._replace(active_ns=SECOND, untold=1)
    metrics = LoopMetrics(
        HandMade(row(time=time, use=ThreadUse(1, 1, 1), ready=1, timers=1)),
        exceptions=lambda: {(0, "selector", "callback", "ValueError"): 3},
    )
    readings = metrics.collect()
    assert {reading.instrument for reading in readings} == {
        instrument
        for instrument in INSTRUMENTS
        if instrument.name.startswith("asyncio.eventloop.")
        and not instrument.name.startswith("asyncio.eventloop.stall")
    }
    undeclared = [
        (reading.instrument.name, key)
        for reading in readings
        for labels, _ in reading.points
        for key in labels
        if key not in reading.instrument.attributes
    ]
    assert undeclared == []


def test_what_cannot_be_seen_is_left_out() -> None:
    totals = NO_TIME._replace(active_ns=8, idle_ns=2, untold=5, events=3)
    seen = told(
        LoopMetrics(
            HandMade(
                row(0, "uvloop", LIBUV_TOTALS, totals),
                row(1, "other", UNSEEN, NO_TIME._replace(active_ns=1), ThreadUse(cpu_ns=3, blocked_ns=2)),
            )
        )
    )
    loop = {"asyncio.eventloop.id": "0", "asyncio.eventloop.type": "uvloop"}
    unseen = {"asyncio.eventloop.id": "1", "asyncio.eventloop.type": "other"}
    assert {name: points for name, points in seen.items() if points} == {
        "asyncio.eventloop.time": [
            ({**loop, "asyncio.eventloop.state": "active"}, 8),
            ({**loop, "asyncio.eventloop.state": "idle"}, 2),
        ],
        "asyncio.eventloop.iterations": [({**loop, "asyncio.eventloop.iteration.kind": "unknown"}, 5)],
        "asyncio.eventloop.io.events": [(loop, 3)],
        "asyncio.eventloop.cpu.time": [(unseen, 3)],
    }


def test_utilization_looks_back_a_window_however_often_it_is_read() -> None:
    rows, now = HandMade(), [0]
    metrics = LoopMetrics(rows, monotonic=lambda: now[0])
    active = 0
    shares = []
    for second in range(1, 31):
        active += SECOND if second <= 10 else SECOND // 4
        now[0] = second * SECOND
        rows.rows = [row(time=NO_TIME._replace(active_ns=active, idle_ns=second * SECOND - active))]
        shares.append(told(metrics)["asyncio.eventloop.utilization"][0][1])
        told(metrics)
    assert WINDOW_NS == 10 * SECOND
    assert shares[9] == 1
    assert shares[14] == (5 + 5 / 4) / 10
    assert shares[29] == 0.25


def test_a_loop_that_did_not_run_in_the_window_has_no_utilization() -> None:
    rows, now = HandMade(row(time=NO_TIME._replace(active_ns=SECOND))), [0]
    metrics = LoopMetrics(rows, monotonic=lambda: now[0])
    for now[0] in (0, 5 * SECOND):
        assert told(metrics)["asyncio.eventloop.utilization"] == [(LOOP_0, 1)]
    now[0] = 10 * SECOND
    assert told(metrics)["asyncio.eventloop.utilization"] == []


def test_begin_forgets_the_window_and_says_since_when() -> None:
    at = [5]
    metrics = LoopMetrics(HandMade(row(time=NO_TIME._replace(active_ns=SECOND))), clock=lambda: at[0])
    told(metrics)
    at[0] = 6
    metrics.begin()
    assert metrics.start_unix_ns == 6
    assert told(metrics)["asyncio.eventloop.utilization"] == [(LOOP_0, 1)]
