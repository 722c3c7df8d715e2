"""Why a submitting process will hear no result of a `ProcessPoolExecutor`'s item.

An item that cannot be pickled, a shutdown that cancels, and the end of a broken pool pass through one method
each, in the pool's own threads; results themselves pass the `Crossing`. Leans on CPython
`concurrent/futures/process.py`, 3.10 to 3.15.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from otel_concurrency.hooks.patch import Switch
from otel_concurrency.hooks.processes.worker_crashes import Workers
from otel_concurrency.hooks.threads.pool_items import Fence, now_ns
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.work import PoolProbe

_BROKEN = "concurrent.futures.process.BrokenProcessPool"
_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")


class ProcessResults:
    """Tells each item of its end; makes the replacements of what hears of it.

    Args:
        sent: The class of items that are followed: `WorkProbe.sent`.
        probe_of: Returns a pool's probe.
        fence: Keeps our trouble ours.
    """

    def __init__(self, sent: type[Any], probe_of: Callable[[Any], PoolProbe], fence: Fence) -> None:
        self._sent = sent
        self._probe_of = probe_of
        self._fence = fence

    def fail_to_pickle(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        """Replace `_SafeQueue._on_queue_feeder_error`."""

        @functools.wraps(original)
        def _on_queue_feeder_error(queue: Any, error: BaseException, call: Any) -> None:
            if switch.is_on:
                self._fence(self._count_unsent, queue, error, call)
            original(queue, error, call)

        return _on_queue_feeder_error

    def break_down(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        """Replace `_ExecutorManagerThread.terminate_broken`."""

        @functools.wraps(original)
        def terminate_broken(manager: Any, /, *args: Any, **kwargs: Any) -> None:
            told = self._fence(self._count_broken, manager) if switch.is_on else None
            original(manager, *args, **kwargs)
            if told is not None:
                self._fence(told)

        return terminate_broken

    def shut_down(self, original: Callable[[Any], None], switch: Switch) -> Callable[..., Any]:
        """Replace `_ExecutorManagerThread.flag_executor_shutting_down`."""

        @functools.wraps(original)
        def flag_executor_shutting_down(manager: Any) -> None:
            pending = manager.pending_work_items
            cancelled = self._fence(_cancelled_in, pending) if switch.is_on else None
            original(manager)
            if cancelled is not None and manager.pending_work_items is not pending:
                self._fence(self._count_dropped, pending, manager.pending_work_items, cancelled)

        return flag_executor_shutting_down

    def _count_unsent(self, queue: Any, error: BaseException, call: Any) -> None:
        work = queue.pending_work_items.get(getattr(call, "work_id", None))
        if work is not None and type(work.fn) is self._sent:
            work.fn.done(now_ns(), None, type_name(type(error)))

    def _count_dropped(
        self, pending: Mapping[int, Any], left: Mapping[int, Any], cancelled: set[int]
    ) -> None:
        """Count what a shutdown has cancelled; the pool itself may hold on to it."""
        for number, work in list(pending.items()):
            if number not in left and number not in cancelled and type(work.fn) is self._sent:
                work.fn.abandon()

    def _count_broken(self, manager: Any) -> Callable[[], None]:
        """Count what a broken pool will never run; returns what tells of its workers once they are joined."""
        for work in list(manager.pending_work_items.values()):
            if type(work.fn) is self._sent:
                if work.future._state in _CANCELLED:
                    work.fn.cancel()
                else:
                    work.fn.done(now_ns(), None, _BROKEN)
        pool = manager.executor_reference()
        is_wanted = pool is not None and getattr(pool, "_force_shutting_down", False)
        probe = None if pool is None or is_wanted else self._probe_of(pool)
        del pool
        workers = Workers(list(manager.processes.values()))
        return _do_nothing if probe is None else functools.partial(workers.tell, probe.crashed)


def _cancelled_in(pending: Mapping[int, Any]) -> set[int]:
    """Return which items had been cancelled, one by one, before the pool is shut down."""
    return {number for number, work in list(pending.items()) if work.future._state in _CANCELLED}


def _do_nothing() -> None:
    pass
