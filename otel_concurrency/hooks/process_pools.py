"""Where we attach to `ProcessPoolExecutor`, so that pickling and its errors stay the application's own.

On the submitter's thread `submit` puts an `_Item` in the function's place. It never leaves this process:
`_CallItem.__init__`, which builds what is pickled, takes the plain function out again and hangs a parcel on
the call item, beside it. In the worker, `_CallItem.__setstate__` reads the parcel, and `_ResultItem.__init__`
hangs two durations on the result. In the parent a result, an item that cannot be pickled, and the end of a
broken pool pass through one method each. `map` and `run_in_executor` end in `submit`.

Leans on CPython `concurrent/futures/process.py`, 3.10 to 3.15.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.pool_items import (
    KEY,
    Carrier,
    Fence,
    ItemsInWorker,
    Observer,
    Parcel,
    Timing,
    creation_site,
    now_ns,
    transfer_ns,
)
from otel_concurrency.hooks.worker_crashes import Workers
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.work import PoolLevel, PoolProbe, WorkProbe

_BROKEN = "concurrent.futures.process.BrokenProcessPool"
_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")


class ProcessPoolHook:
    """Gives every item of every `ProcessPoolExecutor` its context, and counts and times it.

    Args:
        probe: Counts, in the submitting process.
        capture: Returns what the submitter's context has to carry.
        observer: Called around each item in the worker process.
        name: Names a pool.
        origin: Context variable whose value exemplars keep.
    """

    def __init__(
        self,
        probe: WorkProbe,
        *,
        capture: Callable[[], Carrier] = dict,
        observer: Observer | None = None,
        name: Callable[[Any], str] = creation_site,
        origin: ContextVar[Any] | None = None,
    ) -> None:
        self._probe = probe
        self._capture = capture
        self._name = name
        self._origin = origin
        self._in_worker = ItemsInWorker(observer)
        self._pools: weakref.WeakKeyDictionary[Any, PoolProbe] = weakref.WeakKeyDictionary()
        self._patches: list[Patch] = []
        self._forget: list[Callable[[], None]] = []
        self._is_active = False
        self._fence = Fence("a process pool")

    def __repr__(self) -> str:
        return f"<ProcessPoolHook [{'installed' if self._is_active else 'removed'}] {self._patches}>"

    def install(self) -> None:
        """Patch the pool's classes, as soon as the program imports them; a second call changes nothing."""
        if not self._is_active:
            self._is_active = True
            self._forget = [
                fork.in_child(self._pools.clear),  # a copied pool has no manager: nobody can use it there
                when_imported("concurrent.futures.process", self._patch),
            ]

    def remove(self) -> None:
        """Put everything back, last first; items on their way arrive as they would without us."""
        self._is_active = False
        while self._forget:
            self._forget.pop()()
        while self._patches:
            self._patches.pop().remove()

    def levels(self) -> Iterator[PoolLevel]:
        """Tell how full each live pool is."""
        for pool, probe in list(self._pools.items()):
            pending = len(pool._pending_work_items)
            workers = len(pool._processes or ())
            active = min(pending, workers)
            if pool._executor_manager_thread is not None or not pool._shutdown_thread:
                yield PoolLevel(
                    probe.name, "process", active, workers - active, pool._max_workers, pending - active
                )

    def _patch(self, module: ModuleType) -> None:
        pool, manager = module.ProcessPoolExecutor, module._ExecutorManagerThread
        for owner, name, make in (
            (module._CallItem, "__init__", self._unwrap),
            (module._CallItem, "__setstate__", self._arrive),
            (module._ResultItem, "__init__", self._answer),
            (module._SafeQueue, "_on_queue_feeder_error", self._fail_to_pickle),
            (manager, "process_result_item", self._take_result),
            (manager, "flag_executor_shutting_down", self._shut_down),
            (manager, "terminate_broken", self._break),
            (pool, "__init__", self._meet),
            (pool, "submit", self._submit),  # last: what it hands in, the others understand
        ):
            absent = {"absent": None} if name == "__setstate__" else {}
            patch = Patch(owner, name, switched(make), **absent)
            patch.install()
            self._patches.append(patch)

    # In the submitting process.

    def _probe_of(self, pool: Any) -> PoolProbe:
        known: tuple[Any, PoolProbe] | None = vars(pool).get(KEY)
        if known is None or known[0] is not self._pools:  # new, or known to another hook, or to a parent
            probe = self._pools[pool] = self._probe.pool(self._name(pool), "process")
            setattr(pool, KEY, (self._pools, probe))
            return probe
        return known[1]

    def _meet(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def __init__(pool: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(pool, *args, **kwargs)
            if switch.is_on:
                self._fence(self._probe_of, pool)

        return __init__

    def _submit(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def submit(pool: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            item = self._fence(self._item, pool, fn, args) if switch.is_on else None
            if item is None:
                return original(pool, fn, *args, **kwargs)
            try:
                future = original(pool, item, *args, **kwargs)
            except BaseException:
                item.reject()
                raise
            item.accept()
            return future

        return submit

    def _item(self, pool: Any, function: Any, args: tuple[Any, ...]) -> _Item:
        if type(function) is _Item:  # from a subclass whose submit came by here as well
            function = function.function
        probe = self._probe_of(pool)
        origin = self._origin.get(None) if self._origin is not None else None
        return _Item(function, args, probe, (self._capture(), now_ns(), probe.name), origin)

    def _unwrap(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def __init__(call: Any, work_id: int, fn: Any, args: Any, kwargs: Any) -> None:  # noqa: N807
            if type(fn) is _Item:
                original(call, work_id, fn.function, args, kwargs)
                if switch.is_on:
                    setattr(call, KEY, fn.parcel)
            else:
                original(call, work_id, fn, args, kwargs)

        return __init__

    def _take_result(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def process_result_item(manager: Any, result: Any) -> None:
            if switch.is_on:  # first: done after, it would fight with whoever waits for the result
                self._fence(_count_result, manager, result)
            original(manager, result)

        return process_result_item

    def _fail_to_pickle(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _on_queue_feeder_error(queue: Any, error: BaseException, call: Any) -> None:
            if switch.is_on:
                self._fence(_count_unsent, queue, error, call)
            original(queue, error, call)

        return _on_queue_feeder_error

    def _break(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def terminate_broken(manager: Any, /, *args: Any, **kwargs: Any) -> None:
            told = self._fence(self._count_broken, manager) if switch.is_on else None
            original(manager, *args, **kwargs)
            if told is not None:
                self._fence(told)

        return terminate_broken

    def _count_broken(self, manager: Any) -> Callable[[], None]:
        """Count what a broken pool will never run; returns what tells of its workers once they are joined."""
        for work in list(manager.pending_work_items.values()):
            if type(work.fn) is _Item:
                if work.future._state in _CANCELLED:
                    work.fn.ended(cancelled=True)
                else:
                    work.fn.ended(error_type=_BROKEN)
        pool = manager.executor_reference()
        is_wanted = pool is not None and getattr(pool, "_force_shutting_down", False)
        probe = None if pool is None or is_wanted else self._probe_of(pool)
        del pool
        workers = Workers(list(manager.processes.values()))
        return _do_nothing if probe is None else functools.partial(workers.tell, probe.crashed)

    def _shut_down(self, original: Callable[[Any], None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def flag_executor_shutting_down(manager: Any) -> None:
            pending = manager.pending_work_items
            cancelled = self._fence(_cancelled_in, pending) if switch.is_on else None
            original(manager)
            if cancelled is not None and manager.pending_work_items is not pending:
                self._fence(_count_dropped, pending, manager.pending_work_items, cancelled)

        return flag_executor_shutting_down

    # In the worker process.

    def _arrive(self, original: Callable[..., None] | None, switch: Switch) -> Callable[..., Any]:
        def __setstate__(call: Any, state: dict[str, Any]) -> None:  # noqa: N807
            parcel = state.pop(KEY, None)
            if original is None:
                vars(call).update(state)
            else:
                original(call, state)
            if switch.is_on:
                self._in_worker.begin(call.work_id, parcel, "process", call.fn, call.args)

        return __setstate__

    def _answer(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def __init__(result: Any, work_id: int, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(result, work_id, *args, **kwargs)
            if switch.is_on:
                failure = result.exception
                timing = self._in_worker.end(
                    work_id, getattr(failure, "exc", None), getattr(failure, "tb", None)
                )
                if timing is not None:
                    setattr(result, KEY, timing)

        return __init__


class _Item:
    """Stands for a function while its work item waits in the submitting process."""

    __slots__ = ("_is_counted", "_pid", "args", "function", "origin", "parcel", "probe")

    def __init__(
        self, function: Any, args: tuple[Any, ...], probe: PoolProbe, parcel: Parcel, origin: object
    ) -> None:
        self.function = function
        self.args = args
        self.probe = probe
        self.parcel = parcel
        self.origin = origin
        self._pid = os.getpid()
        self._is_counted = False

    def __repr__(self) -> str:
        return repr(self.function)

    @property
    def _otel_concurrency_pool(self) -> PoolProbe:
        """Where the future hook looks for whose failure nobody has looked at."""
        return self.probe

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Arrive as a plain callable where nobody unwraps us: our patches were removed meanwhile."""
        return functools.partial, (self.function,)

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # Let go of without a result: it was cancelled. A forked child has a copy, and nothing to say of it.
        if not self._is_counted and self._pid == getpid():
            self.ended(cancelled=True)

    def accept(self) -> None:
        """Count it as submitted."""
        self.probe.submitted()

    def reject(self) -> None:
        """Count it as refused."""
        if not self._is_counted:
            self._is_counted = True
            self.probe.rejected()

    def abandon(self) -> None:
        """Count it as given up by its pool."""
        if not self._is_counted:
            self._is_counted = True
            self.probe.abandoned()

    def ended(
        self,
        *,
        timing: Timing | None = None,
        error_type: str | None = None,
        cancelled: bool = False,
    ) -> None:
        """Count its end, once."""
        if self._is_counted:
            return
        self._is_counted = True
        queue_ns, run_ns = timing or (-1, -1)
        self.probe.done(
            function_name(self.function, self.args),
            queue_ns=queue_ns,
            run_ns=run_ns,
            transfer_ns=transfer_ns(now_ns() - self.parcel[1], timing),
            error_type=error_type,
            cancelled=cancelled,
            origin=self.origin,
        )


def _count_result(manager: Any, result: Any) -> None:
    work = manager.pending_work_items.get(getattr(result, "work_id", None))  # up to 3.12 also a process id
    if work is not None and type(work.fn) is _Item:
        error = result.exception
        work.fn.ended(
            timing=getattr(result, KEY, None), error_type=None if error is None else type_name(type(error))
        )


def _cancelled_in(pending: Mapping[int, Any]) -> set[int]:
    """Return which items had been cancelled, one by one, before the pool is shut down."""
    return {number for number, work in list(pending.items()) if work.future._state in _CANCELLED}


def _count_dropped(pending: Mapping[int, Any], left: Mapping[int, Any], cancelled: set[int]) -> None:
    """Count what a shutdown has cancelled; the pool itself may hold on to it."""
    for number, work in list(pending.items()):
        if number not in left and number not in cancelled and type(work.fn) is _Item:
            work.fn.abandon()


def _count_unsent(queue: Any, error: BaseException, call: Any) -> None:
    work = queue.pending_work_items.get(getattr(call, "work_id", None))
    if work is not None and type(work.fn) is _Item:
        work.fn.ended(error_type=type_name(type(error)))


def _do_nothing() -> None:
    pass
