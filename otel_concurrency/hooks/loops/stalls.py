"""One stall of an event loop, and what is gathered about it while it lasts."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from otel_concurrency.hooks.loops.watchdog import WatchedRun
from otel_concurrency.probes.pure import coroutine_name
from otel_concurrency.probes.stacks import Stack
from otel_concurrency.probes.stall_cause import (
    BLOCKED_CALL,
    NATIVE_GIL_HELD,
    UNKNOWN,
    Evidence,
    cause_of,
)
from otel_concurrency.probes.thread_states import SLEEP, SYSCALL
from otel_concurrency.probes.thread_states import UNKNOWN as UNKNOWN_STATE
from otel_concurrency.probes.trio_tasks import named_by

MAX_STACKS = 32
"""Different stacks kept of one stall, and of the looks of which the GIL's waits are."""


@dataclass(slots=True)
class Stall:
    """One stall of one loop.

    Attributes:
        loop_id: See `LoopIndex`.
        loop_type: The same.
        thread_ident: Of the loop's thread.
        began_unix_ns: When it began, ns since the epoch.
        duration_ns: How long it took, or takes so far.
        cause: One of `stall_cause.CAUSES`.
        function: The task's coroutine function, or the callback, that held the loop; empty if nobody saw it.
        task_name: Name of the task; empty outside of one.
        call: What it was calling; see `Stack.call`.
        file: Where in the application that was.
        line: The same.
        frames: The innermost frames that were seen most often.
        origin: Value of the origin variable where the loop was held: an OpenTelemetry context to `signals/`.
        looks: How often it was looked at; 0: it was over before anybody could.
        is_placed: Whether the listener has found a span in the origin; until then it is looked for again.
    """

    loop_id: int | None
    loop_type: str
    thread_ident: int
    began_unix_ns: int
    duration_ns: int = 0
    cause: str = UNKNOWN
    function: str = ""
    task_name: str = ""
    call: str = ""
    file: str = ""
    line: int = 0
    frames: tuple[str, ...] = ()
    origin: object = None
    looks: int = 0
    is_placed: bool = False


class StallListener(Protocol):
    """Hears of stalls, in the watching thread."""

    def stall_seen(self, stall: Stall) -> None:
        """A stall is on; comes once, while the loop is still held, with all but its duration known."""
        ...

    def stall_goes_on(self, stall: Stall) -> None:
        """It was looked at again."""
        ...

    def stall_ended(self, stall: Stall) -> None:
        """It is over; what was too short to be seen comes only here."""
        ...


class StallListeners:
    """Several listeners in the place of one."""

    def __init__(self, *listeners: StallListener) -> None:
        self.all = listeners

    def stall_seen(self, stall: Stall) -> None:
        """A stall is on."""
        for listener in self.all:
            listener.stall_seen(stall)

    def stall_goes_on(self, stall: Stall) -> None:
        """It was looked at again."""
        for listener in self.all:
            listener.stall_goes_on(stall)

    def stall_ended(self, stall: Stall) -> None:
        """It is over."""
        for listener in self.all:
            listener.stall_ended(stall)


class Culprits:
    """Names who runs in a loop's thread, while that thread does not go on.

    Args:
        origin: Context variable whose value a stall keeps.
        context_of_thread: Returns what is current in a thread; None where nobody can tell.
    """

    def __init__(
        self,
        origin: contextvars.ContextVar[Any] | None = None,
        context_of_thread: Callable[[int], contextvars.Context | None] | None = None,
    ) -> None:
        self._origin = origin
        self._context_of_thread = context_of_thread

    def name(self, stall: Stall, run: WatchedRun) -> None:
        """Put the task, and what is current in it, into the stall; nothing outside of a task's step.

        A task that is in the stall already stays, and what is current in it by now is put there.
        """
        try:
            task = asyncio.current_task(run.timed.reference())
        except RuntimeError:  # no loop any more
            task = None
        task_name = task.get_name() if task is not None else ""
        if stall.task_name and stall.task_name != task_name:
            return  # the iteration has come to somebody else
        if task is not None and not stall.task_name:
            coroutine = task.get_coro()
            named = named_by(coroutine) if hasattr(coroutine, "cr_code") else coroutine
            stall.function, stall.task_name = coroutine_name(named), task_name
        context = self._context_of_thread(run.ident) if self._context_of_thread is not None else None
        if context is None and task is not None:
            get_context = getattr(task, "get_context", None)  # CPython 3.12
            context = get_context() if get_context is not None else None
        if context is not None and self._origin is not None:
            stall.origin = context.get(self._origin)


@dataclass(slots=True)
class Incident:
    """A stall that is on. Times are those of the watching clock, ns.

    Attributes:
        stall: What is told of it.
        threshold_ns: From when on an iteration is a stall.
        began_ns: When the iteration began.
        watched_from_ns: Since when the thread's clocks are known.
        cpu_before_ns: CPU time of the thread then.
        runqueue_before_ns: Its time without a CPU then.
        durations_ns: All iterations that were over when this one was last seen.
        is_told: Whether somebody has heard of it.
    """

    stall: Stall
    threshold_ns: int
    began_ns: int
    watched_from_ns: int
    cpu_before_ns: int | None
    runqueue_before_ns: int | None
    durations_ns: int = 0
    is_told: bool = False
    _process_before: tuple[int, int] | None = None
    _stacks: Counter[Stack] = field(default_factory=Counter)
    _gil_waits_ns: list[int] = field(default_factory=list)
    _kept_ns: int | None = None
    _blocked: int = 0
    _looks: int = 0
    _place: tuple[int, int] | None = None
    _has_moved: bool | None = None
    _unnamed: Stack | None = None

    def add(self, stack: Stack | None, state: str, gil_wait_ns: int, kept_ns: int | None = None) -> None:
        """Add one look.

        Args:
            stack: What the thread was doing.
            state: What the kernel says that it did; see `thread_states`.
            gil_wait_ns: What looking had to wait for the GIL; -1 where it was not measured.
            kept_ns: CPU time of the thread during that wait; None where nobody tells.
        """
        self.stall.looks += 1
        if state != UNKNOWN_STATE:
            self._looks += 1
            self._blocked += state in (SLEEP, SYSCALL)
        if gil_wait_ns >= 0 and len(self._gil_waits_ns) < MAX_STACKS:
            self._gil_waits_ns.append(gil_wait_ns)
        if gil_wait_ns >= 0 and kept_ns is not None:
            self._kept_ns = max(self._kept_ns or 0, min(gil_wait_ns, kept_ns))
        if stack is not None:
            if self._place is not None:
                self._has_moved = bool(self._has_moved) or stack.place != self._place
            self._place = stack.place
            if stack in self._stacks or len(self._stacks) < MAX_STACKS:
                self._stacks[stack] += 1

    def measure(self, now_ns: int, cpu_ns: int | None, runqueue_ns: int | None, gc_ns: int) -> None:
        """Judge by what the thread's clocks tell now; `gc_ns` is the garbage collector's part so far."""
        stall = self.stall
        process_ns = time.process_time_ns()
        at_ns, before_ns = self._process_before = self._process_before or (now_ns, process_ns)
        stall.duration_ns = now_ns - self.began_ns
        stall.cause = cause_of(
            Evidence(
                stall.duration_ns,
                self.threshold_ns,
                watched_ns=now_ns - self.watched_from_ns,
                cpu_ns=_since(self.cpu_before_ns, cpu_ns),
                runqueue_ns=_since(self.runqueue_before_ns, runqueue_ns),
                computed_share=(process_ns - before_ns) / (now_ns - at_ns) if now_ns > at_ns else None,
                gc_ns=gc_ns,
                gil_waits_ns=tuple(self._gil_waits_ns),
                kept_ns=self._kept_ns,
                blocked=self._blocked,
                looks=self._looks,
                has_moved=self._has_moved,
            )
        )
        self._tell_most_seen()

    def _tell_most_seen(self) -> None:
        if not self._stacks:
            return
        stall = self.stall
        [(stack, _)] = self._stacks.most_common(1)
        stall.frames, stall.file, stall.line = stack.frames, stack.file, stack.line
        stall.function = stall.function or stack.root
        # Who computes in Python calls this and that; only who stands in a call is there because of it.
        stands = stall.cause in (BLOCKED_CALL, NATIVE_GIL_HELD)
        stall.call = stack.call if stands and stack.is_call_at_hand else ""
        self._unnamed = stack if stands and not stack.is_call_at_hand else None

    def name_call(self) -> bool:
        """Name the call where that takes reading the source, and the thread may go on meanwhile.

        Returns:
            Whether there is a name now that was not there.
        """
        stack, self._unnamed = self._unnamed, None
        if stack is not None:
            self.stall.call = stack.call
        return stack is not None and bool(self.stall.call)


def _since(before_ns: int | None, now_ns: int | None) -> int | None:
    return None if before_ns is None or now_ns is None else now_ns - before_ns
