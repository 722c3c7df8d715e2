"""What a test did to its event loops, in words."""

from __future__ import annotations

from dataclasses import dataclass

from otel_concurrency.hooks.loops.stalls import Stall
from otel_concurrency.probes.stall_cause import (
    BLOCKED_CALL,
    CPU_STARVED,
    GC_PAUSE,
    GIL_CONTENTION,
    NATIVE_GIL_HELD,
)

RUNNERS = ("anyio._backends._asyncio.TestRunner._run_tests_and_fixtures",)
"""Tasks in which plugins run the tests themselves."""

_BLOCKED = (BLOCKED_CALL, NATIVE_GIL_HELD)
_NOT_THE_TESTS = (CPU_STARVED, GC_PAUSE, GIL_CONTENTION)
"""Stalls that the machine, or other threads, made: a test that meets one is not to fail now and then."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that a check has found.

    Attributes:
        check: Its name, as the settings know it.
        text: A sentence.
        seconds: For how long the loop was held, for the checks that have a threshold.
    """

    check: str
    text: str
    seconds: float | None = None


def of_stall(stall: Stall) -> Problem | None:
    """Return what a stall means for the test; None where the test can do nothing about it."""
    if stall.cause in _NOT_THE_TESTS:
        return None
    seconds = stall.duration_ns / 1e9
    who = "the test" if stall.function in RUNNERS else stall.function or "something"
    where = f" at {stall.file}:{stall.line}" if stall.file else ""
    if stall.cause in _BLOCKED:
        call = f", in {stall.call}" if stall.call else ""
        return Problem(
            "blocked_loop", f"{who} blocked the event loop for {seconds:.3g} s{call}{where}", seconds
        )
    return Problem(
        "slow_callback", f"{who} held the event loop for {seconds:.3g} s, computing{where}", seconds
    )
