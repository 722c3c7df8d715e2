"""Getting everything out of the process within one time limit, for all signals at once.

Upstream's providers flush one after another, each with a limit of its own or none; while the collector is
away, that takes them 14.6 s. Here the threads that export anyway are all woken at once.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.sdk._logs._internal import SynchronousMultiLogRecordProcessor
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor

from otel_concurrency.signals import jobs, pipelines
from otel_concurrency.signals.pipelines import Other, Pipeline, Pipelines

_EMPTY: dict[str, Callable[[], object]] = {
    "_active_span_processor": SynchronousMultiSpanProcessor,
    "_multi_log_record_processor": SynchronousMultiLogRecordProcessor,
    "_metric_readers": tuple,
}

_logger = logging.getLogger(__name__)

GRACE_S = 0.2
"""How long a thread may take to notice that its exporter was closed; part of the time limit."""


_in_progress: tuple[Pipelines, float] | None = None
_first: tuple[Callable[[], object], ...] = ()


def tell_first(call: Callable[[], object]) -> Callable[[], None]:
    """Call this before anything is exported for the last time: what it records goes along.

    Returns:
        What takes it back.
    """
    global _first
    _first = (*_first, call)

    def forget() -> None:
        global _first
        _first = tuple(each for each in _first if each is not call)

    return forget


def flush(timeout_s: float, *, tell: Callable[[], object] | None = None, retry: bool = True) -> bool:
    """Export what was recorded until now; the process goes on.

    Starts no thread at interpreter exit. Metrics are collected when spans and log records are out, or half of
    the time is over: so they tell of these, too. While a `shutdown` is going on, where a signal may find the
    process, that one is helped to its end.

    Args:
        timeout_s: Time for all signals together; whatever is not out by then stays where it is.
        tell: Called before metrics are collected; what it records is exported, too.
        retry: Whether exporters may try again what a collector has refused, from now on.

    Returns:
        Whether everything has been handed to the exporters, and these are done with it.
    """
    began = time.monotonic()
    if _in_progress is not None:
        return _join(*_in_progress)
    _tell_first()
    parts = pipelines.current()
    if not retry:
        for each in parts:
            each.stop_retrying()
    first = (*parts.spans, *parts.log_records)
    _begin(first)
    _wait(first, began + timeout_s / 2)
    if tell is not None:
        tell()
        _begin(parts.log_records)
    _begin(parts.metrics)
    is_done = _wait(parts, began + timeout_s)
    for each in parts:
        each.end()
    return is_done


def shutdown(timeout_s: float, *, tell: Callable[[], object] | None = None) -> bool:
    """Export the rest and take nothing new; then the exporters are closed and their threads left behind.

    Providers that do not end with the process, by the user's will, are left alone. The others no longer shut
    down by themselves at exit.

    Args:
        timeout_s: Time for all signals together.
        tell: Called before metrics are collected; what it records is exported, too.

    Returns:
        Whether everything has been handed to the exporters, and these are done with it.
    """
    began = time.monotonic()
    deadline = began + timeout_s - min(GRACE_S, timeout_s / 4)
    _tell_first()
    parts = pipelines.current(at_exit=True)
    global _in_progress
    _in_progress = parts, deadline
    try:
        _close(parts.spans)
        _begin(parts.log_records)
        _wait((*parts.spans, *parts.log_records), began + timeout_s / 2)
        if tell is not None:
            tell()
        _close(parts.log_records)
        _close(parts.metrics)
        is_done = _wait(parts, deadline)
    except KeyboardInterrupt:  # somebody has waited long enough
        is_done = False
    ended = time.monotonic() + GRACE_S
    for job in [_run_closing(each) for each in parts]:
        if job is not None:
            job.wait(ended)
    if not is_done:
        _wait(parts, ended)
    _retire()
    _in_progress = None
    return is_done


def prepare() -> None:
    """Keep threads for what may hang in `shutdown`, while the interpreter still gives any."""
    jobs.keep_spares(sum(each.needs_thread for each in pipelines.current(at_exit=True)))


def has_unsent() -> bool:
    """Whether spans or log records wait, or are on their way; metrics cannot be told."""
    return any(each.has_unsent for each in pipelines.current())


def _join(parts: Pipelines, deadline: float) -> bool:
    """See a shutdown through that is going on, perhaps in the very thread that was interrupted for this."""
    _close(each for each in parts if not isinstance(each, Other))
    return _wait(parts, deadline)


def _tell_first() -> None:
    for call in _first:
        try:
            call()
        except Exception:
            _logger.debug("%r failed", call, exc_info=True)


def _begin(parts: Iterable[Pipeline]) -> None:
    for each in parts:
        each.begin()


def _close(parts: Iterable[Pipeline]) -> None:
    for each in parts:
        each.close()


def _wait(parts: Iterable[Pipeline], deadline: float) -> bool:
    return all(each.wait(deadline) for each in parts)


def _run_closing(part: Pipeline) -> jobs.Job | None:
    """Close an exporter: the SDK's here and now, which is quick, any other on a thread."""
    call = part.release()
    if call is None:
        return None
    job = jobs.start(call) if part.needs_thread else None
    if job is None:
        jobs.Job(call).run()
    return job


def _retire() -> None:
    """Keep the providers from doing it all once more, in the exit handlers that follow."""
    for provider in pipelines.providers():
        _retire_one(provider)


def _retire_one(provider: Any) -> None:
    if not pipelines.ends_with_process(provider):
        return
    atexit.unregister(provider.shutdown)
    for name in pipelines.EXIT_HANDLERS:
        if hasattr(provider, name):
            setattr(provider, name, None)
    # CPython 3.15 calls an exit handler that was unregistered while others run. What is left to do then must
    # be nothing, without a word: a meter provider would otherwise say that it is shut down only once.
    for name, nothing in _EMPTY.items():
        if hasattr(provider, name):
            setattr(provider, name, nothing())
