"""The stall instrumentor: when it watches."""

from __future__ import annotations

import asyncio

import pytest

from otel_concurrency.instrumentors.event_loops import EventLoopInstrumentor
from otel_concurrency.instrumentors.stalls import StallInstrumentor
from otel_concurrency.probes import quiet_thread


def threads_while_a_loop_runs(expected: int) -> int:
    async def count() -> int:
        while len(quiet_thread.native_ids) < expected:
            await asyncio.sleep(0.001)
        return len(quiet_thread.native_ids)

    return asyncio.run(count())


@pytest.mark.parametrize(("threshold", "watching"), [(0.0, 0), (0.1, 1)])
def test_a_thread_watches_where_a_threshold_is_set(threshold: float, watching: int) -> None:
    loops, stalls = EventLoopInstrumentor(), StallInstrumentor()
    loops.instrument()
    stalls.instrument(stall_threshold=threshold)
    try:
        assert threads_while_a_loop_runs(watching) == watching
    finally:
        stalls.uninstrument()
        loops.uninstrument()
    assert threads_while_a_loop_runs(0) == 0


def test_without_the_c_extension_it_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_NATIVE", "false")
    stalls = StallInstrumentor()
    stalls.instrument()
    watchdog = stalls._watchdog
    stalls.uninstrument()
    assert watchdog is None


def test_where_nobody_times_loops_it_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_EVENT_LOOPS", "false")
    stalls = StallInstrumentor()
    stalls.instrument()
    stalls.uninstrument()
    assert caplog.records == []  # nobody asked for it
    stalls.instrument(stall_threshold=0.1)
    stalls.uninstrument()
    (record,) = caplog.records
    assert "OTEL_PYTHON_CONCURRENCY_EVENT_LOOPS=false" in record.getMessage()
