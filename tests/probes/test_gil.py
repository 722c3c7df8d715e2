"""Waits for the lock: what counts as one, and the longest of the last minute."""

from __future__ import annotations

import sys

from otel_concurrency.probes.gil import GilProbe, is_gil_enabled

MS = 1_000_000
SECOND = 1_000 * MS


class Clock:
    def __init__(self) -> None:
        self.now = 5_000 * SECOND

    def __call__(self) -> int:
        return self.now


def test_waits_add_up():
    probe = GilProbe()
    assert [probe.add(3 * MS), probe.add(4 * MS)] == [3 * MS, 4 * MS]
    assert (probe.wait_ns, probe.probes) == (7 * MS, 2)


def test_the_longest_wait_is_forgotten_after_a_minute():
    clock = Clock()
    probe = GilProbe(clock)
    seen = [probe.max_ns()]
    for wait_ms, then_s in ((9, 5), (500, 20), (7, 30), (8, 15), (1, 120)):
        probe.add(wait_ms * MS)
        seen.append(probe.max_ns() // MS)
        clock.now += then_s * SECOND
    assert [*seen, probe.max_ns()] == [0, 9, 500, 500, 500, 8, 0]


def test_an_overshoot_counts_without_run_delay_and_what_waking_takes():
    """The first ones meet an assumed baseline of 0.1 ms, later ones the smallest of the last 32."""
    probe = GilProbe()
    overshoots = [(100_000, 0), (80_000, 0), (2 * MS, MS), (5 * MS, 9 * MS)]
    assert [probe.add_overshoot(late, delay) for late, delay in overshoots] == [0, 0, 920_000, 0]
    for _ in range(32):
        probe.add_overshoot(1 * MS)
    assert probe.add_overshoot(3 * MS) == 2 * MS


def test_a_reset_begins_at_zero():
    probe = GilProbe()
    probe.add(3)
    probe.reset()
    assert (probe.wait_ns, probe.probes, probe.max_ns()) == (0, 0, 0)


def test_the_lock_is_there_unless_the_interpreter_says_otherwise():
    asked = getattr(sys, "_is_gil_enabled", lambda: True)
    assert is_gil_enabled() is asked()
