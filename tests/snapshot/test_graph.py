from __future__ import annotations

from otel_concurrency.snapshot.graph import cycles
from otel_concurrency.snapshot.live_tasks import Edge


def awaits(waiter: int, on: int) -> Edge:
    return Edge(waiter, on, "task")


def wants(waiter: int, holder: int) -> Edge:
    return Edge(waiter, holder, "lock", lock=1)


def test_a_chain_is_no_cycle() -> None:
    assert cycles([awaits(1, 2), awaits(2, 3), awaits(1, 3)]) == []


def test_a_cycle_is_found_once_wherever_one_begins() -> None:
    edges = [awaits(9, 3), awaits(3, 1), awaits(2, 3), awaits(1, 2)]
    assert cycles(edges) == [(awaits(1, 2), awaits(2, 3), awaits(3, 1))]
    assert cycles(list(reversed(edges))) == cycles(edges)


def test_who_waits_for_itself_is_a_cycle() -> None:
    assert cycles([wants(1, 1)]) == [(wants(1, 1),)]


def test_two_cycles_are_two() -> None:
    assert len(cycles([wants(1, 2), wants(2, 1), wants(3, 4), wants(4, 3)])) == 2


def test_no_cycle_lasts_in_which_somebody_is_woken() -> None:
    assert cycles([wants(1, 2), wants(2, 1)], can_be_woken=[2]) == []


def test_who_is_awaited_with_a_timeout_is_going_to_be_cancelled() -> None:
    assert cycles([awaits(9, 1), wants(1, 2), wants(2, 1)], can_be_woken=[9]) == []


def test_a_timeout_of_who_wants_the_lock_too_breaks_nothing() -> None:
    assert cycles([wants(9, 1), wants(1, 2), wants(2, 1)], can_be_woken=[9]) != []


def test_a_long_cycle_needs_no_deep_stack() -> None:
    edges = [awaits(each, (each + 1) % 5_000) for each in range(5_000)]
    assert len(cycles(edges)[0]) == 5_000
