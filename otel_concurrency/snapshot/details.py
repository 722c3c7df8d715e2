"""Single tasks, told in detail."""

from __future__ import annotations

import gc
import time
import traceback
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextvars import Context
from types import FrameType
from typing import Any

from otel_concurrency.probes import stacks
from otel_concurrency.probes.loops import LOOP_IDS, loop_type
from otel_concurrency.probes.tasks import TaskNumbers
from otel_concurrency.probes.thread_frames import thread_frames
from otel_concurrency.snapshot.awaits import creator, has_timer
from otel_concurrency.snapshot.census import Seen, is_trios
from otel_concurrency.snapshot.chains import Chains
from otel_concurrency.snapshot.live_tasks import Edge, FramePlace, LiveTask, Wait
from otel_concurrency.snapshot.pace import paced
from otel_concurrency.snapshot.relations import Relations, name_of
from otel_concurrency.snapshot.sources import SOURCES

TOLD_FRAMES = 3

_MAX_DEPTH = 200
_TRAPS = "trio._core._traps"  # in which all of trio waits
_MAX_REMEMBERED = 5_000


class _Waiter(weakref.ref[Any]):
    """To a future that a task was seen waiting for; of a class of its own, which orphans are told by."""

    __slots__ = ()


class Memory:
    """Since when tasks were seen to wait for what they wait for, from one snapshot to the next."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, int]] = {}

    def since_ns(self, task: Any, now_ns: int) -> int:
        """Return since when a task was seen in its present wait: now, or earlier."""
        key = id(task)
        if is_trios(task):
            token: Any = getattr(task, "_schedule_points", None)
            known = self._known.get(key)
            if known is not None and known[0] == token:
                return known[1]
        else:
            waiter = getattr(task, "_fut_waiter", None)
            known = self._known.get(key)
            if known is not None and isinstance(known[0], _Waiter) and known[0]() is waiter:
                return known[1]
            try:
                token = _Waiter(waiter)
            except TypeError:
                return now_ns
        self._known[key] = (token, now_ns)
        return now_ns

    def forget_old(self) -> None:
        """Forget waits that are over, and the oldest of too many."""
        kept = [
            (key, known)
            for key, known in self._known.items()
            if not isinstance(known[0], _Waiter) or known[0]() is not None
        ]
        self._known = dict(kept[-_MAX_REMEMBERED:])


class Details:
    """Tells of single tasks.

    Args:
        chains: Walks.
        relations: Who waits for whom.
        memory: Of earlier snapshots.
    """

    def __init__(self, chains: Chains, relations: Relations, memory: Memory) -> None:
        self._chains = chains
        self._relations = relations
        self._memory = memory
        self._loops: dict[int, tuple[int | None, str]] = {}
        self._awaits: dict[int, list[Edge]] = {}
        self._running: dict[int, tuple[tuple[FramePlace, ...], FramePlace | None]] = {}
        for edge in relations.edges:
            if edge.lock is None:
                self._awaits.setdefault(edge.waiter, []).append(edge)

    def see_running(self, running: Iterable[Seen]) -> None:
        """Find where those stand that a thread executes now."""
        wanted = {id(seen.task): seen for seen in running}
        if not wanted:
            return
        for frame in thread_frames().values():
            for key, seen in wanted.items():
                top = self._chains.frame(seen.coroutine)
                if top is not None and key not in self._running:
                    told = _told(_until(frame, top))
                    if told is not None:
                        self._running[key] = told

    def task(self, seen: Seen) -> LiveTask:
        """Return what is known of a task."""
        task, chain = seen.task, self._chains.chain(seen.coroutine)
        numbers = _numbers(task)
        trace_id, span_id = _trace(task)
        frames, at = self._running.get(id(task)) or self._places(chain)
        loop_id, kind_of_loop = self._loop(task)
        return LiveTask(
            id=id(task),
            name=name_of(task),
            coroutine=seen.function,
            state=seen.state,
            loop=loop_id,
            loop_type=kind_of_loop,
            age_s=numbers.age_ns / 1e9 if numbers is not None else None,
            busy_s=numbers.busy_ns / 1e9 if numbers is not None and numbers.busy_ns >= 0 else None,
            steps=numbers.steps if numbers is not None and numbers.steps >= 0 else None,
            wait=self._wait(seen, chain, numbers),
            frames=frames,
            at=at,
            created_at=_created_at(task),
            created_by=creator(task),
            cancel_requests=cancel_requests(task),
            trace_id=trace_id,
            span_id=span_id,
        )

    def _wait(self, seen: Seen, chain: list[Any], numbers: TaskNumbers | None) -> Wait | None:
        if seen.kind is None:
            return None
        key = id(seen.task)
        now_ns = time.monotonic_ns()
        for_ns = now_ns - self._memory.since_ns(seen.task, now_ns)
        is_exact = numbers is not None and numbers.wait_ns >= 0
        if is_exact and numbers is not None:
            for_ns = numbers.wait_ns
        on = self._relations.on.get(key)
        edges = self._awaits.get(key, ())
        target = on if on is not None else id(getattr(seen.task, "_fut_waiter", None))
        return Wait(
            kind=seen.kind,
            has_timeout=seen.has_timeout or (seen.kind != "sleep" and has_timer(self._chains, chain)),
            for_s=for_ns / 1e9 if for_ns or is_exact else None,
            is_exact=is_exact,
            target=None if is_trios(seen.task) and on is None else target,
            target_name=self._relations.name(on) if on is not None else _waiter_name(seen.task),
            tasks=tuple(edge.on for edge in edges),
        )

    def _places(self, chain: list[Any]) -> tuple[tuple[FramePlace, ...], FramePlace | None]:
        innermost = [each for each in reversed(chain) if self._chains.function(each)[0] != _TRAPS]
        frames = tuple(self._chains.place(each) for each in innermost[:TOLD_FRAMES])
        if any(stacks.is_own_file(frame.file) for frame in frames):
            return frames, None
        for each in innermost[TOLD_FRAMES:]:
            if stacks.is_own_file(self._chains.file(each)):
                return frames, self._chains.place(each)
        return frames, None

    def _loop(self, task: Any) -> tuple[int | None, str]:
        if is_trios(task):
            loop: Any = getattr(task, "_runner", None)
        else:
            loop = task.get_loop()
        known = self._loops.get(id(loop))
        if known is None:
            known = LOOP_IDS.known(loop) or (None, loop_type(loop))
            self._loops[id(loop)] = known
        return known


def cancel_requests(task: Any) -> int:
    """Return how often a task was asked to end, and goes on."""
    cancelling = getattr(task, "cancelling", None)  # CPython 3.11
    return int(cancelling()) if cancelling is not None else int(getattr(task, "_must_cancel", False))


def _numbers(task: Any) -> TaskNumbers | None:
    for probe in SOURCES.probes:
        found = probe.numbers(task)
        if found is not None:
            return found
    return None


def _trace(task: Any) -> tuple[str, str]:
    if SOURCES.traces:
        context = _context(task)
        for trace in SOURCES.traces if context is not None else ():
            found = trace(context)  # type: ignore[arg-type]
            if found is not None:
                return found
    return "", ""


def _context(task: Any) -> Context | None:
    """Return what a task runs in; until 3.11, a task does not tell."""
    get_context = getattr(task, "get_context", None)
    if get_context is not None:
        found = get_context()
    elif is_trios(task):
        found = task.context
    else:
        found = next((each for each in gc.get_referents(task) if type(each) is Context), None)
    return found if isinstance(found, Context) else None


def _created_at(task: Any) -> str:
    """Return where a task was created; only asyncio's debug mode keeps that."""
    source: Any = getattr(task, "_source_traceback", None)
    if isinstance(source, traceback.StackSummary):
        for frame in reversed(source):
            if stacks.is_own_file(frame.filename):
                return f"{frame.filename}:{frame.lineno}"
    return ""


def _waiter_name(task: Any) -> str:
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None:
        return ""
    return name_of(waiter) if hasattr(type(waiter), "get_coro") else type(waiter).__qualname__


def _until(frame: FrameType, top: FrameType) -> list[FrameType] | None:
    """Return the frames of a thread as far as one of them, the innermost first; None: it is none of them."""
    found = []
    each: FrameType | None = frame
    for _ in range(_MAX_DEPTH):
        if each is None:
            return None
        found.append(each)
        if each is top:
            return found
        each = each.f_back
    return None


def _told(frames: list[FrameType] | None) -> tuple[tuple[FramePlace, ...], FramePlace | None] | None:
    if frames is None:
        return None
    told = tuple(place_of(frame) for frame in frames[:TOLD_FRAMES])
    if any(stacks.is_own_file(frame.file) for frame in told):
        return told, None
    own = next((each for each in frames if stacks.is_own_file(each.f_code.co_filename)), None)
    return told, None if own is None else place_of(own)


def place_of(frame: FrameType) -> FramePlace:
    """Return where a frame stands."""
    return FramePlace(stacks.name_of(frame), frame.f_code.co_filename, frame.f_lineno or 0)


def chosen(census: Sequence[Seen], limit: int, first: Iterable[int]) -> Iterator[Seen]:
    """Go through the tasks to tell of: these first, then some of each function and kind.

    Args:
        census: All.
        limit: How many at most.
        first: `id()` of those that are told in any case.
    """
    left, wanted = limit, set(first)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, seen in enumerate(paced(census)):
        if id(seen.task) in wanted or seen.state == "running":
            if left > 0:
                left -= 1
                yield seen
        else:
            group = groups.setdefault((seen.function, seen.state, seen.kind or ""), [])
            if len(group) < limit:
                group.append(place)
    queues = [iter(group) for group in groups.values()]
    while queues and left > 0:
        further = []
        for queue in queues:
            place_next = next(queue, None)
            if place_next is not None and left > 0:
                left -= 1
                yield census[place_next]
                further.append(queue)
        queues = further
