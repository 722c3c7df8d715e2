"""Rare events, counted from anywhere."""

from __future__ import annotations

import threading

from otel_concurrency.probes.event_counts import MAX_PENDING, EventCounts


def test_events_are_counted_by_what_they_are_about_and_names_are_bounded() -> None:
    counts = EventCounts(max_names=1)
    for key in (("a", "x"), ("a", "x"), ("b", "y"), ("b", "")):
        counts.add(*key)
    assert counts.read() == {("a", "x"): 2, ("b", "_other"): 1, ("b", ""): 1}
    counts.reset()
    assert counts.read() == {}


def test_noting_never_waits() -> None:
    """Inside a collection the very thread that adds up may come by again."""
    counts = EventCounts()
    with counts._lock:
        for _ in range(MAX_PENDING + 5):
            counts.add("x")
    assert counts.read() == {("x",): MAX_PENDING + 5}


def test_none_is_lost_between_threads() -> None:
    counts = EventCounts()

    def add() -> None:
        for _ in range(MAX_PENDING):
            counts.add("x")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.read() == {("x",): 4 * MAX_PENDING}
