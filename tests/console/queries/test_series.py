"""Metrics over time: growth, levels and distributions, whatever the temporality, across restarts."""

from __future__ import annotations

from typing import Any

import pytest

from otel_concurrency.console import Store
from otel_concurrency.console.queries.difference import difference
from otel_concurrency.console.queries.scope import Scope
from otel_concurrency.console.queries.series import Value, fitting_steps, growth, levels, spreads
from tests.console.telling import SECOND, T0, Teller

MINUTE = Scope(T0, T0 + 60 * SECOND)


def told(values: list[Value]) -> list[tuple[tuple[str, ...], int, float]]:
    return [(value.labels, value.step, value.value) for value in values]


def test_a_cumulative_counter_grew_since_its_point_before_the_range(store: Store) -> None:
    shop = Teller(store)
    for at_s, value in ((-30, 100.0), (10, 103.0), (20, 103.0), (50, 110.0)):
        shop.point("c", at_s, value)

    assert told(growth(store, MINUTE, "c", steps=6)) == [((), 0, 3.0), ((), 1, 0.0), ((), 4, 7.0)]


def test_what_a_counter_held_before_anybody_looked_is_no_growth(store: Store) -> None:
    Teller(store).point("c", 10, 100.0)

    assert growth(store, MINUTE, "c") == []


def test_a_counter_that_began_in_the_range_began_at_nothing(store: Store) -> None:
    Teller(store).point("c", 10, 100.0, start_ns=T0 + 5 * SECOND)

    assert told(growth(store, MINUTE, "c", steps=1)) == [((), 0, 100.0)]


def test_a_restart_begins_a_series_of_its_own(store: Store) -> None:
    shop = Teller(store)
    shop.point("c", -10, 100.0)
    shop.point("c", 10, 104.0)
    shop.point("c", 30, 3.0, start_ns=T0 + 20 * SECOND)

    assert told(growth(store, MINUTE, "c", steps=1)) == [((), 0, 7.0)]


def test_delta_points_are_growth_themselves(store: Store) -> None:
    for at_s in (10, 20):
        Teller(store).point("c", at_s, 2.0, temporality="delta")

    assert told(growth(store, MINUTE, "c", steps=1)) == [((), 0, 4.0)]


def test_attributes_are_kept_apart_whatever_they_are_called(store: Store) -> None:
    name = 'it\'s/a~"key"'
    for label in ("a", "b"):
        Teller(store).point("c", 10, 2.0, temporality="delta", attributes={name: label})

    assert told(growth(store, MINUTE, "c", [name], steps=1)) == [(("a",), 0, 2.0), (("b",), 0, 2.0)]


def test_levels_of_equal_labels_add_up(store: Store) -> None:
    shop = Teller(store)
    for state, value in (("idle", 2.0), ("active", 3.0)):
        shop.point("workers", 5, 9.0, attributes={"pool": "p", "state": state})
        shop.point("workers", 10, value, attributes={"pool": "p", "state": state})

    assert told(levels(store, MINUTE, "workers", ["pool"], steps=1)) == [(("p",), 0, 5.0)]


def test_another_service_is_not_looked_at(store: Store) -> None:
    for service in ("shop", "warehouse"):
        Teller(store, service).point("c", 10, 2.0, temporality="delta")
    scope = Scope(T0, T0 + 60 * SECOND, services=("shop",))

    assert [(value.service, value.value) for value in growth(store, scope, "c")] == [("shop", 2.0)]


def test_a_histogram_took_in_what_its_points_differ_by(store: Store) -> None:
    shop = Teller(store)
    shop.histogram("h", -10, [5, 0, 0, 0])
    shop.histogram("h", 10, [5, 2, 0, 0])
    shop.histogram("h", 40, [5, 2, 3, 0])

    found = spreads(store, MINUTE, "h", steps=2)
    assert [(each.step, dict(each.spread.buckets)) for each in found] == [
        (0, {(0.01, 0.1): 2}),
        (1, {(0.1, 1.0): 3}),
    ]


def test_steps_are_as_long_as_the_interval_of_collection(store: Store) -> None:
    for at_s in range(0, 60, 10):
        Teller(store).point("c", at_s, 1.0)

    assert fitting_steps(store, MINUTE, "c") == 5
    assert fitting_steps(store, MINUTE, "never told", 60) == 60


def exponential(scale: int, offset: int, counts: list[int]) -> dict[str, Any]:
    side = {"offset": offset, "counts": counts}
    nothing = {"offset": 0, "counts": []}
    return {"scale": scale, "zero_count": 0, "zero_threshold": 0.0, "positive": side, "negative": nothing}


@pytest.mark.parametrize(
    ("later", "earlier", "left"),
    [
        (exponential(2, 0, [3, 4]), exponential(2, 1, [1]), exponential(2, 0, [3, 3])),
        (exponential(1, 0, [5, 5]), exponential(2, 0, [1, 1, 2]), exponential(1, 0, [3, 3])),
        (exponential(2, 0, [1]), exponential(2, 0, [4]), exponential(2, 0, [0])),
        (
            {"bounds": [1], "counts": [2, 3]},
            {"bounds": [1], "counts": [1, 1]},
            {"bounds": [1], "counts": [1, 2]},
        ),
        (
            {"bounds": [1], "counts": [2, 3]},
            {"bounds": [2], "counts": [1, 1]},
            {"bounds": [1], "counts": [2, 3]},
        ),
    ],
    ids=["same scale", "coarser now", "a reset", "explicit", "other bounds"],
)
def test_the_difference_of_two_points(
    later: dict[str, Any], earlier: dict[str, Any], left: dict[str, Any]
) -> None:
    assert difference(later, earlier) == left


def test_a_quantile_of_nothing_is_nothing(store: Store) -> None:
    Teller(store).histogram("h", 10, [0, 0, 0, 0], temporality="delta")

    assert spreads(store, MINUTE, "h") == []
