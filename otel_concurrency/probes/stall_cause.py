"""Why an event loop stalled: a judgement over what was measured meanwhile.

The order of the questions is that of `cause_of`: what keeps a whole process waiting explains what one of its
threads does. A busy machine makes every stall longer, and is the cause of none that would have been one on an
idle machine; so the time in which the thread was ready and had no CPU is taken off first.
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

TURNS = 10
"""Where threads compete for the GIL, who has not had it for so many of such waits does not want it."""

HELD_INTERVALS = 10
"""A thread of Python code gives the GIL up after a switch interval; who keeps it for so many is in C code."""

MAJORITY = 0.5
"""What takes this share of a stall is its cause."""

_ENOUGH = 0.1  # of a stall: from less than this nothing follows for the rest of it
_IDLE_SHARE = 0.05  # of a CPU: less than a thread takes that gets the GIL now and then


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of one stall.

    Attributes:
        duration_ns: How long the stall took, as far as it is known.
        threshold_ns: From when on it was one.
        watched_ns: How much of that was watched; the next two are of this time.
        cpu_ns: CPU time of the loop's thread; None where nobody tells.
        runqueue_ns: Time in which that thread was ready and had no CPU; None where nobody tells.
        computed_share: CPU time of the whole process by wall-clock time; None where it is not known yet.
        gc_ns: Time in the garbage collector.
        gil_waits_ns: What a watching thread has waited for the GIL, each time.
        kept_ns: The longest CPU time that the loop's thread took while one of these waits lasted; None where
            nobody tells.
        blocked: In how many looks the loop's thread was blocked in a system call, or slept.
        looks: How many looks could tell.
        has_moved: Whether its innermost frame was at another place from one look to the next; None after one.
    """

    duration_ns: int
    threshold_ns: int = 0
    watched_ns: int = 0
    cpu_ns: int | None = None
    runqueue_ns: int | None = None
    computed_share: float | None = None
    gc_ns: int = 0
    gil_waits_ns: tuple[int, ...] = ()
    kept_ns: int | None = None
    blocked: int = 0
    looks: int = 0
    has_moved: bool | None = None

    @property
    def queued_ns(self) -> int:
        """Of the time that was watched, that without a CPU."""
        return min(self.runqueue_ns or 0, self.watched_ns)

    @property
    def own_share(self) -> float:
        """Which share of its time the thread was not waiting for a CPU."""
        return 1 - self.queued_ns / self.watched_ns if self.watched_ns else 1.0


def cause_of(evidence: Evidence) -> str:
    """Return one of `CAUSES`."""
    if _is_starved(evidence):
        return CPU_STARVED
    if evidence.gc_ns >= MAJORITY * evidence.duration_ns:
        return GC_PAUSE
    is_blocked = evidence.blocked > MAJORITY * evidence.looks
    if not is_blocked and _is_gil_held(evidence):
        return NATIVE_GIL_HELD
    own_ns = evidence.watched_ns - evidence.queued_ns
    if not own_ns:
        return UNKNOWN
    if evidence.cpu_ns is None:
        return BLOCKED_CALL if is_blocked else UNKNOWN
    if evidence.cpu_ns >= MAJORITY * own_ns:
        return CPU_PYTHON
    if is_blocked:
        return BLOCKED_CALL
    waits = evidence.gil_waits_ns
    wait_ns = sum(waits) / len(waits) if waits else 0
    if wait_ns < CONTENDED_NS:
        return BLOCKED_CALL
    stands_still = evidence.has_moved is False and evidence.cpu_ns < _IDLE_SHARE * own_ns
    if not stands_still:
        return GIL_CONTENTION
    # At a lock of the program's it looks as it does before its next turn, but for longer.
    return BLOCKED_CALL if own_ns >= TURNS * wait_ns else UNKNOWN


def _is_starved(evidence: Evidence) -> bool:
    """Whether the thread waited for a CPU most of the time, and would not have stalled its loop with one.

    Where nobody computed and nothing was called that waits, it also waited for one who kept the GIL and had
    no CPU either.
    """
    if evidence.watched_ns < _ENOUGH * evidence.duration_ns or evidence.queued_ns < MAJORITY * max(
        1, evidence.watched_ns
    ):
        return False
    share = evidence.own_share
    if evidence.computed_share is not None and not evidence.blocked:
        own_cpu = (evidence.cpu_ns or 0) / max(1, evidence.watched_ns)
        share = min(share, max(evidence.computed_share, own_cpu))
    return share * evidence.duration_ns < evidence.threshold_ns


def _is_gil_held(evidence: Evidence) -> bool:
    """Whether one thread kept the GIL: the loop's own, or one that kept it for most of the stall.

    Where many threads compete, each wait is long, too, but the loop's thread has one of many turns. A thread
    that keeps the GIL while it has no CPU does not keep it on purpose.
    """
    longest_ns = max(evidence.gil_waits_ns, default=0) * evidence.own_share
    kept_ns = longest_ns if evidence.kept_ns is None else evidence.kept_ns
    least_ns = HELD_INTERVALS * sys.getswitchinterval() * 1e9
    own_ns = evidence.watched_ns - evidence.queued_ns
    computes = evidence.cpu_ns is not None and evidence.cpu_ns >= MAJORITY * max(1, own_ns)
    if computes:
        return kept_ns >= least_ns
    return longest_ns >= max(least_ns, MAJORITY * evidence.duration_ns)
