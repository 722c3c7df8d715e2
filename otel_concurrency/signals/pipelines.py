"""What exports in this process, and how to hurry it without waiting on any of its locks.

Leans on private parts of `opentelemetry.sdk` 1.45: `BatchProcessor` (`_shared_internal/__init__.py`) and
`PeriodicExportingMetricReader` (`metrics/_internal/export/__init__.py`) each have a thread that can be made
to export everything, which upstream's own `force_flush` and `shutdown` do not do under a common time limit.
A part that is built differently, or is not the SDK's, gets its own public methods called on a thread of ours.

Instants are `time.monotonic()`.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry._logs import get_logger_provider
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_tracer_provider

from otel_concurrency.signals import jobs

EXIT_HANDLERS = ("_atexit_handler", "_at_exit_handler")
"""Where a provider keeps what it has registered with `atexit`; None once it is shut down."""

_POLL_S = 0.001
_HURRY_S = 0.002  # how long a hurried worker waits between two looks at its queue
_BATCH_PARTS = (
    "_exporter",
    "_queue",
    "_export_lock",
    "_schedule_delay",
    "_schedule_delay_millis",
    "_worker_thread",
    "_worker_awaken",
    "_shutdown",
    "_shutdown_timeout_exceeded",
)
_READER_PARTS = ("_exporter", "_daemon_thread", "_shutdown", "_shutdown_event", "_shutdown_once")
_OURS = "otel_concurrency."
_UPSTREAM = "opentelemetry."


class Pipeline(ABC):
    """One way out of the process."""

    @property
    @abstractmethod
    def has_unsent(self) -> bool:
        """Whether something is known to wait here, or to be on its way."""

    @abstractmethod
    def begin(self) -> None:
        """Start to export all that was recorded until now; returns at once."""

    @abstractmethod
    def wait(self, deadline: float) -> bool:
        """Wait for what `begin` or `close` has started; False if that is not done in time."""

    def end(self) -> None:  # noqa: B027  # most have nothing to do
        """Go back to the usual pace."""

    @abstractmethod
    def close(self) -> None:
        """Start to export the rest and take nothing new from now on; returns at once."""

    def stop_retrying(self) -> None:  # noqa: B027
        """Let the next failure be the last; for a process that is ending."""

    @abstractmethod
    def release(self) -> Callable[[], object] | None:
        """Give up what has not been sent; returns the call that closes the exporter, if there is one."""

    @property
    @abstractmethod
    def needs_thread(self) -> bool:
        """Whether its end takes code that is not the SDK's, which may hang: a thread must be kept for it."""


class Batch(Pipeline):
    """A batch processor of the SDK, for spans or log records."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._newest: object = None

    def __repr__(self) -> str:
        return f"<Batch {type(self._batch._exporter).__name__} [{len(self._batch._queue)} waiting]>"

    @property
    def exporter(self) -> Any:
        """Where its batches go."""
        return self._batch._exporter

    @property
    def has_unsent(self) -> bool:
        batch, pid = self._batch, os.getpid()
        if getattr(batch, "_pid", pid) != pid:  # a child that has just begun: all this is its parent's
            return False
        return not batch._shutdown and (bool(batch._queue) or batch._export_lock.locked())

    def begin(self) -> None:
        batch = self._batch
        waiting = list(batch._queue)
        self._newest = waiting[0] if waiting else None
        if waiting and not batch._shutdown:
            # Awake, the worker exports whole batches only; the next look, which comes soon, takes the rest.
            batch._schedule_delay = _HURRY_S
            batch._worker_awaken.set()

    def wait(self, deadline: float) -> bool:
        batch = self._batch
        if batch._shutdown:
            return _ended(batch._worker_thread, deadline)
        while True:
            if not batch._export_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return False
            try:
                newest = self._newest
                if newest is None or not any(each is newest for each in list(batch._queue)):
                    return True
            finally:
                batch._export_lock.release()
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)

    def end(self) -> None:
        self._newest = None
        self._batch._schedule_delay = self._batch._schedule_delay_millis / 1e3

    def close(self) -> None:
        if not self._batch._shutdown:
            self._batch._shutdown = True
            self._batch._worker_awaken.set()

    def stop_retrying(self) -> None:
        _stop_retrying(self._batch._exporter)

    def release(self) -> Callable[[], object]:
        self._batch._shutdown_timeout_exceeded = True
        return _closing(self._batch._exporter)

    @property
    def needs_thread(self) -> bool:
        return _is_foreign(self._batch._exporter)


class Reader(Pipeline):
    """A periodic metric reader of the SDK."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._job: jobs.Job | None = None

    def __repr__(self) -> str:
        return f"<Reader {type(self._reader._exporter).__name__}>"

    @property
    def has_unsent(self) -> bool:
        return False  # nobody can tell without collecting

    def begin(self) -> None:
        if not self._reader._shutdown:
            self._job = jobs.start(self._reader.force_flush)
            if self._job is None:  # the interpreter is ending: there will be nothing more to collect
                self.close()

    def wait(self, deadline: float) -> bool:
        if self._reader._shutdown:
            return _ended(self._reader._daemon_thread, deadline)
        return self._job is None or self._job.wait(deadline)

    def close(self) -> None:
        if self._reader._shutdown_once.do_once(self._mark):
            self._reader._shutdown_event.set()

    def stop_retrying(self) -> None:
        _stop_retrying(self._reader._exporter)

    def release(self) -> Callable[[], object]:
        return _closing(self._reader._exporter)

    @property
    def needs_thread(self) -> bool:
        return _is_foreign(self._reader._exporter)

    def _mark(self) -> None:
        self._reader._shutdown = True


class Other(Pipeline):
    """A processor or reader of another kind: its own methods, on a thread that is left behind if need be."""

    def __init__(self, part: Any) -> None:
        self._part = part
        self._job: jobs.Job | None = None

    def __repr__(self) -> str:
        return f"<Other {self._part!r}>"

    @property
    def has_unsent(self) -> bool:
        return False

    def begin(self) -> None:
        self._start(self._part.force_flush)

    def wait(self, deadline: float) -> bool:
        return self._job is None or self._job.wait(deadline)

    def close(self) -> None:
        self._start(self._part.shutdown)

    def release(self) -> None:
        return None  # `close` has closed the exporter, too

    @property
    def needs_thread(self) -> bool:
        return True

    def _start(self, call: Any) -> None:
        self._job = jobs.start(call)
        if self._job is None:  # no thread any more, and none kept: as upstream does it
            self._job = jobs.Job(call)
            self._job.run()


@dataclass(frozen=True, slots=True)
class Pipelines:
    """The ways out of this process, signal by signal.

    Attributes:
        spans: Of the tracer provider.
        log_records: Of the logger provider.
        metrics: Of the meter provider.
    """

    spans: tuple[Pipeline, ...] = ()
    log_records: tuple[Pipeline, ...] = ()
    metrics: tuple[Pipeline, ...] = ()

    def __iter__(self) -> Iterator[Pipeline]:
        return iter((*self.spans, *self.log_records, *self.metrics))


def current(*, at_exit: bool = False) -> Pipelines:
    """Return the ways out behind the global providers; one that is not the SDK's has none.

    Args:
        at_exit: Leave out providers that do not end with the process: those that have been shut down, and
            those that were made with `shutdown_on_exit=False`.
    """
    spans: Iterator[Any] = iter(())
    log_records: Iterator[Any] = iter(())
    readers: Sequence[Any] = ()
    for provider in providers():
        if at_exit and not ends_with_process(provider):
            continue
        if isinstance(provider, TracerProvider):
            spans = _flat(getattr(provider, "_active_span_processor", None))
        elif isinstance(provider, LoggerProvider):
            log_records = _flat(getattr(provider, "_multi_log_record_processor", None))
        else:
            readers = getattr(provider, "_metric_readers", ())
    return Pipelines(
        tuple(map(_of_processor, spans)),
        tuple(map(_of_processor, log_records)),
        tuple(map(_of_reader, readers)),
    )


def providers() -> list[TracerProvider | LoggerProvider | MeterProvider]:
    """Return those of the global providers that are the SDK's."""
    return [
        each
        for each in (get_tracer_provider(), get_logger_provider(), get_meter_provider())
        if isinstance(each, (TracerProvider, LoggerProvider, MeterProvider))
    ]


def ends_with_process(provider: object) -> bool:
    """Whether a provider of the SDK is due to shut down when the process ends."""
    return any(getattr(provider, name, None) is not None for name in EXIT_HANDLERS)


def _flat(processor: Any) -> Iterator[Any]:
    """Yield the processors behind one that only passes on, the SDK's concurrent kind included."""
    for name in ("_span_processors", "_log_record_processors"):
        if type(processor).__module__.startswith("opentelemetry.sdk.") and hasattr(processor, name):
            for each in getattr(processor, name):
                yield from _flat(each)
            return
    is_ours = type(processor).__module__.startswith(_OURS)
    if processor is not None and (not is_ours or hasattr(processor, "pipeline")):
        yield processor


def _of_processor(processor: Any) -> Pipeline:
    pipeline = getattr(processor, "pipeline", None)
    if isinstance(pipeline, Pipeline):  # one of ours
        return pipeline
    batch: Any = getattr(processor, "_batch_processor", None)
    return Batch(batch) if _has(batch, _BATCH_PARTS) and batch._worker_thread.is_alive() else Other(processor)


def _of_reader(reader: Any) -> Pipeline:
    return Reader(reader) if _has(reader, _READER_PARTS) and reader._daemon_thread else Other(reader)


def _has(part: object, names: tuple[str, ...]) -> bool:
    return all(hasattr(part, name) for name in names)


def _ended(thread: threading.Thread | None, deadline: float) -> bool:
    if thread is None or thread is threading.current_thread():
        return True
    thread.join(max(0.0, deadline - time.monotonic()))
    return not thread.is_alive()


def _stop_retrying(exporter: Any) -> None:
    """Set what the OTLP exporters wait on between two attempts (HTTP, gRPC)."""
    client = getattr(exporter, "_client", None)
    for part, name in ((client, "_shutdown_event"), (exporter, "_shutdown_in_progress")):
        event = getattr(part, name, None)
        if isinstance(event, threading.Event):
            event.set()


def _is_foreign(exporter: object) -> bool:
    return not type(exporter).__module__.startswith(_UPSTREAM)


def _closing(exporter: Any) -> Callable[[], object]:
    """Make the call that closes an exporter: what it is waiting for, it gives up."""
    if "timeout_millis" in inspect.signature(exporter.shutdown).parameters:
        return lambda: exporter.shutdown(timeout_millis=0)
    shutdown: Callable[[], object] = exporter.shutdown
    return shutdown
