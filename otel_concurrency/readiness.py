"""What a program needs to work, asked for by `/ready`: its own checks, run together, each with a time limit.

    from otel_concurrency import readiness

    readiness.add_check("database", lambda: pool.fetchval("SELECT 1"), timeout=0.5)

Adding one costs nothing where nobody asks. `docs/endpoints.md` tells how they are asked.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import queue
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

Check = Callable[[], "Awaitable[object] | object"]

TIMEOUT_S = 0.5
LIMIT_S = 0.9
"""How long all checks together may take, whatever each of them may: `/ready` answers within a second."""

_EMPTY = contextvars.Context()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check went.

    Attributes:
        name: Of the check.
        ok: Whether what it stands for is there.
        took_s: How long it took, or has taken so far.
        error: Why it is not; empty if it is.
    """

    name: str
    ok: bool
    took_s: float
    error: str = ""


class _Known:
    """A check, and whether it runs."""

    def __init__(self, name: str, check: Check, timeout_s: float) -> None:
        self.name = name
        self.check = check
        self.timeout_s = timeout_s
        self.is_async = inspect.iscoroutinefunction(check)
        self.loop = _running_loop()
        self.began = 0.0  # of the run under way; 0: there is none
        self.pid = 0


_checks: dict[str, _Known] = {}  # replaced, never changed


def add_check(name: str, check: Check, *, timeout: float = TIMEOUT_S) -> Callable[[], None]:
    """Let `/ready` ask this, too; another check of the same name is replaced.

    Args:
        name: What it stands for: `database`, `cache`.
        check: What `/ready` calls. A coroutine function, or a function that returns an awaitable, is awaited
            in the event loop in which it was added, or else in one that runs; any other is called on a
            thread. What is needed is not there if it raises or returns `False`.
        timeout: How long it may take, s; at most `LIMIT_S` counts. A coroutine is cancelled then; a function
            that blocks is left alone, and not called again before it returns.

    Returns:
        What takes it back.

    Raises:
        TypeError: `check` cannot be called.
        ValueError: The time is none.
    """
    global _checks
    if not callable(check):
        raise TypeError(f"the check {name!r} cannot be called: {check!r}")
    if not timeout > 0:
        raise ValueError(f"the check {name!r} needs a time limit above 0 s, not {timeout!r}")
    known = _Known(name, check, timeout)
    _checks = {**_checks, name: known}

    def remove() -> None:
        global _checks
        _checks = {other: each for other, each in _checks.items() if each is not known}

    return remove


def run_checks(find_loop: Callable[[], asyncio.AbstractEventLoop | None] | None = None) -> list[CheckResult]:
    """Run all checks at once, and return how they went, in the order they were added.

    To be called from a thread that runs no event loop.

    Args:
        find_loop: Returns an event loop that runs, for awaitables whose own is not known; without one, a loop
            is made.
    """
    runs = [_Run(each, find_loop or (lambda: None)) for each in _checks.values()]
    for run in runs:
        run.start()
    ends = time.monotonic() + LIMIT_S
    return [run.result(ends) for run in runs]


class _Run:
    """One check, asked once."""

    def __init__(self, known: _Known, find_loop: Callable[[], asyncio.AbstractEventLoop | None]) -> None:
        self._known = known
        self._find_loop = find_loop
        self._began = time.monotonic()
        self._answer: queue.SimpleQueue[tuple[bool, str]] = queue.SimpleQueue()
        self._future: Future[object] | None = None
        self._is_stuck = False
        self._waits_for_loop = False
        self._is_given_up = False

    def start(self) -> None:
        known = self._known
        if known.began and known.pid == os.getpid():
            self._is_stuck, self._began = True, known.began
            return
        known.began, known.pid = self._began, os.getpid()
        try:
            if known.is_async:
                self._await(known.check)
            else:
                name = f"otel-concurrency-check-{known.name}"
                threading.Thread(target=_EMPTY.copy().run, args=(self._call,), name=name, daemon=True).start()
        except Exception as error:
            self._tell(error)

    def result(self, ends: float) -> CheckResult:
        known = self._known
        if self._is_stuck:
            took_s = time.monotonic() - self._began
            return CheckResult(known.name, False, took_s, f"has not returned since {took_s:.1f} s")
        deadline = min(self._began + known.timeout_s, ends)
        try:
            ok, error = self._answer.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            ok, error = False, f"takes longer than {deadline - self._began:.1f} s"
            self._is_given_up = True
            if self._waits_for_loop:
                error += ": its event loop has not come to it"
            elif self._future is not None:
                self._future.cancel()
        return CheckResult(known.name, ok, time.monotonic() - self._began, error)

    def _call(self) -> None:
        try:
            value = self._known.check()
            if inspect.isawaitable(value):
                self._await(lambda: value)
                return
        except BaseException as error:
            self._tell(error)
        else:
            self._tell(None, value)

    def _await(self, make: Callable[[], Any]) -> None:
        async def wait() -> object:
            self._waits_for_loop = False
            return None if self._is_given_up else await make()

        loop = self._known.loop() or self._find_loop()
        if loop is None or not loop.is_running():
            if self._known.is_async:
                threading.Thread(target=self._await_here, args=(wait,), daemon=True).start()
            else:
                self._await_here(wait)
            return
        self._waits_for_loop = True
        self._future = _EMPTY.copy().run(asyncio.run_coroutine_threadsafe, wait(), loop)
        self._future.add_done_callback(self._heard)

    def _await_here(self, wait: Callable[[], Any]) -> None:
        try:
            value = asyncio.run(asyncio.wait_for(wait(), self._known.timeout_s))
        except BaseException as error:
            self._tell(error)
        else:
            self._tell(None, value)

    def _heard(self, future: Future[object]) -> None:
        if future.cancelled():
            self._tell(TimeoutError())
        else:
            error = future.exception()
            self._tell(error, None if error is not None else future.result())

    def _tell(self, error: BaseException | None, value: object = None) -> None:
        self._known.began = 0.0
        if error is not None:
            self._answer.put((False, f"{type(error).__name__}: {error}"[:300]))
        elif value is False:
            self._answer.put((False, "says no"))
        else:
            self._answer.put((True, ""))


def _running_loop() -> Callable[[], asyncio.AbstractEventLoop | None]:
    try:
        return weakref.ref(asyncio.get_running_loop())
    except (RuntimeError, TypeError):
        return _nobody


def _nobody() -> None:
    return None
