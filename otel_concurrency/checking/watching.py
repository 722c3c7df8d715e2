"""Watches every event loop of the test process, and takes notes for whoever judges a test.

It uses the hooks that instrumentation uses, and nothing of OpenTelemetry. Where the program is instrumented
too, loops are timed already, and long holds are not seen a second time.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from otel_concurrency.checking.problems import RUNNERS, Problem, of_stall
from otel_concurrency.hooks.failures.raised import message_of, module_of
from otel_concurrency.hooks.loops.event_loops import EventLoopHook
from otel_concurrency.hooks.loops.loop_classes import LoopMethodPatches
from otel_concurrency.hooks.loops.loop_exceptions import LoopExceptionHook
from otel_concurrency.hooks.loops.stall_watch import StallWatch
from otel_concurrency.hooks.loops.stalls import Culprits, Stall
from otel_concurrency.hooks.loops.watchdog import Watchdog
from otel_concurrency.hooks.patch import Patches
from otel_concurrency.hooks.runtime.gc import GcHook
from otel_concurrency.probes.choice import held_reader, loop_timer_type
from otel_concurrency.probes.gc_pauses import GcPauses
from otel_concurrency.probes.gil import GilProbe
from otel_concurrency.probes.loop_exceptions import what_about
from otel_concurrency.probes.loop_time import LoopTimes
from otel_concurrency.probes.pure import coroutine_name, type_name
from otel_concurrency.probes.watch import PureWatch, Wake, Watch, Watched
from otel_concurrency.probes.watch import make_watch as make_usual_watch

_LOOKS = 4  # in the shortest stall, where nobody looks without the GIL


class LoopChecks:
    """Notes what happens to event loops, from `begin` to `end`.

    Args:
        threshold_s: What held a loop for less is not noted.
        native: Whether to use the native probes where they are built.
    """

    def __init__(self, threshold_s: float, *, native: bool = True) -> None:
        pauses, threshold_ns = GcPauses(), int(threshold_s * 1e9)
        make_watch = functools.partial(_make_watch, threshold_ns, native=native)
        watch = StallWatch(
            _Listener(self._note_stall),
            threshold_ns=threshold_ns,
            gc_pauses=pauses,
            culprits=Culprits(),
            read=held_reader(native=native),
            sees_stalls=make_watch().sees_stalls,
        )
        self._watchdog = Watchdog(watch, make_watch, threshold_ns=threshold_ns, gil=GilProbe())
        loops = EventLoopHook(LoopTimes(loop_timer_type(native=native)))
        loops.observers = (self._watchdog,)
        runs = LoopMethodPatches("run_until_complete", self._around_run, loss="its tasks are not checked")
        self._patches = Patches(
            (GcHook(pauses), loops, LoopExceptionHook(self._note_report), runs, self._watchdog)
        )
        self._loops: weakref.WeakSet[Any] = weakref.WeakSet()
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._notes: list[Problem] = []
        self._has_run = False

    def __repr__(self) -> str:
        return f"<LoopChecks {self._patches}>"

    def install(self) -> None:
        """Attach; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back."""
        self._patches.remove()

    def begin(self) -> None:
        """Forget what was noted; tasks that are alive now are nobody's leak."""
        self._has_run = False
        self._known = weakref.WeakSet(task for loop in list(self._loops) for task in _pending(loop))
        self._notes.clear()

    def end(self) -> list[Problem]:
        """Return what was noted, with what only a collection brings to light."""
        if self._has_run:
            gc.collect()
            self._watchdog.catch_up()
        found, self._notes = self._notes, []
        return found

    def _around_run(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        note: Callable[[Any], None] = self._note_leaks
        checks = self

        def run_until_complete(self: Any, future: Any) -> Any:
            checks._loops.add(self)
            checks._has_run = True
            try:
                return original(self, future)
            finally:
                note(self)

        def silence() -> None:
            nonlocal note
            note = _ignore

        return functools.wraps(original)(run_until_complete), silence

    def _note_leaks(self, loop: Any) -> None:
        for task in _pending(loop):
            if task in self._known or _is_being_cancelled(task):
                continue
            self._known.add(task)
            coroutine = task.get_coro()
            name = coroutine_name(coroutine)
            if name not in RUNNERS:
                text = f"task {task.get_name()!r} of {name} was left behind{_place_of(coroutine)}"
                self._notes.append(Problem("leaked_task", text))

    def _note_report(self, loop: object, report: object) -> None:
        """Runs in a `__del__`: takes a note, and holds on to nothing."""
        if not isinstance(report, dict):
            return
        kind, error = what_about(report), report.get("exception")
        work: Any = report.get("task") or report.get("future")
        who = f"task {work.get_name()!r} of {_name_of(work, error)}" if _is_task(work) else "a future"
        if kind in ("task_never_retrieved", "future_never_retrieved") and isinstance(error, BaseException):
            text = f"{who} failed, and nobody looked: {type_name(type(error))}: {message_of(error)}"
            self._notes.append(Problem("unretrieved_exception", text))
        elif kind == "task_destroyed_pending" and work not in self._known:
            self._notes.append(Problem("leaked_task", f"{who} was destroyed while it was pending"))

    def _note_stall(self, stall: Stall) -> None:
        problem = of_stall(stall)
        if problem is not None:
            self._notes.append(problem)


class _Listener:
    """Hears of stalls once they are over."""

    def __init__(self, note: Callable[[Stall], None]) -> None:
        self._note = note

    def stall_seen(self, stall: Stall) -> None:
        """It is not over."""

    def stall_goes_on(self, stall: Stall) -> None:
        """The same."""

    def stall_ended(self, stall: Stall) -> None:
        """It is over."""
        self._note(stall)


class _BriskWatch(PureWatch):
    """Sees nothing by itself either, but does not let a stall pass by: in tests, that may cost a little."""

    def __init__(self, threshold_ns: int) -> None:
        super().__init__()
        self._longest_ns = threshold_ns // _LOOKS

    def wait(self, loops: Sequence[Watched], timeout_ns: int, poll_ns: int, threshold_ns: int) -> Wake:
        """Wait for a part of the threshold, as long as a loop runs."""
        if loops:
            timeout_ns = min(timeout_ns, self._longest_ns)
        return super().wait(loops, timeout_ns, poll_ns, threshold_ns)


def _make_watch(threshold_ns: int, *, native: bool) -> Watch:
    watch = make_usual_watch(native=native)
    return watch if watch.sees_stalls else _BriskWatch(threshold_ns)


def _pending(loop: Any) -> Iterator[Any]:
    try:
        yield from [task for task in asyncio.all_tasks(loop) if not task.done()]
    except RuntimeError:  # another thread's, that makes tasks all the time
        return


def _is_task(work: object) -> bool:
    return hasattr(work, "get_coro") and hasattr(work, "get_name")


def _name_of(task: Any, error: object) -> str:
    """Return `module.qualname`: the frame that knew the module is gone, but in the traceback."""
    coroutine = task.get_coro()
    name = coroutine_name(coroutine)
    module = module_of(
        getattr(coroutine, "cr_code", None), error if isinstance(error, BaseException) else None
    )
    return f"{module}.{name}" if module and not name.startswith(f"{module}.") else name


def _is_being_cancelled(task: Any) -> bool:
    """Whether it will end by itself, in the loop's next iterations. Before 3.11 only the task knows."""
    cancelling = getattr(task, "cancelling", None)
    if cancelling is not None:
        return bool(cancelling())
    waits_for = getattr(task, "_fut_waiter", None)
    return bool(getattr(task, "_must_cancel", False)) or (waits_for is not None and waits_for.cancelled())


def _place_of(coroutine: Any) -> str:
    frame = getattr(coroutine, "cr_frame", None)
    return f" at {frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def _ignore(loop: Any) -> None:
    pass
