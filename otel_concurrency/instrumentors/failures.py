"""Reports what Python gives up on: the hooks that notice it, joined to their signals."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import Config, FailureOptions
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.failures.asyncgens import AsyncgenHook
from otel_concurrency.hooks.failures.detach_failures import DetachFailures
from otel_concurrency.hooks.failures.failures import FAILURES
from otel_concurrency.hooks.failures.loop_failures import LoopFailures
from otel_concurrency.hooks.failures.process_failures import ProcessFailureHook
from otel_concurrency.hooks.failures.unawaited import UnawaitedHook
from otel_concurrency.hooks.failures.uncaught import UncaughtHook
from otel_concurrency.hooks.failures.unraisable import UnraisableHook
from otel_concurrency.hooks.loops.loop_exceptions import LoopExceptionHook
from otel_concurrency.hooks.runtime.gc import GcHook
from otel_concurrency.hooks.tasks.cancellations import CancellationHook
from otel_concurrency.hooks.trio import trio_cancellations
from otel_concurrency.hooks.trio.trio_asyncgens import TrioAsyncgenHook
from otel_concurrency.hooks.trio.trio_nurseries import TrioNurseryHook
from otel_concurrency.probes.readers import READERS
from otel_concurrency.signals import providers, shutdown
from otel_concurrency.signals.cancellations import SpanEndings, Timeouts, explain_by
from otel_concurrency.signals.failures import FailureReports
from otel_concurrency.signals.left_spans import LeftSpans
from otel_concurrency.signals.producer import default_producer


class FailureInstrumentor(BaseInstrumentor):
    """Stands in for upstream's `exceptions`: every failure once, in the trace that created the work.

    Options are the fields of `FailureOptions`; what is not given comes from the environment.
    """

    configuration = FailureOptions

    _hooks: Sequence[Any] = ()
    _undo: Sequence[Callable[[], object]] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: it is all in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {field.name: kwargs.get(field.name) for field in fields(FailureOptions)}
        config = Config.from_options(options, os.environ)
        reports = FailureReports(FAILURES)
        left_spans = LeftSpans()
        uncaught = UncaughtHook(FAILURES, left_spans.context_of)
        FAILURES.listen(
            reports.wake,
            # Where the default runtime context keeps the current span; another one has no such variable.
            origin=getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None),
            max_error_types=config.max_error_types,
        )
        timeouts = Timeouts(max_coroutines=config.max_coroutines)
        cancellations = CancellationHook(timeouts.expired)
        asyncgens = AsyncgenHook(FAILURES.collections)
        self._hooks = (
            GcHook(FAILURES.collections),
            uncaught,
            ProcessFailureHook(FAILURES),
            UnraisableHook(FAILURES),
            UnawaitedHook(FAILURES),
            asyncgens,
            TrioAsyncgenHook(FAILURES),
            TrioNurseryHook(FAILURES, left_spans.note_task),
            LoopExceptionHook(LoopFailures(FAILURES, asyncgens.was_collected).note),
            DetachFailures(FAILURES),
            cancellations,
            trio_cancellations.TrioTimeoutHook(timeouts.expired_in),
        )
        for hook in self._hooks:
            hook.install()
        default_producer().register(reports)
        default_producer().register(timeouts)
        explain_by(cancellations.why)
        leave_spans = providers.watch_spans(
            SpanEndings(cancellations.why, trio_cancellations.why, left_spans.note)
        )

        def tell_the_rest() -> None:
            uncaught.look_back()
            reports.drain()

        def begin_in_child() -> None:
            FAILURES.reset()
            reports.begin()
            timeouts.begin()

        atexit.register(tell_the_rest)  # for programs that end without us
        self._undo = (
            lambda: explain_by(None),
            leave_spans,
            lambda: default_producer().unregister(timeouts),
            lambda: default_producer().unregister(reports),
            reports.drain,
            FAILURES.stop,
            lambda: atexit.unregister(tell_the_rest),
            shutdown.tell_first(tell_the_rest),
            fork.in_child(begin_in_child),
            READERS.offer("failures", reports.seen),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        for undo in self._undo:
            undo()
        self._hooks, self._undo = (), ()
