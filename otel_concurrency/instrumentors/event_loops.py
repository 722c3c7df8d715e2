"""Tells what event loops do with their time: the loop hooks, joined to their metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import Config, EventLoopOptions
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.loops.event_loops import EventLoopHook, RunObserver
from otel_concurrency.hooks.loops.loop_exceptions import LoopExceptionHook
from otel_concurrency.hooks.trio.trio_loops import TrioLoopHook
from otel_concurrency.probes.choice import loop_timer_type
from otel_concurrency.probes.loop_exceptions import LoopExceptions
from otel_concurrency.probes.loop_time import LoopTimeRow, LoopTimes, TimedLoop
from otel_concurrency.probes.loops import LOOP_IDS
from otel_concurrency.probes.readers import READERS
from otel_concurrency.signals.loop_metrics import LoopMetrics
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.snapshot.sources import SOURCES

_observers: tuple[RunObserver, ...] = ()
_hook: EventLoopHook | None = None
_times: LoopTimes | None = None


def observe(observer: RunObserver) -> Callable[[], None]:
    """Let this hear of each run of a loop, now or once loops are timed; returns what takes it back."""

    def forget() -> None:
        _set_observers(tuple(each for each in _observers if each is not observer))

    _set_observers((*_observers, observer))
    return forget


def running_loops() -> list[TimedLoop]:
    """Return the loops that run now; none where loops are not timed."""
    return _times.running() if _times is not None else []


def loop_rows() -> list[LoopTimeRow]:
    """Return what loops have done with their time; nothing where they are not timed."""
    return _times.read() if _times is not None else []


def _set_observers(observers: tuple[RunObserver, ...]) -> None:
    global _observers
    _observers = observers
    if _hook is not None:
        _hook.observers = observers


class EventLoopInstrumentor(BaseInstrumentor):
    """Times every event loop, trio's runs included, and counts what it reports to its exception handler.

    Options are the fields of `EventLoopOptions`; what is not given comes from the environment.
    """

    configuration = EventLoopOptions

    _hooks: Sequence[EventLoopHook | LoopExceptionHook | TrioLoopHook] = ()
    _undo: Sequence[Callable[[], None]] = ()
    _metrics: LoopMetrics | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: asyncio is in the standard library, and without trio nothing of it happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _hook, _times
        options = {field.name: kwargs.get(field.name) for field in fields(EventLoopOptions)}
        config = Config.from_options(options, os.environ)
        times = _times = LoopTimes(loop_timer_type(native=config.native), loops=LOOP_IDS)
        exceptions = LoopExceptions(times.id_of, max_error_types=config.max_error_types)
        metrics = self._metrics = LoopMetrics(times, exceptions=exceptions.read)
        _hook = EventLoopHook(times)
        _hook.observers = _observers
        self._hooks = (_hook, LoopExceptionHook(exceptions.note), TrioLoopHook(times, _hook))
        for hook in self._hooks:
            hook.install()
        default_producer().register(metrics)

        def begin_in_child() -> None:
            LOOP_IDS.reset()
            times.reset()
            exceptions.reset()
            metrics.begin()

        self._undo = (
            fork.in_child(begin_in_child),
            READERS.offer("loops", times.read),
            SOURCES.add(loops=times.timed_loops),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        global _hook, _times
        _hook = _times = None
        for hook in reversed(self._hooks):
            hook.remove()
        if self._metrics is not None:
            default_producer().unregister(self._metrics)
        for undo in self._undo:
            undo()
        self._hooks, self._undo, self._metrics = (), (), None
