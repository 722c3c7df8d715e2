"""Counts the tasks of asyncio and of trio, and tells of the notable: hooks, joined to their signals."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.trace import TracerProvider

from otel_concurrency.config import Config, TaskOptions
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.hooks.trio.trio_tasks import TrioTaskHook
from otel_concurrency.instrumentors.sync import SyncHook, SyncWaits
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.loops import LOOP_IDS
from otel_concurrency.probes.readers import READERS
from otel_concurrency.probes.tasks import SlowStep, TaskProbe
from otel_concurrency.signals import providers
from otel_concurrency.signals.local_roots import LocalRoots
from otel_concurrency.signals.names import UNFINISHED_TASKS
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.request_times import RequestTimes
from otel_concurrency.signals.shutdown_events import count_unfinished
from otel_concurrency.signals.task_metrics import TaskMetrics
from otel_concurrency.signals.task_spans import TaskSpans
from otel_concurrency.signals.task_traces import ids_in
from otel_concurrency.snapshot.sources import SOURCES

_probe: TaskProbe | None = None
_slow_ns = 0


def note_slow_steps(threshold_ns: int) -> None:
    """Keep steps that take so long, now or once tasks are counted; 0: none."""
    global _slow_ns
    _slow_ns = threshold_ns
    if _probe is not None:
        _probe.note_slow_steps(threshold_ns)


def slow_steps() -> list[SlowStep]:
    """Return the slow steps since the last call; none where tasks are not counted."""
    return _probe.slow_steps() if _probe is not None else []


def step_counts() -> dict[str, int]:
    """Return how many steps there were of each coroutine function; nothing where steps are not seen."""
    return _probe.step_counts() if _probe is not None else {}


class AsyncioTaskInstrumentor(BaseInstrumentor):
    """Counts every task of every event loop by coroutine function, trio's included.

    Options are the fields of `TaskOptions`; what is not given comes from the environment.
    """

    configuration = TaskOptions

    _hooks: Sequence[TaskHook | TrioTaskHook | SyncHook] = ()
    _metrics: TaskMetrics | None = None
    _undo: Sequence[Callable[[], object]] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: asyncio is in the standard library, and without trio nothing of it happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _probe
        options = {field.name: kwargs.get(field.name) for field in fields(TaskOptions)}
        config = Config.from_options(options, os.environ)
        probe = make_task_probe(
            native=config.native,
            max_coroutines=config.max_coroutines,
            max_error_types=config.max_error_types,
            # Where the default runtime context keeps the current span; another one has no such variable.
            origin=getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None),
            loops=LOOP_IDS,
        )
        probe.note_slow_steps(_slow_ns)
        _probe = probe
        spans = _tell_spans(probe, config, kwargs.get("tracer_provider"))
        roots = LocalRoots()
        times = RequestTimes(probe.new_account)
        metrics = self._metrics = TaskMetrics(probe)
        waits = SyncWaits(probe, config.sync_waits)
        self._hooks = (TaskHook(probe), TrioTaskHook(probe), *waits.hooks)
        for hook in self._hooks:
            hook.install()
        default_producer().register(metrics)

        def begin_in_child() -> None:
            nonlocal spans
            if spans is not None:
                spans.close()  # what is promised there, the parent keeps
                roots.forget()
                spans = _tell_spans(probe, config, kwargs.get("tracer_provider"))
            LOOP_IDS.reset()
            probe.reset()
            metrics.begin()
            waits.begin_in_child()

        def alive() -> int:
            return sum(loop.running + loop.scheduled + loop.waiting for loop in probe.read_loops())

        provider = kwargs.get("tracer_provider")
        self._undo = [
            fork.in_child(begin_in_child),
            count_unfinished(UNFINISHED_TASKS, alive),
            READERS.offer("tasks", probe.peek_rows),
            READERS.offer("waits", probe.read_waits),
            lambda: probe.tell_spans(None),
            waits.leave,
            SOURCES.add(probes=probe, traces=ids_in),
            lambda: setattr(times, "is_on", False),  # an SDK that is built differently keeps it
        ]
        if config.task_spans != "none" and config.detach_after:
            self._undo.append(providers.watch_spans(roots, provider))
        if config.request_times:
            self._undo.append(providers.watch_spans(times, provider))

    def _uninstrument(self, **kwargs: Any) -> None:
        global _probe
        _probe = None
        for hook in reversed(self._hooks):
            hook.remove()
        if self._metrics is not None:
            default_producer().unregister(self._metrics)
        for undo in self._undo:
            undo()
        self._hooks, self._undo, self._metrics = (), (), None


def _tell_spans(probe: TaskProbe, config: Config, tracer_provider: TracerProvider | None) -> TaskSpans | None:
    if config.task_spans == "none" and not config.request_times:
        return None
    spans = TaskSpans(
        threshold_ns=0 if config.task_spans == "all" else int(config.task_span_threshold * 1e9),
        include=() if config.task_spans == "none" else config.task_span_include,
        exclude=config.task_span_exclude,
        detach_after_ns=int(config.detach_after * 1e9),
        tracer_provider=tracer_provider,
    )
    probe.tell_spans(spans.begin, spans.plan())
    return spans
