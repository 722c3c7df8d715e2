"""Collections, waits for the lock and throttling, as metrics."""

from __future__ import annotations

from otel_concurrency.probes.gc_pauses import GcPauses
from otel_concurrency.probes.gil import GilProbe
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, SumReading
from otel_concurrency.signals.runtime_metrics import RuntimeMetrics


def test_everything_that_is_known_is_told():
    pauses, gil = GcPauses(clock=iter((10, 30)).__next__), GilProbe()
    pauses("start", {"generation": 1})
    pauses("stop", {"generation": 1})
    gil.add(7)
    gil.add(2)
    metrics = RuntimeMetrics(pauses, gil, lambda: 55, has_gil=lambda: True)
    [state] = [state for state in pauses.read() if state.count]
    assert state.sum_ns == 20
    assert metrics.collect() == [
        HistogramReading(names.GC_PAUSE_DURATION, [({"cpython.gc.generation": 1}, state)]),
        GaugeReading(names.GIL_ENABLED, [({}, 1)]),
        SumReading(names.GIL_WAIT_TIME, [({}, 9)]),
        SumReading(names.GIL_PROBES, [({}, 2)]),
        GaugeReading(names.GIL_WAIT_MAX, [({}, 7)]),
        SumReading(names.CPU_THROTTLED_TIME, [({}, 55)]),
    ]


def test_what_nobody_knows_is_left_out():
    metrics = RuntimeMetrics(GcPauses(), GilProbe(), lambda: None, has_gil=lambda: False)
    assert metrics.collect() == [
        HistogramReading(names.GC_PAUSE_DURATION, []),
        GaugeReading(names.GIL_ENABLED, [({}, 0)]),
    ]


def test_it_counts_from_when_the_probes_were_reset():
    now = iter((3, 9))
    metrics = RuntimeMetrics(GcPauses(), GilProbe(), lambda: 0, has_gil=lambda: True, clock=now.__next__)
    assert metrics.start_unix_ns == 3
    metrics.begin()
    assert metrics.start_unix_ns == 9
