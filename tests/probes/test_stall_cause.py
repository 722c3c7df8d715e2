"""Which cause follows from which measurements."""

from __future__ import annotations

import pytest

from otel_concurrency.probes.stall_cause import Evidence, cause_of

MS = 1_000_000


def evidence(duration_ms: int = 300, **values: object) -> Evidence:
    """Evidence in ms; 200 of it were watched unless it says otherwise."""
    in_ns = {
        f"{name}_ns": value * MS  # type: ignore[operator]
        for name, value in {"watched": 200, **values}.items()
        if name in ("watched", "cpu", "runqueue", "gc")
    }
    waits = tuple(wait * MS for wait in values.get("gil_waits", ()))  # type: ignore[attr-defined]
    rest = {name: values[name] for name in ("blocked", "looks", "has_moved") if name in values}
    return Evidence(duration_ms * MS, gil_waits_ns=waits, **in_ns, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (evidence(cpu=1, blocked=5, looks=5, gil_waits=[0] * 5), "blocked_call"),
        (evidence(cpu=1, blocked=0, looks=5, has_moved=False, gil_waits=[8] * 5), "blocked_call"),
        (evidence(cpu=190, looks=5, gil_waits=[5] * 5), "cpu_python"),
        (evidence(cpu=190, looks=1, gil_waits=[170]), "native_gil_held"),
        (evidence(cpu=5, looks=1, gil_waits=[170]), "native_gil_held"),
        (evidence(watched=0, looks=1, gil_waits=[200]), "native_gil_held"),
        (evidence(cpu=40, looks=5, has_moved=True, gil_waits=[60, 5, 30, 20, 10]), "gil_contention"),
        (evidence(cpu=40, looks=5, has_moved=True, gil_waits=[0] * 5), "blocked_call"),
        (evidence(cpu=190, gc=151, gil_waits=[170]), "gc_pause"),
        (evidence(cpu=60, runqueue=110, looks=5, gil_waits=[70] * 5), "cpu_starved"),
        (evidence(cpu=1, blocked=1, looks=1, gil_waits=[170]), "blocked_call"),
        (evidence(watched=0), "unknown"),
        (evidence(blocked=3, looks=3), "blocked_call"),
        (evidence(blocked=0, looks=3), "unknown"),
    ],
    ids=[
        "sleeps",
        "stands still at a lock, others compute",
        "computes",
        "computes, and nobody else gets the GIL",
        "another thread keeps the GIL",
        "the GIL was kept from the first look on",
        "one of many that compute",
        "waits for a lock in turns",
        "a collection",
        "no CPU",
        "sleeps, and another thread keeps the GIL",
        "nobody knows",
        "no clock of the thread, but asleep",
        "no clock of the thread",
    ],
)
def test_the_cause_follows_from_what_was_measured(given: Evidence, cause: str) -> None:
    assert cause_of(given) == cause
