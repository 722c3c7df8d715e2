"""A loop that spins is told after two windows, with whose steps were most, and once more at its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from otel_concurrency.hooks.spins import WINDOW_NS, SpinWatch
from otel_concurrency.hooks.stalls import Stall
from otel_concurrency.probes.loop_time import NO_TIME


class Heard:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def stall_seen(self, stall: Stall) -> None:
        self.events.append(("seen", stall.cause, stall.function))

    def stall_goes_on(self, stall: Stall) -> None:
        self.events.append(("on", stall.cause, stall.function))

    def stall_ended(self, stall: Stall) -> None:
        self.events.append(("ended", stall.cause, stall.function))


class Run:
    timed = SimpleNamespace(loop_id=0, loop_type="selector")
    ident = 1


def watched(*windows: tuple[int, int, int], steps: list[dict[str, int]]) -> list[tuple[str, str, str]]:
    """What is heard of windows with so many empty and polling iterations, and idle ns."""
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
    watch.forget(spinning)
    return heard.events


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
