"""What the probe of timed functions counts, and that nothing in it waits."""

from __future__ import annotations

import asyncio

from otel_concurrency.probes import function_times
from otel_concurrency.probes.function_times import EXEMPLAR_TRIES, FunctionTimes
from otel_concurrency.probes.histogram import MAX_PENDING


def counting() -> FunctionTimes:
    times = FunctionTimes(wall_clock=lambda: 7)
    times.start(lambda: "here")
    return times


def call(times: FunctionTimes, name: str, ns: int) -> None:
    """Do as the decorator does."""
    row = times.function(name)
    if ns > row.slow_ns or len(row.pending) >= MAX_PENDING:
        row.finish(ns)
    else:
        row.pending.append(ns)


def test_each_way_to_end_is_a_row() -> None:
    times = counting()
    call(times, "f", 1_000)
    row = times.function("f")
    for error in (ValueError(), asyncio.CancelledError(), GeneratorExit(), ValueError()):
        row.end(2_000, error)
    assert [(each.name, each.outcome, each.error_type, each.durations.count) for each in times.read()] == [
        ("f", "finished", None, 1),
        ("f", "failed", "ValueError", 2),
        ("f", "cancelled", None, 1),
        ("f", "closed", None, 1),
    ]


def test_every_call_counts_once_and_the_slowest_are_exemplars() -> None:
    times = counting()
    durations = [1_000 + n % 7 for n in range(10 * MAX_PENDING)]
    durations[EXEMPLAR_TRIES * 3] = 1_000_000
    for ns in durations:
        call(times, "f", ns)
    (row,) = times.read()
    assert (row.durations.count, row.durations.sum_ns) == (len(durations), sum(durations))
    assert max(exemplar.value_ns for exemplar in row.durations.exemplars) == 1_000_000
    assert {(exemplar.origin, exemplar.at_unix_ns) for exemplar in row.durations.exemplars} == {("here", 7)}


def test_a_reading_makes_room_for_new_exemplars() -> None:
    times = counting()
    call(times, "f", 1_000_000)
    times.read()
    call(times, "f", 1_000)
    (row,) = times.read()
    assert [exemplar.value_ns for exemplar in row.durations.exemplars] == [1_000]


def test_functions_beyond_the_limit_count_as_other() -> None:
    times = counting()
    for n in range(function_times.MAX_FUNCTIONS + 2):
        call(times, f"f{n}", 10)
    rows = {row.name: row.durations.count for row in times.read()}
    assert len(rows) == function_times.MAX_FUNCTIONS + 1
    assert rows["_other"] == 2


def test_error_types_beyond_the_limit_count_as_other() -> None:
    times = counting()
    for n in range(function_times.MAX_ERROR_TYPES + 5):
        times.function("f").end(10, type(f"Error{n}", (Exception,), {})())
    rows = {row.error_type: row.durations.count for row in times.read()}
    assert len(rows) == function_times.MAX_ERROR_TYPES + 1
    assert rows["_other"] == 5


def test_a_call_in_the_middle_of_counting_waits_for_nothing() -> None:
    """As from a `__del__` within a collection that came while another call was counted."""
    times = counting()
    inside: list[int] = []

    def origin() -> None:
        if not inside:
            inside.append(1)
            call(times, "f", 500)
            times.function("f").end(300, ValueError())

    times.start(origin)
    call(times, "f", 1_000)
    counts = {row.outcome: (row.durations.count, row.durations.sum_ns) for row in times.read()}
    assert counts == {"finished": (2, 1_500), "failed": (1, 300)}


def test_a_child_begins_at_zero_with_locks_of_its_own() -> None:
    times = counting()
    call(times, "f", 10)
    row = times.function("f")
    row._lock.acquire()
    times._lock.acquire()
    times.reset()
    call(times, "f", 20)
    assert [(each.durations.count, each.durations.sum_ns) for each in times.read()] == [(1, 20)]
