"""How often a thing is told."""

from __future__ import annotations

from otel_concurrency.probes.rate_limit import MAX_KEYS, RateLimit

S = 1_000_000_000


def test_a_burst_is_told_and_the_next_one_says_what_was_left_out() -> None:
    limit = RateLimit(burst=2, interval_ns=10 * S)
    assert [limit.admit("a", 1 * S) for _ in range(5)] == [0, 0, None, None, None]
    assert limit.admit("b", 2 * S) == 0
    assert limit.admit("a", 10 * S) is None
    assert [limit.admit("a", 11 * S) for _ in range(3)] == [4, 0, None]


def test_all_together_are_bounded_too() -> None:
    limit = RateLimit(burst=2, total=3, interval_ns=10 * S)
    assert [limit.admit(key, S) for key in "abcde"] == [0, 0, 0, None, None]
    assert [limit.admit(key, 11 * S) for key in "de"] == [1, 1]


def test_kinds_are_bounded() -> None:
    limit = RateLimit(burst=1, total=10 * MAX_KEYS, interval_ns=10 * S)
    assert [limit.admit(number, S) for number in range(MAX_KEYS)] == [0] * MAX_KEYS
    assert limit.admit(0, S) is None
    assert limit.admit("one more", S) == 0
    assert limit.admit(0, S) == 0  # forgotten
