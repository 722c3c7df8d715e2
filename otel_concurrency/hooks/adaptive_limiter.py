"""A limit of calls that are under way at once, which finds out by itself what it should be.

Opt-in: a program puts it around what saturates, a database, a service, a model. It works on asyncio's loops
and in threads, both at once too, and needs nobody to instrument anything.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TypeVar

from otel_concurrency.diagnosis.board import BOARD
from otel_concurrency.probes.concurrency_limit import INITIAL, MAXIMUM, MINIMUM, TOLERANCE, ConcurrencyLimit

_entered: ContextVar[tuple[tuple[AdaptiveLimiter, int], ...]] = ContextVar(
    "otel_concurrency_limits", default=()
)

limiters: weakref.WeakSet[AdaptiveLimiter] = weakref.WeakSet()
"""All that there are; who tells their limits reads it."""


_HINDRANCES = ("cpu_starvation", "gil_contention")
"""Findings of the diagnosis, where there is one, during which no limit moves."""

_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # two classes before 3.11


class LimitReached(Exception):  # noqa: N818 - it is no error of anybody's
    """As many calls are under way, and as many wait, as may be: do without, or answer 503."""


class AdaptiveLimiter:
    """Lets so many calls be under way at once as the dependency behind them answers without delay.

    `with limiter:` or `async with limiter:` around each call; who comes when the limit is reached waits,
    first come, first served. How long calls take decides what the limit is (`ConcurrencyLimit`); those that
    raise do not count for that, unless they raise TimeoutError.

    Args:
        name: Its name in the metric `concurrency.limit.recommended`.
        initial: The limit to begin with.
        minimum: Never less.
        maximum: Never more.
        tolerance: How much later the slowest calls may come back than unhurried ones; above 1.
        max_waiting: How many may wait; beyond these, entering raises `LimitReached`. None: any number.
        clock: Monotonic time, ns.

    Raises:
        ValueError: The numbers leave no room for a limit.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        initial: int = INITIAL,
        minimum: int = MINIMUM,
        maximum: int = MAXIMUM,
        tolerance: float = TOLERANCE,
        max_waiting: int | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self._advice = ConcurrencyLimit(
            initial=initial, minimum=minimum, maximum=maximum, tolerance=tolerance
        )
        self._max_waiting = max_waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._in_use = 0
        self._waiting: deque[_Waiter] = deque()
        self.rejected = 0
        limiters.add(self)

    def __repr__(self) -> str:
        return f"<AdaptiveLimiter {self.name} [{self._in_use} of {self.limit}, {len(self._waiting)} waiting]>"

    @property
    def limit(self) -> int:
        """How many calls may be under way now."""
        return self._advice.limit

    @property
    def in_use(self) -> int:
        """How many are."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __enter__(self) -> AdaptiveLimiter:
        waiter = self._take(_ThreadWaiter)
        if waiter is not None:
            try:
                waiter.wait()
            except BaseException:
                self._give_up(waiter)
                raise
        _entered.set((*_entered.get(), (self, self._clock())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> AdaptiveLimiter:
        waiter = self._take(_TaskWaiter)
        if waiter is not None:
            try:
                await waiter.future
            except BaseException:
                self._give_up(waiter)
                raise
        _entered.set((*_entered.get(), (self, self._clock())))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def _take(self, make_waiter: Callable[[], _W]) -> _W | None:
        """Take a place, or return what to wait with; raises where there is no room to wait."""
        with self._lock:
            if self._in_use < self._advice.limit and not self._waiting:
                self._in_use += 1
                return None
            if self._max_waiting is not None and len(self._waiting) >= self._max_waiting:
                self.rejected += 1
                raise LimitReached(
                    f"{self.name}: {self._in_use} calls under way (limit {self._advice.limit}), "
                    f"{len(self._waiting)} waiting (limit {self._max_waiting})"
                )
            waiter = make_waiter()
            self._waiting.append(waiter)
            return waiter

    def _give_up(self, waiter: _Waiter) -> None:
        """Wait no more; a place that came meanwhile goes to the next one."""
        with self._lock:
            try:
                self._waiting.remove(waiter)
            except ValueError:
                pass
            else:
                return
        self._put_back()

    def _leave(self, error: BaseException | None) -> None:
        began_ns = self._forget_entry()
        if began_ns is not None and (error is None or isinstance(error, _TIMEOUTS)):
            now_ns = self._clock()
            is_frozen = _is_hindered()
            with self._lock:
                self._advice.observe(now_ns - began_ns, self._in_use, now_ns, is_frozen=is_frozen)
        self._put_back()

    def _forget_entry(self) -> int | None:
        """Return when this task or thread came in; None where it was another one that did."""
        entered = _entered.get()
        for position in range(len(entered) - 1, -1, -1):
            if entered[position][0] is self:
                _entered.set(entered[:position] + entered[position + 1 :])
                return entered[position][1]
        return None

    def _put_back(self) -> None:
        next_ones: list[_Waiter] = []
        with self._lock:
            self._in_use -= 1
            while self._waiting and self._in_use < self._advice.limit:
                self._in_use += 1
                next_ones.append(self._waiting.popleft())
        for waiter in next_ones:
            if not waiter.wake():  # its event loop is gone
                self._put_back()


class _ThreadWaiter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def wake(self) -> bool:
        self._lock.release()
        return True


class _TaskWaiter:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future = self._loop.create_future()

    def wake(self) -> bool:
        if asyncio._get_running_loop() is self._loop:
            self._go_on()
            return True
        try:
            self._loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:  # closed
            return False
        return True

    def _go_on(self) -> None:
        if not self.future.done():  # one that was cancelled gives its place back by itself
            self.future.set_result(None)


_Waiter = _ThreadWaiter | _TaskWaiter
_W = TypeVar("_W", _ThreadWaiter, _TaskWaiter)


def _is_hindered() -> bool:
    """Whether this process lacks what it takes to notice in time that a call came back."""
    return any(finding.rule in _HINDRANCES for finding in BOARD.now.open)
