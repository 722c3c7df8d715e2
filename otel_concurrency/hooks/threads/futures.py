"""Where a pool's future calls back, and where its failure goes unseen: `concurrent.futures.Future`.

`add_done_callback`: the callback runs in a copy of the context of whoever added it, wherever it is called.
One that is added to a future that is done already is called at once, by the adder, and needs nothing.

`set_exception`, so the failing path alone: a future of a measured pool that nobody waits for is watched until
somebody asks for its result or its exception, or adds a callback, see unseen.py. Leans on CPython
`concurrent/futures/_base.py`: `_state`, `_waiters`, `_condition`, `_done_callbacks`; and on `_WorkItem` in
`thread.py` and `process.py`.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from types import FunctionType
from typing import Any

from otel_concurrency.hooks.failures.failures import FAILURES
from otel_concurrency.hooks.failures.unseen import Unseen, UnseenWatch
from otel_concurrency.hooks.patch import Patch, Patches
from otel_concurrency.hooks.tasks.creation_context import creation_context
from otel_concurrency.hooks.threads.thread_pools import POOL_KEY

# Who calls `set_exception`, and the name of its work item, or of the task that is handed on.
_ITEMS = {"run": "self", "process_result_item": "work_item", "_set_concurrent_future_state": "source"}
_ITEM = "executor_future"
_CONTEXT_KEY = "_otel_concurrency_context"
_UNDONE = ("PENDING", "RUNNING")
_OWN = ("asyncio.futures", "otel_concurrency.hooks.threads.thread_pools")

_logger = logging.getLogger(__name__)


class FutureHook:
    """Carries contexts to callbacks, and counts failures that nobody looked at."""

    def __init__(self) -> None:
        self._patches = Patches(
            [
                Patch(Future, "add_done_callback", _call_in_context),
                Patch(Future, "set_exception", _watch_failure),
            ]
        )

    def __repr__(self) -> str:
        return f"<FutureHook {self._patches}>"

    def install(self) -> None:
        """Patch `Future`; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back, last first."""
        self._patches.remove()


def _call_in_context(original: Callable[..., None]) -> tuple[Any, Callable[[], None]]:
    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> None:
        if is_silent or self._state not in _UNDONE or (type(fn) is FunctionType and fn.__module__ in _OWN):
            # asyncio's own only hands the outcome on to a loop, which has the task's context.
            original(self, fn)
        else:
            original(self, functools.partial(copy_context().run, fn))

    is_silent = False

    def silence() -> None:
        nonlocal is_silent
        is_silent = True

    return add_done_callback, silence


def _watch_failure(original: Callable[..., None]) -> tuple[Any, Callable[[], None]]:
    @functools.wraps(original)
    def set_exception(self: Any, exception: Any) -> None:
        try:
            # Asked and told under one lock: whoever looks does so before, and is seen waiting, or after.
            with self._condition:
                if not is_silent:
                    _watch(self, exception, sys._getframe(1))
                if not self._done_callbacks:
                    original(self, exception)
                    return
            original(self, exception)
        finally:
            del self, exception  # the exception's own traceback may lead here

    is_silent = False

    def silence() -> None:
        nonlocal is_silent
        is_silent = True

    return set_exception, silence


def _watch(future: Any, exception: Any, caller: Any) -> None:
    try:
        if future._state not in _UNDONE or hasattr(type(future), "__del__"):
            return
        kind, function, context = _cause_of(caller)
        if future._waiters or future._condition._waiters or any(map(_looks, future._done_callbacks)):
            if context is not None:  # an event loop's future, for one, fails next, and may go unseen
                FAILURES.hand_on(exception, context)
            return
        FAILURES.hand_on(exception, None)
        pool = vars(future).get(POOL_KEY) or getattr(function, POOL_KEY, None)
        if pool is not None or kind != _ITEM:
            # What went to another process took its context along as text.
            carrier = function.parcel[0] if hasattr(type(function), "parcel") else None
            unseen = Unseen(
                kind, exception, exception.__traceback__, pool=pool, context=context, carrier=carrier
            )
            _unseen.begin(future, unseen)
    except (AttributeError, TypeError):  # a class whose objects cannot change theirs, or no exception at all
        pass
    except Exception:
        _logger.exception("A failed future is not watched")


def _looks(callback: Any) -> bool:
    """Whether a callback is told of the outcome: asyncio has one that only asks whether it was cancelled."""
    return not (
        type(callback) is FunctionType
        and callback.__name__ == "_call_check_cancel"
        and callback.__module__ == "asyncio.futures"
    )


def _cause_of(caller: Any) -> tuple[str, Any, Context | None]:
    """Return whose outcome is being set: a kind of failure, what a pool's work item runs, and its context.

    `asyncio.run_coroutine_threadsafe` hands a task's outcome on (`_set_concurrent_future_state`).
    """
    code = caller.f_code
    place = _ITEMS.get(code.co_name)
    if place is None:
        return _ITEM, None, None
    names = caller.f_locals
    item = names.get(place)
    if type(names) is dict:  # until 3.12 a copy, which the frame keeps: with the future that it leads to
        names.clear()
    if place == "source":
        return "future_never_retrieved", None, creation_context(item)
    function = getattr(item, "fn", None) or (getattr(item, "task", None) or (None,))[0]  # 3.14 has a task
    return _ITEM, function, getattr(function, _CONTEXT_KEY, None)


def _hand_on(future: Any, method: str, unseen: Unseen) -> None:
    """Remember the context of one that goes on: an event loop's future gets the exception, and knows none."""
    if method == "add_done_callback" and unseen.context is not None:
        FAILURES.hand_on(unseen.error, unseen.context)


_unseen = UnseenWatch(("result", "exception", "add_done_callback"), _hand_on)
