"""What is made of a watched loop, with a clock that a test turns."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Any

import pytest

from otel_concurrency.hooks.loops import stall_watch
from otel_concurrency.hooks.loops.stall_watch import ARMED_NS, SAMPLE_S, StallWatch
from otel_concurrency.hooks.loops.stalls import Culprits, Stall
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.loop_time import NO_TIME
from otel_concurrency.probes.stacks import Stack
from otel_concurrency.probes.tasks import SlowStep
from otel_concurrency.probes.watch import UNSEEN, Seen, Wake

MS = 1_000_000
THRESHOLD_NS = 100 * MS
THREAD = 77


class Heard:
    """A listener that notes what it hears of which stall, and how it stands then."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []
        self.stalls: list[Stall] = []

    def stall_seen(self, stall: Stall) -> None:
        self._note("seen", stall)

    def stall_goes_on(self, stall: Stall) -> None:
        self._note("on", stall)

    def stall_ended(self, stall: Stall) -> None:
        self._note("ended", stall)

    def _note(self, what: str, stall: Stall) -> None:
        self.events.append((what, stall.cause, stall.duration_ns // MS))
        if stall not in self.stalls:
            self.stalls.append(stall)


class Run:
    """As a `WatchedRun`, one of its own."""

    cpu_clock, native_id, ident, ended_ns = 5, 9, THREAD, 0

    def __init__(self, timed: object) -> None:
        self.timed = timed


class World:
    """A loop whose iterations, clocks and steps are told by a test; times in ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, sees_stalls: bool = True) -> None:
        self.now = 1_000
        self.iteration: int | None = None  # began at
        self.active = 0  # what the loop did besides waiting for events
        self.over = 0  # what iterations that are over have taken
        self.cpu = 0
        self.queued = 0
        self.gc = 0
        self.steps: list[SlowStep] = []
        self.heard = Heard()
        timed = SimpleNamespace(timer=self, loop_id=3, loop_type="uvloop", reference=lambda: None)
        self.run: Any = Run(timed)
        monkeypatch.setattr(stall_watch, "cpu_ns", lambda clock: self.cpu * MS)
        self.watch = StallWatch(
            self.heard,
            threshold_ns=THRESHOLD_NS,
            gc_pauses=SimpleNamespace(paused_ns=lambda begin, end: self.gc * MS),  # type: ignore[arg-type]
            culprits=Culprits(),
            slow_steps=self._take_steps,
            sees_stalls=sees_stalls,
            read=self._read,
            clock=lambda: self.now * MS,
        )

    def read(self) -> Any:
        age = -1 if self.iteration is None else (self.now - self.iteration) * MS
        durations = HistogramState(sum_ns=self.over * MS)
        return NO_TIME._replace(active_ns=self.active * MS, iteration_ns=age, durations=durations)

    def tick(
        self, at: int, *, gil: int = 0, loop: int = -1, seen: Seen = UNSEEN, is_gone: bool = False
    ) -> float | None:
        self.now = at
        runs = () if is_gone else (self.run,)
        return self.watch.tick(runs, Wake(loop, False, (seen,)[: len(runs)], gil * MS))

    def end_iteration(self) -> None:
        assert self.iteration is not None
        self.over += self.now - self.iteration
        self.iteration = None

    def _take_steps(self) -> list[SlowStep]:
        steps, self.steps = self.steps, []
        return steps

    def _read(self, path: str) -> bytes | None:
        return b"1 %d 1" % (self.queued * MS) if path.endswith("schedstat") else None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def step(world: World, began: int, ended: int, *, cpu: int = 0, ident: int = THREAD) -> SlowStep:
    return SlowStep("app.handle", None, ident, ended * MS, (ended - began) * MS, cpu * MS)


def test_a_stall_is_followed_from_its_first_look_to_its_end(world: World) -> None:
    world.iteration = 1_000
    seen = Seen(10 * MS, 0, 0, 0, True)
    assert world.tick(1_100, loop=0, seen=seen) == SAMPLE_S
    world.cpu = 115
    assert world.tick(1_125) == SAMPLE_S
    world.now = 1_140
    world.end_iteration()
    assert world.tick(1_150) is None
    # The first look knows that it took no CPU, but not what it does; the second that it computes.
    assert world.heard.events == [
        ("seen", "blocked_call", 100),
        ("on", "cpu_python", 125),
        ("ended", "cpu_python", 140),
    ]
    [told] = world.heard.stalls
    assert (told.loop_id, told.loop_type, told.thread_ident, told.looks) == (3, "uvloop", THREAD, 2)


def test_the_next_iteration_is_another_stall(world: World) -> None:
    world.iteration = 1_000
    world.tick(1_120)
    world.now = 1_130
    world.end_iteration()
    world.iteration = 1_131
    world.tick(1_240)
    # One look without a clock, after the fact, knows nothing.
    assert world.heard.events == [("ended", "unknown", 130)]
    world.tick(1_265)
    assert world.heard.events[1:] == [("seen", "blocked_call", 134)]
    assert len(world.heard.stalls) == 2


def test_what_was_seen_of_an_earlier_iteration_is_not_this_ones(world: World) -> None:
    world.iteration, world.cpu = 1_000, 500
    world.tick(1_110, seen=Seen(10 * MS, 0, 0, 0, False))
    world.cpu = 501
    world.tick(1_160)
    assert world.heard.events[-1][1] == "blocked_call"  # 1 ms of 50; with the other's clock it would compute


def test_one_that_waits_for_a_cpu_is_starved_until_it_has_a_stall_of_its_own(world: World) -> None:
    world.iteration = 1_000
    world.cpu, world.queued = 30, 90
    world.tick(1_120, loop=0, seen=Seen(0, 0, 0, 0, True))
    world.cpu, world.queued = 130, 390
    world.tick(1_520)
    assert [cause for _, cause, _ in world.heard.events] == ["cpu_starved", "cpu_python"]


def test_what_was_read_with_a_pause_in_between_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else had the GIL, or the CPU: clocks of two instants would tell of a thread without a CPU."""
    pauses = iter([300])

    def cpu_ns(clock: object) -> int:
        pause = next(pauses, 0)
        world.now += pause
        world.queued += pause
        return world.cpu * MS

    monkeypatch.setattr(stall_watch, "cpu_ns", cpu_ns)
    world.iteration, world.cpu = 1_000, 100
    world.tick(1_110, loop=0, seen=Seen(0, 0, 0, 0, True))
    assert world.heard.events == [("seen", "cpu_python", 410)]


def test_a_stall_that_ends_while_it_is_looked_at_has_all_of_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.iteration = 1_000
    world.tick(1_120)
    read = world.read

    def read_slowly() -> Any:
        world.now += 30
        if world.iteration is not None and world.now > 1_230:
            world.end_iteration()
        return read()

    monkeypatch.setattr(world, "read", read_slowly)
    world.tick(1_145)
    assert world.heard.events[-1] == ("ended", "unknown", 235)


def test_a_source_is_read_after_the_stall_was_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads a file lets the thread go on, to the end of its span."""
    heard_before: list[list[tuple[str, str, int]]] = []

    class Site:
        is_at_hand = False

        def name(self) -> str:
            heard_before.append(list(world.heard.events))
            self.is_at_hand = True
            return "time.sleep"

    site: Any = Site()
    stack = Stack(("app.handle (app.py:7)",), "app.handle", "app.py", 7, (1, 2), site=site)
    monkeypatch.setattr(stall_watch, "look_at_thread", lambda ident: stack)
    world.iteration = 1_000
    world.tick(1_110, loop=0, seen=Seen(0, 0, 0, 0, True))
    seen = [("seen", "blocked_call", 110)]
    assert (heard_before, world.heard.events) == ([seen], [*seen, ("on", "blocked_call", 110)])
    [told] = world.heard.stalls
    assert (told.call, told.line) == ("time.sleep", 7)
    world.tick(1_135)
    assert world.heard.events[2:] == [("on", "blocked_call", 135)]


def test_a_run_that_is_gone_and_a_thread_that_ends_end_what_is_on(world: World) -> None:
    world.iteration = 1_000
    world.tick(1_120)
    world.tick(1_200, is_gone=True)
    world.tick(1_300)
    world.watch.stop()
    assert [what for what, _, _ in world.heard.events if what == "ended"] == ["ended", "ended"]
    assert repr(world.watch) == "<StallWatch [0 stalls]>"


def test_one_that_nobody_saw_is_told_by_its_step_and_only_once(world: World) -> None:
    world.tick(1_000)
    world.cpu = 200
    world.steps = [step(world, 1_100, 1_300, cpu=200)]
    world.tick(1_350)
    world.steps = [step(world, 1_100, 1_300, cpu=200), step(world, 1_200, 1_300, ident=THREAD + 1)]
    world.tick(1_400)
    assert world.heard.events == [("ended", "cpu_python", 200)]
    [told] = world.heard.stalls
    assert (told.function, told.looks) == ("app.handle", 0)


@pytest.mark.parametrize(
    ("active", "cpu", "queued", "cause"),
    [
        (126, 125, 0, "cpu_python"),  # all that the loop did in three seconds
        (126, 0, 0, "blocked_call"),
        (900, 125, 0, "unknown"),  # or something else took it
        (900, 850, 0, "cpu_python"),  # so much that the stall must have had most of its own
        (126, 60, 62, "cpu_python"),  # all the time that it had a CPU for
        (126, 10, 62, "blocked_call"),
    ],
)
def test_one_that_nobody_saw_has_the_cause_that_its_loop_left_possible(
    world: World, active: int, cpu: int, queued: int, cause: str
) -> None:
    world.tick(1_000)
    world.active, world.cpu, world.queued = active, cpu, queued
    world.steps.append(step(world, 4_000, 4_125, cpu=cpu))
    world.tick(4_200)
    assert world.heard.events == [("ended", cause, 125)]


def test_what_a_run_that_is_over_has_left_is_told_as_its_own(world: World) -> None:
    """In its thread another one may have begun."""
    before: Any = Run(SimpleNamespace(timer=world, loop_id=2, loop_type="uvloop", reference=lambda: None))
    before.ended_ns = 1_310 * MS
    world.cpu = 200
    world.steps = [step(world, 1_100, 1_300, cpu=200), step(world, 1_400, 1_600, cpu=200)]
    world.now = 1_700
    world.watch.catch_up((world.run,), (before,))
    assert [(what, took) for what, _, took in world.heard.events] == [("ended", 200), ("ended", 200)]
    assert [each.loop_id for each in world.heard.stalls] == [2, 3]


def test_catching_up_tells_of_what_is_over_and_looks_at_nothing(world: World) -> None:
    """It may come from the thread of the loop, where a look would see itself."""
    world.iteration = 1_000
    world.tick(1_120)
    world.tick(1_150)
    world.now = 1_200
    world.watch.catch_up((world.run,), ())
    assert [what for what, _, _ in world.heard.events] == ["seen"]
    world.end_iteration()
    world.watch.catch_up((world.run,), ())
    assert [(what, took) for what, _, took in world.heard.events] == [("seen", 150), ("ended", 200)]


def test_a_step_of_a_stall_that_was_seen_is_not_told_again(world: World) -> None:
    world.iteration = 1_000
    world.tick(1_120)
    world.now = 1_140
    world.end_iteration()
    world.steps = [step(world, 1_001, 1_139)]
    world.tick(1_150)
    assert [what for what, _, _ in world.heard.events] == ["ended"]


def test_where_nobody_looks_without_the_gil_a_stall_lets_the_next_ones_be_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, sees_stalls=False)
    assert world.tick(1_000) is None
    world.iteration = 1_000
    assert world.tick(1_200) == SAMPLE_S
    world.end_iteration()
    assert world.tick(1_200 + ARMED_NS // MS - 1) == SAMPLE_S
    assert world.tick(1_200 + ARMED_NS // MS) is None


def test_the_culprit_is_the_task_that_runs_with_what_is_current_in_it_by_now() -> None:
    origin: contextvars.ContextVar[str] = contextvars.ContextVar("origin", default="nothing")
    loop = asyncio.new_event_loop()
    culprits = Culprits(origin, lambda ident: contextvars.copy_context())
    run: Any = SimpleNamespace(timed=SimpleNamespace(reference=lambda: loop), ident=1)
    told = Stall(0, "selector", 1, 0)

    async def culprit() -> None:
        culprits.name(told, run)
        origin.set("the request")
        culprits.name(told, run)

    async def other() -> None:
        origin.set("another request")
        culprits.name(told, run)

    async def main() -> None:
        await loop.create_task(culprit(), name="first")
        await loop.create_task(other(), name="second")

    loop.run_until_complete(main())
    loop.close()
    name = f"{__name__}.{culprit.__qualname__}"
    assert (told.function, told.task_name, told.origin) == (name, "first", "the request")


def test_outside_of_a_task_nobody_is_named() -> None:
    told = Stall(0, "selector", 1, 0)
    run: Any = SimpleNamespace(timed=SimpleNamespace(reference=lambda: None), ident=1)
    Culprits().name(told, run)
    assert (told.function, told.task_name, told.origin) == ("", "", None)
