"""Watches event loops from outside, and tells who stalls them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any, Protocol

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import Config, StallOptions
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.loops.stall_watch import StallWatch
from otel_concurrency.hooks.loops.stalls import Culprits, StallListener, StallListeners
from otel_concurrency.hooks.loops.watchdog import Watchdog
from otel_concurrency.instrumentors import event_loops, runtime, tasks
from otel_concurrency.probes.choice import context_reader, held_reader
from otel_concurrency.probes.watch import make_watch
from otel_concurrency.signals import providers, shutdown
from otel_concurrency.signals.open_requests import OpenRequests
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.stalls import StallReports

_VARIABLE = "OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD"

_logger = logging.getLogger(__name__)


class Follower(Protocol):
    """Who judges what the watching thread sees."""

    pace_s: float | None

    @property
    def stalls(self) -> StallListener:
        """Hears of stalls, too."""
        ...

    def tick(self) -> float | None:
        """The thread is awake, and loops run; see `Watchdog.also`."""
        ...


_follower: Follower | None = None
_instrumentor: StallInstrumentor | None = None


def follow(follower: Follower | None) -> None:
    """Let this hear of stalls and ticks, now or once loops are watched; None: nobody."""
    global _follower
    _follower = follower
    if _instrumentor is not None:
        _instrumentor.let_follow()


def open_requests() -> OpenRequests | None:
    """Return who knows the requests that are open; None where no loop is watched."""
    return _instrumentor.requests if _instrumentor is not None else None


class StallInstrumentor(BaseInstrumentor):
    """Tells of each stall of each event loop, why it came, and which coroutine is to blame.

    Options are the fields of `StallOptions`; what is not given comes from the environment.
    """

    configuration = StallOptions

    requests: OpenRequests | None = None

    _watchdog: Watchdog | None = None
    _listeners: StallListeners | None = None
    _reports: StallReports | None = None
    _undo: tuple[Callable[[], object], ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: asyncio is in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {field.name: kwargs.get(field.name) for field in fields(StallOptions)}
        config = Config.from_options(options, os.environ)
        threshold_ns = int(config.stall_threshold * 1e9)
        if not threshold_ns:
            return
        is_asked_for = options["stall_threshold"] is not None or bool(os.environ.get(_VARIABLE))
        sees_stalls = make_watch(native=config.native).sees_stalls
        if not sees_stalls and not is_asked_for:
            return  # it would have to look often, and the program would see the thread
        if not config.event_loops:
            if is_asked_for:
                _logger.warning(
                    "%s asks for stalls, but nobody times event loops: "
                    "OTEL_PYTHON_CONCURRENCY_EVENT_LOOPS=false. No stall will be told",
                    _VARIABLE,
                )
            return
        requests = self.requests = OpenRequests()
        reports = self._reports = StallReports(requests=requests)
        listeners = self._listeners = StallListeners(reports)
        watch = StallWatch(
            listeners,
            threshold_ns=threshold_ns,
            gc_pauses=runtime.gc_pauses,
            culprits=Culprits(
                getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None),
                context_reader(native=config.native),
            ),
            slow_steps=tasks.slow_steps,
            step_counts=tasks.step_counts,
            read=held_reader(native=config.native),
            sees_stalls=sees_stalls,
        )
        watchdog = self._watchdog = Watchdog(
            watch, lambda: make_watch(native=config.native), threshold_ns=threshold_ns, gil=runtime.gil
        )
        tasks.note_slow_steps(threshold_ns)
        global _instrumentor
        _instrumentor = self
        self.let_follow()
        watchdog.install()
        default_producer().register(reports)
        self._undo = (
            event_loops.observe(watchdog),
            watchdog.remove,
            shutdown.tell_first(watchdog.catch_up),
            fork.in_child(reports.begin),
            fork.in_child(requests.forget),
            providers.watch_spans(requests),
            lambda: setattr(requests, "is_on", False),  # an SDK that is built differently keeps it
            lambda: tasks.note_slow_steps(0),
            lambda: default_producer().unregister(reports),
        )

    def let_follow(self) -> None:
        """Let the one who judges hear of what is seen."""
        if self._watchdog is None or self._listeners is None or self._reports is None:
            return
        if _follower is None:
            self._listeners.all, self._watchdog.also = (self._reports,), None
            self._watchdog.also_s = None
        else:
            self._listeners.all = (self._reports, _follower.stalls)
            self._watchdog.also, self._watchdog.also_s = _follower.tick, _follower.pace_s

    def _uninstrument(self, **kwargs: Any) -> None:
        for undo in self._undo:
            undo()
        global _instrumentor
        if _instrumentor is self:
            _instrumentor = None
        self.requests = self._watchdog = self._listeners = self._reports = None
        self._undo = ()
