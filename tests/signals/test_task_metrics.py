"""Hand-made rows of a probe, and the complete set of points that comes of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_concurrency.probes.histogram import Histogram, HistogramState
from otel_concurrency.probes.tasks import LoopRow, TaskRow
from otel_concurrency.probes.waits import WaitRow
from otel_concurrency.signals.names import INSTRUMENTS
from otel_concurrency.signals.task_metrics import TaskMetrics

EMPTY = HistogramState()


@dataclass
class HandMadeProbe:
    rows: list[TaskRow] = field(default_factory=list)
    loops: list[LoopRow] = field(default_factory=list)
    untracked_tasks: int = 0
    waits: list[WaitRow] = field(default_factory=list)

    def read_rows(self):
        return self.rows

    def read_loops(self):
        return self.loops

    def read_waits(self):
        return self.waits

    def untracked(self):
        return self.untracked_tasks


def of(*values_ns, origin=None):
    histogram = Histogram()
    for ns in values_ns:
        histogram.observe(ns, origin, at_unix_ns=77)
    return histogram.read()


def row(function, **numbers):
    blank = {
        "created": 0,
        "finished": 0,
        "cancelled": 0,
        "destroyed": 0,
        "failed": {},
        "live": 0,
        "sees_steps": True,
        "busy_ns": 0,
        "steps": 0,
        "finished_durations": EMPTY,
        "cancelled_durations": EMPTY,
        "failed_durations": EMPTY,
        "start_delays": EMPTY,
        "step_durations": EMPTY,
    }
    return TaskRow(function=function, **{**blank, **numbers})


@pytest.fixture
def probe(producer, source, clock):
    producer.unregister(source)
    probe = HandMadeProbe()
    producer.register(TaskMetrics(probe, clock=clock))
    return probe


@pytest.fixture
def points(heard, cumulative):
    """Return all points as `(metric, attributes, value)`; of a histogram, count, sum, min and max."""

    def points():
        return [
            (
                metric.name,
                dict(point.attributes),
                (point.count, point.sum, point.min, point.max) if hasattr(point, "scale") else point.value,
            )
            for metric in heard(cumulative)
            for point in metric.data.data_points
        ]

    return points


def test_every_number_of_a_probe_becomes_a_point(serve, probe, points, cumulative):
    serve(cumulative)
    probe.rows = [
        row(
            "shop.orders.charge",
            created=12,
            finished=5,
            cancelled=2,
            destroyed=1,
            failed={"ValueError": 2, "shop.errors.Refused": 1},
            live=1,
            busy_ns=2_500_000_000,
            steps=40,
            finished_durations=of(*[10_000_000] * 5),
            cancelled_durations=of(20_000_000, 40_000_000),
            failed_durations=of(5_000_000, 5_000_000, 8_000_000),
            start_delays=of(*[1_000] * 12),
            step_durations=of(*[62_500_000] * 40),
        ),
        row(
            "_other",
            created=1,
            live=1,
            start_delays=of(3_000),
            steps=1,
            step_durations=of(7_000),
            busy_ns=7_000,
        ),
        row("shop.orders.never"),
    ]
    probe.loops = [
        LoopRow(0, "uvloop", 1, 2, 3, 61_000_000_000, "shop.orders.charge"),
        LoopRow(None, "selector", 0, 0, 0, 0, ""),
    ]
    probe.untracked_tasks = 4
    charge = {"code.function.name": "shop.orders.charge"}
    other = {"code.function.name": "_other"}
    loop = {"asyncio.eventloop.id": "0", "asyncio.eventloop.type": "uvloop"}
    other_loop = {"asyncio.eventloop.id": "_other", "asyncio.eventloop.type": "selector"}
    assert points() == [
        ("asyncio.task.created", charge, 12),
        ("asyncio.task.created", other, 1),
        ("asyncio.task.completed", {**charge, "asyncio.task.outcome": "finished"}, 5),
        ("asyncio.task.completed", {**charge, "asyncio.task.outcome": "cancelled"}, 2),
        ("asyncio.task.completed", {**charge, "asyncio.task.outcome": "destroyed"}, 1),
        (
            "asyncio.task.completed",
            {**charge, "asyncio.task.outcome": "failed", "error.type": "ValueError"},
            2,
        ),
        (
            "asyncio.task.completed",
            {**charge, "asyncio.task.outcome": "failed", "error.type": "shop.errors.Refused"},
            1,
        ),
        ("asyncio.task.completed", {**other, "asyncio.task.outcome": "finished"}, 0),
        ("asyncio.task.duration", {**charge, "asyncio.task.outcome": "finished"}, (5, 0.05, 0.01, 0.01)),
        ("asyncio.task.duration", {**charge, "asyncio.task.outcome": "failed"}, (3, 0.018, 0.005, 0.008)),
        ("asyncio.task.duration", {**charge, "asyncio.task.outcome": "cancelled"}, (2, 0.06, 0.02, 0.04)),
        ("asyncio.task.start.delay", charge, (12, 0.000012, 0.000001, 0.000001)),
        ("asyncio.task.start.delay", other, (1, 0.000003, 0.000003, 0.000003)),
        ("asyncio.task.busy.time", charge, 2.5),
        ("asyncio.task.busy.time", other, 0.000007),
        ("asyncio.task.steps", charge, 40),
        ("asyncio.task.steps", other, 1),
        ("asyncio.task.step.duration", charge, (40, 2.5, 0.0625, 0.0625)),
        ("asyncio.task.step.duration", other, (1, 0.000007, 0.000007, 0.000007)),
        ("asyncio.task.count", {**loop, "asyncio.task.state": "running"}, 1),
        ("asyncio.task.count", {**loop, "asyncio.task.state": "scheduled"}, 2),
        ("asyncio.task.count", {**loop, "asyncio.task.state": "waiting"}, 3),
        ("asyncio.task.count", {**other_loop, "asyncio.task.state": "running"}, 0),
        ("asyncio.task.count", {**other_loop, "asyncio.task.state": "scheduled"}, 0),
        ("asyncio.task.count", {**other_loop, "asyncio.task.state": "waiting"}, 0),
        ("asyncio.task.age.max", {**loop, "code.function.name": "shop.orders.charge"}, 61.0),
        ("otel_concurrency.tasks.untracked", {}, 4),
    ]


def test_created_is_completed_plus_live(serve, probe, points, cumulative):
    serve(cumulative)
    probe.rows = [row("f", created=9, finished=3, cancelled=2, destroyed=1, failed={"KeyError": 1}, live=2)]
    totals = {}
    for name, _, value in points():
        totals[name] = totals.get(name, 0) + (value if isinstance(value, (int, float)) else 0)
    assert totals["asyncio.task.created"] - totals["asyncio.task.completed"] == 2


def test_a_probe_that_sees_no_steps_tells_none(serve, probe, points, cumulative):
    """The pure twin knows beginnings and ends; zeros would claim that nothing ever ran."""
    serve(cumulative)
    probe.rows = [
        row("f", created=1, finished=1, sees_steps=False, finished_durations=of(1_000), steps=0, busy_ns=0)
    ]
    assert points() == [
        ("asyncio.task.created", {"code.function.name": "f"}, 1),
        ("asyncio.task.completed", {"code.function.name": "f", "asyncio.task.outcome": "finished"}, 1),
        (
            "asyncio.task.duration",
            {"code.function.name": "f", "asyncio.task.outcome": "finished"},
            (1, 1e-6, 1e-6, 1e-6),
        ),
        ("otel_concurrency.tasks.untracked", {}, 0),
    ]


def test_an_idle_probe_tells_only_that(serve, probe, points, cumulative):
    serve(cumulative)
    assert points() == [("otel_concurrency.tasks.untracked", {}, 0)]


def test_waits_are_told_by_kind_and_name(serve, probe, points, cumulative):
    serve(cumulative)
    probe.waits = [
        WaitRow("lock", None, 3, 1, 30_000_000, of(10_000_000, 20_000_000)),
        WaitRow("event", "app:7", 1, 1, 0, EMPTY),
    ]
    lock = {"asyncio.sync.type": "lock"}
    event = {"asyncio.sync.type": "event", "asyncio.sync.name": "app:7"}
    assert sorted(points(), key=str)[:7] == sorted(
        [
            ("asyncio.sync.contentions", lock, 3),
            ("asyncio.sync.waiting", lock, 1),
            ("asyncio.sync.wait.time", lock, 0.03),
            ("asyncio.sync.wait.duration", lock, (2, 0.03, 0.01, 0.02)),
            ("asyncio.sync.contentions", event, 1),
            ("asyncio.sync.waiting", event, 1),
            ("asyncio.sync.wait.time", event, 0),
        ],
        key=str,
    )


def test_exemplars_come_through(serve, probe, heard, cumulative):
    serve(cumulative)
    span = NonRecordingSpan(SpanContext(0xAB, 0xCD, False, TraceFlags(TraceFlags.SAMPLED)))
    origin = trace.set_span_in_context(span, Context())
    probe.rows = [
        row(
            "f",
            created=1,
            finished=1,
            finished_durations=of(4_000_000, origin=origin),
            start_delays=of(1_000, origin=origin),
            step_durations=of(2_000, origin=origin),
        )
    ]
    assert {
        metric.name: [list(point.exemplars) for point in metric.data.data_points]
        for metric in heard(cumulative)
        if metric.unit == "s" and hasattr(metric.data.data_points[0], "scale")
    } == {
        "asyncio.task.duration": [[Exemplar({}, 0.004, 77, 0xCD, 0xAB)]],
        "asyncio.task.start.delay": [[Exemplar({}, 1e-6, 77, 0xCD, 0xAB)]],
        "asyncio.task.step.duration": [[Exemplar({}, 2e-6, 77, 0xCD, 0xAB)]],
    }


def test_every_point_has_the_attributes_that_its_instrument_names(probe):
    probe.rows = [row("f", created=2, failed={"KeyError": 2}, failed_durations=of(5, 6))]
    probe.loops = [LoopRow(0, "selector", 1, 0, 0, 5, "f")]
    readings = TaskMetrics(probe).collect()
    assert {reading.instrument for reading in readings} <= set(INSTRUMENTS)
    strangers = [
        (reading.instrument.name, key)
        for reading in readings
        for attributes, _ in reading.points
        for key in attributes
        if key not in reading.instrument.attributes
    ]
    assert strangers == []


def test_the_totals_start_with_the_source(probe, clock):
    clock.now = 42
    assert TaskMetrics(probe, clock=clock).start_unix_ns == 42
