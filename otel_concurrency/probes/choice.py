"""Which probes serve here: the native ones, or their pure twins."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

from otel_concurrency.probes.loop_time import LoopTimer
from otel_concurrency.probes.loops import LoopIndex
from otel_concurrency.probes.process import read_file
from otel_concurrency.probes.pure import PureTaskProbe
from otel_concurrency.probes.pure_loop_time import PureLoopTimer
from otel_concurrency.probes.pure_work import PureWorkProbe
from otel_concurrency.probes.tasks import TaskProbe
from otel_concurrency.probes.work import MAX_ERROR_TYPES, WorkProbe


def make_task_probe(
    *,
    native: bool = True,
    max_coroutines: int = 200,
    max_error_types: int = 50,
    origin: contextvars.ContextVar[Any] | None = None,
    loops: LoopIndex | None = None,
) -> TaskProbe:
    """Return the native probe where it is built and wanted, else the pure twin.

    Args:
        native: Whether the native probe may serve.
        max_coroutines: Rows kept; the tasks of further coroutine functions share the row `_other`.
        max_error_types: Exception type names kept over all rows, then `_other`.
        origin: Context variable whose value exemplars keep.
        loops: Where loops get their ids; by default from an index of the probe's own.
    """
    if native:
        try:
            from otel_concurrency.probes.native import NativeTaskProbe
        except ImportError:  # not built: no compiler, PyPy, a free-threaded interpreter
            pass
        else:
            return NativeTaskProbe(
                max_coroutines=max_coroutines, max_error_types=max_error_types, origin=origin, loops=loops
            )
    return PureTaskProbe(
        max_coroutines=max_coroutines, max_error_types=max_error_types, origin=origin, loops=loops
    )


def make_work_probe(
    *,
    native: bool = True,
    max_error_types: int = MAX_ERROR_TYPES,
    origin: contextvars.ContextVar[Any] | None = None,
    span_key: object = None,
) -> WorkProbe:
    """Return the native probe where it is built and wanted, else the pure twin.

    Args:
        native: Whether the native probe may serve.
        max_error_types: Exception type names kept over all pools, then `_other`.
        origin: Context variable whose value exemplars keep.
        span_key: Under which such a value holds the span whose account hears of waiting.
    """
    if native:
        try:
            from otel_concurrency.probes.native_work import NativeWorkProbe
        except ImportError:
            pass
        else:
            return NativeWorkProbe(max_error_types=max_error_types, origin=origin, span_key=span_key)
    return PureWorkProbe(max_error_types=max_error_types, origin=origin, span_key=span_key)


def context_reader(*, native: bool = True) -> Callable[[int], contextvars.Context | None] | None:
    """Return what tells the current context of any thread, where the native probes are built and wanted."""
    if native:
        try:
            from otel_concurrency.probes._native import context_of_thread
        except ImportError:
            pass
        else:
            return context_of_thread
    return None


def held_reader(*, native: bool = True) -> Callable[[str], bytes | None]:
    """Return what reads a small file, and keeps the GIL where the native probes are built and wanted."""
    if native:
        try:
            from otel_concurrency.probes._native import read_held
        except ImportError:
            pass
        else:
            return read_held
    return read_file


def loop_timer_type(*, native: bool = True) -> Callable[[], LoopTimer]:
    """Return the native timer where it is built and wanted, else the pure twin."""
    if native:
        try:
            from otel_concurrency.probes.native_loop_time import NativeLoopTimer
        except ImportError:
            pass
        else:
            return NativeLoopTimer
    return PureLoopTimer
