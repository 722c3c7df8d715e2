"""What the garbage collector's probe counts, and which pauses an interval holds."""

from __future__ import annotations

from collections.abc import Iterator

from otel_concurrency.probes.gc_pauses import RECENT_PAUSES, GcPauses

MS = 1_000_000


def pauses_at(*times: int) -> GcPauses:
    """A probe whose clock tells these times, in ms, one a call."""
    told: Iterator[int] = iter(times)
    return GcPauses(clock=lambda: next(told) * MS)


def collect(pauses: GcPauses, generation: int) -> None:
    pauses("start", {"generation": generation})
    pauses("stop", {"generation": generation, "collected": 0, "uncollectable": 0})


def test_each_generation_has_its_durations():
    pauses = pauses_at(1, 3, 10, 15, 20, 26)
    collect(pauses, 0)
    collect(pauses, 2)
    collect(pauses, 2)
    assert [(state.count, state.sum_ns) for state in pauses.read()] == [(1, 2 * MS), (0, 0), (2, 11 * MS)]


def test_a_pause_counts_for_an_interval_as_far_as_they_overlap():
    pauses = pauses_at(10, 20, 30, 50)
    collect(pauses, 2)
    collect(pauses, 2)
    assert [
        pauses.paused_ns(begin * MS, end * MS) for begin, end in ((0, 9), (15, 31), (0, 99), (50, 60))
    ] == [
        0,
        6 * MS,
        30 * MS,
        0,
    ]


def test_a_pause_under_way_counts_up_to_the_end_of_the_interval():
    pauses = pauses_at(10)
    pauses("start", {"generation": 2})
    assert pauses.paused_ns(0, 25 * MS) == 15 * MS


def test_a_pause_counts_while_its_end_is_being_noted():
    """Another thread may get its turn in there: the first chance to look, where it has waited for the GIL."""
    seen: list[int] = []
    times = iter([10 * MS, 25 * MS])

    def clock() -> int:
        seen.append(pauses.paused_ns(0, 25 * MS))
        return next(times)

    pauses = GcPauses(clock)
    collect(pauses, 2)
    assert seen == [0, 15 * MS]


def test_only_the_last_long_pauses_are_kept():
    pauses = pauses_at(*range(0, 400, 2))
    for _ in range(100):
        collect(pauses, 0)
    assert pauses.paused_ns(0, 1000 * MS) == RECENT_PAUSES * 2 * MS
    short = GcPauses(clock=iter(range(2, 10, 2)).__next__)
    collect(short, 0)
    assert short.paused_ns(0, 1000) == 0
    assert short.read()[0].count == 1


def test_the_end_of_a_collection_that_began_before_us_counts_for_nothing():
    pauses = pauses_at(5)
    pauses("stop", {"generation": 2})
    assert [state.count for state in pauses.read()] == [0, 0, 0]


def test_a_reset_forgets_everything():
    pauses = pauses_at(1, 3, 5)
    collect(pauses, 1)
    pauses("start", {"generation": 1})
    pauses.reset()
    assert [state.count for state in pauses.read()] == [0, 0, 0]
    assert pauses.paused_ns(0, 99 * MS) == 0
