"""The native work probe as Python sees it: its rows as dataclasses."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

from otel_concurrency.probes import _native
from otel_concurrency.probes.crossing import Crossing, Observer
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.native import histogram_state
from otel_concurrency.probes.work import (
    MAX_ERROR_TYPES,
    MAX_FUNCTIONS,
    MAX_POOLS,
    PoolCount,
    PoolKind,
    PoolProbe,
    PoolRow,
    merge_run_times,
)


class NativeWorkProbe:
    """Counts work items by pool.

    Args:
        max_pools: Names kept; further pools share the row `_other` of their kind.
        max_functions: Function names kept over all pools, then `_other`.
        max_error_types: Exception type names kept over all pools, then `_other`.
        origin: Context variable whose value exemplars keep.
        span_key: Under which such a value holds the span whose account hears of waiting.
    """

    way = "native"
    sent = _native.Sent

    def __init__(
        self,
        *,
        max_pools: int = MAX_POOLS,
        max_functions: int = MAX_FUNCTIONS,
        max_error_types: int = MAX_ERROR_TYPES,
        origin: contextvars.ContextVar[Any] | None = None,
        span_key: object = None,
    ) -> None:
        self._native = _native.WorkProbe(
            function_name,
            max_pools=max_pools,
            max_functions=max_functions,
            max_error_types=max_error_types,
            origin=origin,
            span_key=span_key,
        )

    def pool(self, name: str, kind: PoolKind) -> PoolProbe:
        """Return a new pool's probe; pools of one name and kind share a row."""
        return self._native.pool(name, kind)

    def crossing(
        self,
        observer: Observer | None,
        trouble: Callable[[Exception], object],
        *,
        context_var: contextvars.ContextVar[Any] | None = None,
    ) -> Crossing:
        """Return what takes note of work items on their way to other processes and back."""
        return _native.Crossing(observer, trouble, context_var=context_var)

    def read(self) -> list[PoolRow]:
        """Return each row, exemplars drained."""
        return [_row(read) for read in self._native.read()]

    def peek(self) -> list[PoolCount]:
        """Return the numbers of each row, exemplars left where they are."""
        return [
            PoolCount(
                name,
                kind,
                submitted,
                live,
                histogram_state(queued),
                histogram_state(sent),
                merge_run_times((function, histogram_state(times)) for function, times in run),
            )
            for name, kind, submitted, live, queued, sent, run in self._native.peek()
        ]

    def reset(self) -> None:
        """Begin at zero, as a forked child must; work submitted before it counts nowhere any more."""
        self._native.reset()


def _row(read: tuple[Any, ...]) -> PoolRow:
    name, kind, submitted, finished, cancelled, failed, rejected, abandoned, unretrieved, crashes = read[:10]
    queue_times, transfer_times, run_times = read[10:]
    return PoolRow(
        name,
        kind,
        submitted,
        finished,
        cancelled,
        failed,
        rejected,
        abandoned,
        unretrieved,
        crashes,
        histogram_state(queue_times),
        histogram_state(transfer_times),
        merge_run_times((function, histogram_state(times)) for function, times in run_times),
    )
