"""Which cause follows from which measurements."""

from __future__ import annotations

import pytest

from otel_concurrency.probes.stall_cause import Evidence, cause_of

MS = 1_000_000


def evidence(duration_ms: int = 300, **values: object) -> Evidence:
    """Evidence in ms, with a threshold of 100; 200 of it were watched unless it says otherwise."""
    in_ns = {
        f"{name}_ns": value * MS  # type: ignore[operator]
        for name, value in {"threshold": 100, "watched": 200, **values}.items()
        if name in ("threshold", "watched", "cpu", "runqueue", "gc", "kept")
    }
    waits = tuple(wait * MS for wait in values.get("gil_waits", ()))  # type: ignore[attr-defined]
    names = ("computed_share", "blocked", "looks", "has_moved")
    rest = {name: values[name] for name in names if name in values}
    return Evidence(duration_ms * MS, gil_waits_ns=waits, **in_ns, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (evidence(cpu=1, blocked=5, looks=5, gil_waits=[0] * 5), "blocked_call"),
        (evidence(cpu=1, blocked=0, looks=5, has_moved=False, gil_waits=[8] * 5), "blocked_call"),
        (evidence(cpu=1, blocked=0, looks=3, has_moved=False, gil_waits=[40] * 3), "unknown"),
        (
            evidence(500, watched=450, cpu=1, blocked=0, looks=6, has_moved=False, gil_waits=[40] * 6),
            "blocked_call",
        ),
        (evidence(cpu=190, looks=5, gil_waits=[5] * 5), "cpu_python"),
        (evidence(cpu=190, looks=1, gil_waits=[170]), "native_gil_held"),
        (evidence(cpu=5, looks=1, gil_waits=[170]), "native_gil_held"),
        (evidence(watched=0, looks=1, gil_waits=[200]), "native_gil_held"),
        (evidence(cpu=40, looks=5, has_moved=True, gil_waits=[60, 5, 30, 20, 10]), "gil_contention"),
        (evidence(cpu=40, looks=5, has_moved=True, gil_waits=[0] * 5), "blocked_call"),
        (evidence(cpu=190, gc=151, gil_waits=[170]), "gc_pause"),
        (evidence(cpu=40, runqueue=150, looks=5, gil_waits=[70] * 5), "cpu_starved"),
        (
            evidence(700, watched=650, cpu=40, runqueue=500, computed_share=0.09, looks=9, gil_waits=[5]),
            "cpu_starved",
        ),
        (evidence(cpu=40, runqueue=150, gc=290, looks=1, gil_waits=[70]), "cpu_starved"),
        (evidence(1800, watched=1700, cpu=280, runqueue=1420, looks=40, gil_waits=[60] * 32), "cpu_python"),
        (
            evidence(1800, watched=1700, cpu=280, runqueue=1420, looks=2, kept=10, gil_waits=[900]),
            "cpu_python",
        ),
        (
            evidence(1230, watched=1180, cpu=210, runqueue=970, looks=1, kept=110, gil_waits=[660]),
            "native_gil_held",
        ),
        (
            evidence(1230, watched=1180, cpu=5, runqueue=900, looks=9, has_moved=True, gil_waits=[9]),
            "gil_contention",
        ),
        (evidence(900, watched=10, cpu=1, runqueue=10, gc=890, looks=1, gil_waits=[600]), "gc_pause"),
        (
            evidence(300, watched=280, cpu=8, runqueue=160, blocked=4, looks=5, gil_waits=[0] * 5),
            "blocked_call",
        ),
        (evidence(cpu=190, looks=5, kept=3, gil_waits=[170]), "cpu_python"),
        (evidence(cpu=1, blocked=1, looks=1, gil_waits=[170]), "blocked_call"),
        (evidence(watched=0), "unknown"),
        (evidence(blocked=3, looks=3), "blocked_call"),
        (evidence(blocked=0, looks=3), "unknown"),
    ],
    ids=[
        "sleeps",
        "stands still at a lock, others compute",
        "stands still at a lock, or many others had their turn before it",
        "stands still at a lock, and should have had its turn",
        "computes",
        "computes, and nobody else gets the GIL",
        "another thread keeps the GIL",
        "the GIL was kept from the first look on",
        "one of many that compute",
        "waits for a lock in turns",
        "a collection",
        "no CPU",
        "no CPU, nor had who kept the GIL",
        "no CPU, while it collected",
        "computes, on a busy machine",
        "computes, and had no CPU while somebody wanted the GIL",
        "kept the GIL, on a busy machine",
        "one of many that compute, on a busy machine",
        "a collection, of which only the end was watched",
        "sleeps, on a busy machine",
        "computes, and another thread kept the GIL for a while",
        "sleeps, and another thread keeps the GIL",
        "nobody knows",
        "no clock of the thread, but asleep",
        "no clock of the thread",
    ],
)
def test_the_cause_follows_from_what_was_measured(given: Evidence, cause: str) -> None:
    assert cause_of(given) == cause
