"""The SDK in a forked child: an identity, counts and connections of its own, and threads when it needs them.

The SDK's providers, processors and readers each act in the child themselves (`os.register_at_fork`), with a
method that is replaced here by what this house wants: see `identity`, `fork_metrics`, `fork_exporters` and
`late_threads`. Those that were made before ours came have done it their way when `_in_child` comes to them,
and are put right then. A method of ours that fails leaves the work to the SDK's.

What waits in the parent's queues is the parent's to send: the child forgets it. A span that is open at the
fork belongs to both; whoever ends it reports it.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry._logs import get_logger_provider
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._shared_internal import BatchProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_tracer_provider

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.patch import Patch
from otel_concurrency.signals import fork_exporters, fork_metrics, late_threads
from otel_concurrency.signals.first_call import before_first_call
from otel_concurrency.signals.fork_pause import ForkPause
from otel_concurrency.signals.fresh_locks import renew_locks
from otel_concurrency.signals.identity import Identity
from otel_concurrency.signals.late_threads import LateThread

_logger = logging.getLogger(__name__)
_kept: list[Any] = []
"""Replacements ever made: the SDK holds them weakly, and would do nothing at a fork if one went away."""


class ForkSafety:
    """Our way of beginning anew in a forked child, in the place of the SDK's."""

    def __init__(self) -> None:
        self._identity = Identity()
        self._patches: list[Patch] = []
        self._take_back: Callable[[], None] | None = None
        self._pause = ForkPause(_exporting)
        self._pid = os.getpid()
        self._renewed: weakref.WeakSet[Any] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<ForkSafety {self._patches}>"

    def prepare(self) -> None:
        """Stand in for the SDK's own methods, best before its parts are made; a second call does nothing."""
        if self._patches:
            return
        for owner, name, renew in (
            (TracerProvider, "_handle_fork", self._renew_tracer_provider),
            (LoggerProvider, "_handle_fork", self._renew_logger_provider),
            (MeterProvider, "_handle_fork", self._renew_meter_provider),
            (BatchProcessor, "_at_fork_reinit", self._renew_batch),
            (PeriodicExportingMetricReader, "_at_fork_reinit", self._renew_reader),
        ):
            patch = Patch(owner, name, self._in_place_of(renew))
            try:
                patch.install()
            except AttributeError:  # this SDK has no such method, and `_in_child` does the work
                _logger.debug("%r is not there", patch, exc_info=True)
            else:
                self._patches.append(patch)

    def install(self) -> None:
        """Take care of the global providers, which are set by now."""
        self.prepare()
        self._identity.settle(*_providers())
        if self._take_back is None:
            self._take_back = fork.in_child(self._in_child)
            self._pause.install()
            fork.come_last()  # after the SDK's own entries: what was made before ours came acts by itself

    def remove(self) -> None:
        """Leave forks to the SDK again."""
        if self._take_back is not None:
            self._take_back()
            self._take_back = None
            self._pause.remove()
        while self._patches:
            self._patches.pop().remove()

    def _in_place_of(self, renew: Callable[[Any], None]) -> Callable[[Any], tuple[Any, Callable[[], None]]]:
        def make(original: Callable[[Any], None]) -> tuple[Any, Callable[[], None]]:
            is_active = True

            def after_fork(part: Any) -> None:
                if not is_active or not self._once(renew, part):
                    original(part)

            def silence() -> None:
                nonlocal is_active
                is_active = False

            _kept.append(after_fork)
            return after_fork, silence

        return make

    def _in_child(self) -> None:
        """Come to all that did not come to us."""
        self._begin_process()
        for provider in _providers():
            if isinstance(provider, TracerProvider):
                self._once(self._renew_tracer_provider, provider)
            elif isinstance(provider, LoggerProvider):
                self._once(self._renew_logger_provider, provider)
            else:
                self._once(self._renew_meter_provider, provider)

    def _once(self, renew: Callable[[Any], None], part: Any) -> bool:
        """Renew a part if that has not happened in this process; False if it did not work."""
        self._begin_process()
        if part in self._renewed:
            return True
        self._renewed.add(part)
        try:
            renew(part)
        except Exception:
            _logger.warning("%r is as the SDK leaves it at a fork", part, exc_info=True)
            return False
        return True

    def _begin_process(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._renewed = weakref.WeakSet()
            late_threads.forget_all()

    def _renew_tracer_provider(self, provider: Any) -> None:
        renew_locks(provider)
        self._identity.renew(provider)
        self._renew_processor(provider._active_span_processor)

    def _renew_logger_provider(self, provider: Any) -> None:
        renew_locks(provider)
        self._identity.renew(provider)
        self._renew_processor(provider._multi_log_record_processor)

    def _renew_meter_provider(self, provider: Any) -> None:
        fork_metrics.begin_anew(provider)
        self._identity.renew(provider)
        before_first_call(provider._measurement_consumer, "consume_measurement", late_threads.wake_all)
        for reader in provider._measurement_consumer._reader_storages:
            if isinstance(reader, PeriodicExportingMetricReader):
                self._once(self._renew_reader, reader)

    def _renew_processor(self, processor: Any) -> None:
        renew_locks(processor)
        for name in ("_span_processors", "_log_record_processors"):
            for each in getattr(processor, name, ()):
                self._renew_processor(each)
        batch = getattr(processor, "_batch_processor", None)
        if isinstance(batch, BatchProcessor):
            self._once(self._renew_batch, batch)
            return
        exporter = getattr(processor, "span_exporter", None) or getattr(processor, "_exporter", None)
        if exporter is not None:
            self._once(fork_exporters.renew, exporter)

    def _renew_batch(self, batch: Any) -> None:
        renew_locks(batch)
        batch._queue.clear()
        batch._pid = os.getpid()
        self._once(fork_exporters.renew, batch._exporter)
        if batch._shutdown or _is_running(batch._worker_thread):
            return
        thread = LateThread(batch.worker, batch._worker_thread.name)
        batch._worker_thread = thread

        def wake() -> None:
            thread.wake()
            late_threads.wake_all()

        before_first_call(batch, "emit", wake)

    def _renew_reader(self, reader: Any) -> None:
        renew_locks(reader)
        self._once(fork_exporters.renew, reader._exporter)
        if reader._daemon_thread is None or reader._shutdown or _is_running(reader._daemon_thread):
            return
        reader._daemon_thread = LateThread(reader._ticker, reader._daemon_thread.name)
        late_threads.add(reader._daemon_thread)


def _is_running(thread: Any) -> bool:
    """Whether the SDK has started the thread in this process, before we came."""
    return bool(thread.is_alive())


def _exporting() -> Iterator[Any]:
    """Yield the batch processors and periodic readers of the global providers."""
    for provider in _providers():
        if isinstance(provider, MeterProvider):
            readers = provider._measurement_consumer._reader_storages
            yield from (each for each in list(readers) if isinstance(each, PeriodicExportingMetricReader))
        else:
            name = (
                "_active_span_processor"
                if isinstance(provider, TracerProvider)
                else "_multi_log_record_processor"
            )
            yield from _batches(getattr(provider, name, None))


def _batches(processor: Any) -> Iterator[Any]:
    for name in ("_span_processors", "_log_record_processors"):
        for each in getattr(processor, name, ()):
            yield from _batches(each)
    batch = getattr(processor, "_batch_processor", None)
    if isinstance(batch, BatchProcessor):
        yield batch


def _providers() -> list[Any]:
    found = (get_tracer_provider(), get_logger_provider(), get_meter_provider())
    return [each for each in found if isinstance(each, (TracerProvider, LoggerProvider, MeterProvider))]
