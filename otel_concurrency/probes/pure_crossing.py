"""The pure twin of the native `Crossing`: work items on their way to a worker process and back."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

from otel_concurrency.probes.crossing import KEY, End, Late, Observer, Parcel, Replacement, Timing
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.pure_sent import PureSent

_now_ns = time.monotonic_ns


class PureCrossing:
    """Takes note of work items where a pool's own functions pass them; see `Crossing`.

    Args:
        observer: Called around each item that this process runs as a worker, or None.
        trouble: Called with an exception that came up in here.
        context_var: An item that brings nothing does not bother the observer while this is empty.
    """

    def __init__(
        self,
        observer: Observer | None,
        trouble: Callable[[Exception], object],
        *,
        context_var: ContextVar[Any] | None = None,
    ) -> None:
        self._observer = observer
        self._trouble = trouble
        self._context_var = context_var
        # The item that runs now, and its durations: a pool may build a second result of it.
        self._key: object = None
        self._began_ns = self._queue_ns = self._run_ns = 0
        self._end: End | None = None
        self._late: Late | None = None

    def begin(
        self, key: object, parcel: Parcel | None, kind: str, function: Any, args: tuple[Any, ...], /
    ) -> None:
        """Take note of the item that this process runs next."""
        began_ns = _now_ns()
        self.finish()
        self._key = self._end = None
        if parcel is None:
            return
        try:
            carrier, submitted_ns, pool = parcel
            self._queue_ns = began_ns - submitted_ns if began_ns > submitted_ns else 0
            self._key, self._began_ns, self._run_ns = key, began_ns, -1
            if self._observer is None:
                return
            if not carrier and self._context_var is not None and not self._context_var.get(None):
                return
            self._end = self._observer(function, args, carrier, pool, kind, self._queue_ns)
            if self._end is not None:
                self._began_ns = _now_ns()  # what the observer took is neither queue nor run time
        except Exception as error:
            self._trouble(error)

    def end(self, key: object, error: BaseException | None, stacktrace: str | None, /) -> Timing | None:
        """Return what travels beside the result; the second call for an item says what the first did."""
        if self._key is None or self._key != key:
            return None
        if self._run_ns < 0:
            self._run_ns = _now_ns() - self._began_ns
            end, self._end = self._end, None
            try:
                if isinstance(end, tuple):
                    self._late = functools.partial(end[1], error, stacktrace, time.time_ns())
                    end = end[0]
                if isinstance(end, Token):
                    if self._context_var is not None:
                        self._context_var.reset(end)
                elif end is not None:
                    self._late = end(error, stacktrace)
            except Exception as trouble:
                self._trouble(trouble)
        return self._queue_ns, self._run_ns

    def finish(self) -> None:
        """Do what the item before has left to do, now that its result is out."""
        late, self._late = self._late, None
        if late is not None:
            try:
                late()
            except Exception as error:
                self._trouble(error)

    def unwrap(self, original: Any, /) -> Replacement:
        """Replace `_CallItem.__init__`."""
        is_on = True

        def turn_off() -> None:
            nonlocal is_on
            is_on = False

        @functools.wraps(original)
        def __init__(call: Any, work_id: int, fn: Any, args: Any, kwargs: Any) -> None:  # noqa: N807
            if type(fn) is PureSent:
                original(call, work_id, fn.function, args, kwargs)
                if is_on:
                    setattr(call, KEY, fn.parcel)
            else:
                original(call, work_id, fn, args, kwargs)

        return __init__, turn_off

    def take(self, original: Any, /) -> Replacement:
        """Replace `_ExecutorManagerThread.process_result_item`."""
        is_on = True

        def turn_off() -> None:
            nonlocal is_on
            is_on = False

        @functools.wraps(original)
        def process_result_item(manager: Any, result: Any) -> None:
            if is_on:  # first: done after, it would fight with whoever waits for the result
                try:
                    _tell(manager, result)
                except Exception as error:
                    self._trouble(error)
            original(manager, result)

        return process_result_item, turn_off

    def arrive(self, original: Any, /) -> Replacement:
        """Replace `_CallItem.__setstate__`, or its absence."""
        is_on = True

        def turn_off() -> None:
            nonlocal is_on
            is_on = False

        def __setstate__(call: Any, state: dict[str, Any]) -> None:  # noqa: N807
            parcel = state.pop(KEY, None)
            if original is None:
                call.__dict__ = state
            else:
                original(call, state)
            if is_on:
                self.begin(state.get("work_id"), parcel, "process", state.get("fn"), state.get("args", ()))

        return __setstate__, turn_off

    def answer(self, original: Any, /) -> Replacement:
        """Replace `_ResultItem.__init__`."""
        is_on = True

        def turn_off() -> None:
            nonlocal is_on
            is_on = False

        @functools.wraps(original)
        def __init__(item: Any, work_id: int, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(item, work_id, *args, **kwargs)
            if is_on:
                failure = item.exception  # an _ExceptionWithTraceback
                error, stacktrace = getattr(failure, "exc", None), getattr(failure, "tb", None)
                timing = self.end(work_id, error, stacktrace)
                if timing is not None:
                    setattr(item, KEY, timing)

        return __init__, turn_off

    def send_back(self, original: Any, /) -> Replacement:
        """Replace `_sendback_result`."""

        @functools.wraps(original)
        def _sendback_result(*args: Any, **kwargs: Any) -> None:
            try:
                original(*args, **kwargs)
            finally:
                self.finish()

        return _sendback_result, _do_nothing


def _tell(manager: Any, result: Any) -> None:
    number = getattr(result, "work_id", None)  # up to 3.12 a result may be a process id instead
    work = manager.pending_work_items.get(number)
    if work is not None and type(work.fn) is PureSent:
        error = result.exception
        error_type = None if error is None else type_name(type(error))
        work.fn.done(_now_ns(), vars(result).get(KEY), error_type)


def _do_nothing() -> None:
    pass
