"""A loop that spins is told after two windows, with whose steps were most, and once more at its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from otel_concurrency.hooks.loops.spins import WINDOW_NS, SpinWatch
from otel_concurrency.hooks.loops.stalls import Stall
from otel_concurrency.probes.loop_time import NO_TIME


class Heard:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.durations_ns: list[int] = []

    def stall_seen(self, stall: Stall) -> None:
        self.events.append(("seen", stall.cause, stall.function))

    def stall_goes_on(self, stall: Stall) -> None:
        self.events.append(("on", stall.cause, stall.function))

    def stall_ended(self, stall: Stall) -> None:
        self.durations_ns.append(stall.duration_ns)
        self.events.append(("ended", stall.cause, stall.function))


class Run:
    timed = SimpleNamespace(loop_id=0, loop_type="selector")
    ident = 1


def watched(*windows: tuple[int, int, int], steps: list[dict[str, int]]) -> list[tuple[str, str, str]]:
    """What is heard of windows with so many empty and polling iterations, and idle ns."""
    return heard_of(*windows, steps=steps).events


def heard_of(
    *windows: tuple[int, int, int], steps: list[dict[str, int]], rest_ns: int = 0, rest: int = 0
) -> Heard:
    """The same, and at the end so many empty iterations of a window that is cut short."""
    heard, now_ns = Heard(), 0
    told = iter(steps)
    watch = SpinWatch(heard, lambda: next(told))
    spinning: Any = Run()
    reading = NO_TIME
    watch.look(spinning, reading, now_ns)
    for empty, polling, idle_ns in windows:
        now_ns += WINDOW_NS
        reading = reading._replace(
            empty=reading.empty + empty,
            polling=reading.polling + polling,
            idle_ns=reading.idle_ns + idle_ns,
            active_ns=reading.active_ns + WINDOW_NS - idle_ns,
        )
        watch.look(spinning, reading, now_ns)
    reading = reading._replace(empty=reading.empty + rest, active_ns=reading.active_ns + rest_ns)
    watch.forget(spinning, reading, now_ns + rest_ns)
    return heard


SPINS = (100_000, 10, 0)
STEPS = [{"app.wait": 5, "app.other": 1_000}, {"app.wait": 90_000, "app.other": 1_100}]


def test_a_spin_is_told_from_its_second_window_to_its_end() -> None:
    told = watched(SPINS, SPINS, SPINS, (10, 0, WINDOW_NS), SPINS, steps=[*STEPS, {}])
    assert told == [
        ("seen", "spin", "app.wait"),
        ("on", "spin", "app.wait"),
        ("ended", "spin", "app.wait"),
    ]


def test_what_is_busy_idle_or_slow_does_not_spin() -> None:
    for window in ((100_000, 90_000, 0), (100_000, 0, WINDOW_NS // 10), (3_000, 0, 0)):
        assert watched(window, window, window, steps=[]) == []


def test_where_nobody_has_most_of_the_steps_nobody_is_named() -> None:
    even = [{}, {"a": 100, "b": 100, "c": 100}]
    assert watched(SPINS, SPINS, steps=even) == [("seen", "spin", ""), ("ended", "spin", "")]


def test_it_took_as_long_as_there_were_empty_iterations() -> None:
    """A spin begins and ends within a window: these count by how many iterations of the kind they have."""
    half = (50_000, 0, WINDOW_NS // 2)
    assert heard_of(half, SPINS, SPINS, half, steps=STEPS).durations_ns == [3 * WINDOW_NS]
    assert heard_of(SPINS, SPINS, (0, 10, WINDOW_NS), steps=STEPS).durations_ns == [2 * WINDOW_NS]
    cut_short = heard_of(SPINS, SPINS, steps=STEPS, rest_ns=WINDOW_NS // 4, rest=30_000)
    assert cut_short.durations_ns == [2 * WINDOW_NS + WINDOW_NS // 4]


def test_a_spin_from_the_first_iteration_on_has_all_of_it() -> None:
    heard, spinning = Heard(), cast(Any, Run())
    watch = SpinWatch(heard, dict)
    for window in range(1, 4):
        ran_ns = window * WINDOW_NS
        watch.look(spinning, NO_TIME._replace(empty=window * 100_000, active_ns=ran_ns), ran_ns)
    watch.forget(spinning, NO_TIME._replace(empty=300_000, active_ns=3 * WINDOW_NS), 3 * WINDOW_NS)
    assert heard.durations_ns == [3 * WINDOW_NS]
