"""Where we attach to `ProcessPoolExecutor`, so that pickling and its errors stay the application's own.

On the submitter's thread `submit` puts a `Sent` in the function's place. It never leaves this process:
`_CallItem.__init__`, which builds what is pickled, takes the plain function out again and hangs a parcel on
the call item, beside it. In the worker, `_CallItem.__setstate__` reads the parcel, `_ResultItem.__init__`
hangs two durations on the result, and after `_sendback_result` there is time for what nobody waits for. What
comes back passes `process_result_item`, or what process_results.py knows. `map` and `run_in_executor` end in
`submit`.

A round trip takes some 60 µs, half a dozen changes of thread and process, each with cold caches: what runs on
this way for every item is C where it can be (probes/native_source/crossing.h).

Leans on CPython `concurrent/futures/process.py`, 3.10 to 3.15.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.processes.process_results import ProcessResults
from otel_concurrency.hooks.threads.pool_items import Fence, creation_site
from otel_concurrency.probes.crossing import KEY, Carrier, Observer
from otel_concurrency.probes.work import PoolLevel, PoolProbe, WorkProbe


class ProcessPoolHook:
    """Gives every item of every `ProcessPoolExecutor` its context, and counts and times it.

    Args:
        probe: Counts, in the submitting process.
        capture: Returns what the submitter's context has to carry.
        observer: Called around each item in the worker process.
        name: Names a pool.
        context_var: Of the observer's contexts; see `Crossing`.
    """

    def __init__(
        self,
        probe: WorkProbe,
        *,
        capture: Callable[[], Carrier] = dict,
        observer: Observer | None = None,
        name: Callable[[Any], str] = creation_site,
        context_var: ContextVar[Any] | None = None,
    ) -> None:
        self._probe = probe
        self._capture = capture
        self._name = name
        self._observer = observer
        self._context_var = context_var
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
        results = ProcessResults(self._probe.sent, self._probe_of, self._fence)
        crossing = self._probe.crossing(self._observer, self._fence.log_once, context_var=self._context_var)
        for owner, name, make in (
            (module._CallItem, "__init__", crossing.unwrap),
            (module._CallItem, "__setstate__", crossing.arrive),
            (module._ResultItem, "__init__", crossing.answer),
            (module, "_sendback_result", crossing.send_back),
            (module._SafeQueue, "_on_queue_feeder_error", switched(results.fail_to_pickle)),
            (manager, "process_result_item", crossing.take),
            (manager, "flag_executor_shutting_down", switched(results.shut_down)),
            (manager, "terminate_broken", switched(results.break_down)),
            (pool, "__init__", switched(self._meet)),
            (pool, "submit", switched(self._submit)),  # last: what it hands in, the others understand
        ):
            absent = {"absent": None} if name == "__setstate__" else {}
            patch = Patch(owner, name, make, **absent)
            patch.install()
            self._patches.append(patch)

    # In the submitting process.

    def _probe_of(self, pool: Any) -> PoolProbe:
        # Not through `vars`: from 3.11 to 3.12 that makes a dict, and all attributes of the pool slower.
        known: tuple[Any, PoolProbe] | None = None
        with contextlib.suppress(AttributeError):
            known = object.__getattribute__(pool, KEY)
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
        capture, fence, pools = self._capture, self._fence, self._pools

        @functools.wraps(original)
        def submit(pool: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            item = None
            if switch.is_on:
                try:
                    known = getattr(pool, KEY, None)
                    probe = known[1] if known is not None and known[0] is pools else self._probe_of(pool)
                    item = probe.send(fn, args, capture)
                except Exception:
                    fence.log_once()
            if item is None:
                return original(pool, fn, *args, **kwargs)
            try:
                return original(pool, item, *args, **kwargs)
            except BaseException:
                item.reject()
                raise

        return submit
