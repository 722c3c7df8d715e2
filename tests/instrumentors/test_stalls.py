"""The stall instrumentor: when it watches."""

from __future__ import annotations

import asyncio
import threading

import pytest

from otel_concurrency.hooks.watchdog import THREAD_NAME
from otel_concurrency.instrumentors.event_loops import EventLoopInstrumentor
from otel_concurrency.instrumentors.stalls import StallInstrumentor


def threads_while_a_loop_runs() -> list[str]:
    async def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == THREAD_NAME]

    return asyncio.run(names())


@pytest.mark.parametrize(("threshold", "watching"), [(0.0, []), (0.1, [THREAD_NAME])])
def test_a_thread_watches_where_a_threshold_is_set(threshold: float, watching: list[str]) -> None:
    loops, stalls = EventLoopInstrumentor(), StallInstrumentor()
    loops.instrument()
    stalls.instrument(stall_threshold=threshold)
    try:
        assert threads_while_a_loop_runs() == watching
    finally:
        stalls.uninstrument()
        loops.uninstrument()
    assert threads_while_a_loop_runs() == []


def test_where_nobody_times_loops_it_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_EVENT_LOOPS", "false")
    stalls = StallInstrumentor()
    stalls.instrument(stall_threshold=0.1)
    stalls.uninstrument()
    (record,) = caplog.records
    assert "OTEL_PYTHON_CONCURRENCY_EVENT_LOOPS=false" in record.getMessage()
