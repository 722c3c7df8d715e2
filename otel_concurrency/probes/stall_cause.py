"""Why an event loop stalled: a judgement over what was measured meanwhile.

The order of the questions is that of `cause_of`: what keeps a whole process waiting explains what one of its
threads does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

GC_PAUSE = "gc_pause"
CPU_STARVED = "cpu_starved"
NATIVE_GIL_HELD = "native_gil_held"
GIL_CONTENTION = "gil_contention"
CPU_PYTHON = "cpu_python"
BLOCKED_CALL = "blocked_call"
SPIN = "spin"
UNKNOWN = "unknown"

CAUSES = (BLOCKED_CALL, CPU_PYTHON, NATIVE_GIL_HELD, GIL_CONTENTION, GC_PAUSE, CPU_STARVED, SPIN, UNKNOWN)

CONTENDED_NS = 2_000_000
"""Mean wait for the GIL from which on threads compete for it."""

HELD_INTERVALS = 10
"""A thread of Python code gives the GIL up after a switch interval; who keeps it for so many is in C code."""

MAJORITY = 0.5
"""What takes this share of a stall is its cause."""

_IDLE_SHARE = 0.05  # of a CPU: less than a thread takes that gets the GIL now and then


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of one stall.

    Attributes:
        duration_ns: How long the stall took, as far as it is known.
        watched_ns: How much of that was watched; the next two are of this time.
        cpu_ns: CPU time of the loop's thread; None where nobody tells.
        runqueue_ns: Time in which that thread was ready and had no CPU; None where nobody tells.
        gc_ns: Time in the garbage collector.
        gil_waits_ns: What a watching thread has waited for the GIL, each time.
        blocked: In how many looks the loop's thread was blocked in a system call, or slept.
        looks: How many looks could tell.
        has_moved: Whether its innermost frame was at another place from one look to the next; None after one.
    """

    duration_ns: int
    watched_ns: int = 0
    cpu_ns: int | None = None
    runqueue_ns: int | None = None
    gc_ns: int = 0
    gil_waits_ns: tuple[int, ...] = ()
    blocked: int = 0
    looks: int = 0
    has_moved: bool | None = None


def cause_of(evidence: Evidence) -> str:
    """Return one of `CAUSES`."""
    if evidence.gc_ns >= MAJORITY * evidence.duration_ns:
        return GC_PAUSE
    watched_ns = evidence.watched_ns
    if watched_ns and (evidence.runqueue_ns or 0) >= MAJORITY * watched_ns:
        return CPU_STARVED
    is_blocked = evidence.blocked > MAJORITY * evidence.looks
    if not is_blocked and _is_gil_held(evidence):
        return NATIVE_GIL_HELD
    if not watched_ns:
        return UNKNOWN
    if evidence.cpu_ns is None:
        return BLOCKED_CALL if is_blocked else UNKNOWN
    if evidence.cpu_ns >= MAJORITY * watched_ns:
        return CPU_PYTHON
    stands_still = evidence.has_moved is False and evidence.cpu_ns < _IDLE_SHARE * watched_ns
    if is_blocked or stands_still:
        return BLOCKED_CALL
    waits = evidence.gil_waits_ns
    if waits and sum(waits) >= CONTENDED_NS * len(waits):
        return GIL_CONTENTION
    return BLOCKED_CALL


def _is_gil_held(evidence: Evidence) -> bool:
    """Whether one thread kept the GIL: the loop's own, or one that kept it for most of the stall.

    Where many threads compete, each wait is long, too, but the loop's thread has one of many turns.
    """
    longest_ns = max(evidence.gil_waits_ns, default=0)
    if longest_ns < HELD_INTERVALS * sys.getswitchinterval() * 1e9:
        return False
    is_own = evidence.cpu_ns is not None and evidence.cpu_ns >= MAJORITY * max(1, evidence.watched_ns)
    return is_own or longest_ns >= MAJORITY * evidence.duration_ns
