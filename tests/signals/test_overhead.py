"""What we cost, added up by component."""

from __future__ import annotations

import os
import signal

import pytest

from otel_concurrency.signals.names import OVERHEAD_TIME
from otel_concurrency.signals.overhead import Overhead
from otel_concurrency.signals.readings import SumReading


def test_time_adds_up_by_component(clock):
    overhead = Overhead(clock=clock)
    for component, ns in (("collection", 5), ("watchdog", 7), ("collection", 6)):
        overhead.add(component, ns)
    points = [
        ({"otel_concurrency.component": "collection"}, 11),
        ({"otel_concurrency.component": "watchdog"}, 7),
    ]
    assert (overhead.start_unix_ns, overhead.collect()) == (1_000, (SumReading(OVERHEAD_TIME, points),))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_starts_at_nothing_and_unlocked(producer):
    producer.overhead.add("collection", 5)
    with producer.overhead._lock:
        child = os.fork()
        if not child:
            signal.alarm(20)  # a child that hangs ends
            status = 1
            try:
                if producer.overhead.collect() == (SumReading(OVERHEAD_TIME, []),):
                    status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
