"""The native probe's own clock goes at the pace of `time.monotonic_ns()`, before and after it is adjusted."""

from __future__ import annotations

import time

import pytest

from otel_concurrency.probes.choice import make_task_probe

_native = pytest.importorskip("otel_concurrency.probes._native", reason="not built here")


def readings(pause_s: float) -> tuple[int, int, int]:
    """Return how far ours went, and how far it may have gone at least and at most by the system's."""
    outer_first = time.monotonic_ns()
    first = _native.monotonic_ns()
    inner_first = time.monotonic_ns()
    time.sleep(pause_s)
    inner_last = time.monotonic_ns()
    last = _native.monotonic_ns()
    outer_last = time.monotonic_ns()
    return last - first, inner_last - inner_first, outer_last - outer_first


@pytest.mark.parametrize("adjustments", [0, 3])
def test_it_keeps_pace_with_the_system(adjustments: int) -> None:
    probe = make_task_probe()
    for _ in range(adjustments):
        time.sleep(0.11)  # the counter is scaled anew over at least 0.1 s
        probe.read_rows()
    went, least, most = readings(0.2)
    tolerance = 0.001 if not adjustments else 0.0001
    assert least * (1 - tolerance) <= went <= most * (1 + tolerance)


def test_it_never_goes_back() -> None:
    """Adjusting changes its pace, not where it stands."""
    probe = make_task_probe()
    last = _native.monotonic_ns()
    for _ in range(2000):
        probe.read_loops()
        probe.read_rows()
        now = _native.monotonic_ns()
        assert now >= last
        last = now
