"""Shortcuts for plain attributes: whatever is given, the SDK keeps what it keeps without them."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_concurrency.signals import shortcuts
from otel_concurrency.signals.shortcuts import AttributeShortcuts


class Text(str):
    __slots__ = ()


class Number(int):
    pass


GIVEN: list[Any] = [
    {"a": 1, "b": True, "c": 1.0, "d": "text", "e": None, "f": ""},
    MappingProxyType({"a": 1, "b": "text"}),
    {"a": 1, "": 2},
    {Text("a"): 1, "b": Text("text"), "c": Number(3)},
    {"a": [1, 2], "b": {"c": 3}, "d": b"bytes", "e": object()},
    {1: "a", "b": 2, None: 3},
    {"a": float("nan"), "b": float("inf"), "c": 2**70},
    {"z": 1, "a": 2, "m": 3},
    {},
]


@pytest.fixture
def installed() -> Iterator[AttributeShortcuts]:
    made = AttributeShortcuts()
    made.install()
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def kept(given: Any, maxlen: int | None, max_value_len: int | None) -> list[Any]:
    """Return what is kept of attributes, some of them set before, and how many were dropped."""
    attributes = BoundedAttributes(maxlen, {"m": 0, "c": "before"}, False, max_value_len)
    attributes._set_items(given)
    immutable = BoundedAttributes(maxlen, given, True, max_value_len)
    with pytest.raises(TypeError):
        immutable._set_items({"a": 1})
    return [(repr(list(each.items())), each.dropped) for each in (attributes, immutable)]


@pytest.mark.parametrize("maxlen", [None, 0, 2, 3, 6, 7, 8, 100])
@pytest.mark.parametrize("max_value_len", [None, 3])
def test_spans_keep_what_they_keep_without_us(maxlen: int | None, max_value_len: int | None) -> None:
    before = [kept(given, maxlen, max_value_len) for given in GIVEN]
    made = AttributeShortcuts()
    made.install()
    try:
        assert [kept(given, maxlen, max_value_len) for given in GIVEN] == before
    finally:
        made.remove()


def test_what_is_given_can_change_afterwards(installed: AttributeShortcuts) -> None:
    given = {"a": 1}
    attributes = BoundedAttributes(attributes=given)
    given["a"] = 2
    assert attributes["a"] == 1


def points(given: list[Mapping[str, Any]]) -> dict[str, Any]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("m").create_counter("n")
    for number, attributes in enumerate(given, 1):
        counter.add(number, attributes)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    found = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    return {repr(list(point.attributes.items())): point.value for point in found}  # type: ignore[union-attr]


def test_measurements_come_to_the_same_points(installed: AttributeShortcuts) -> None:
    """Whatever is equal for Python and not for OpenTelemetry stays apart; what is the same, together."""
    draw = random.Random(7)
    values = [1, True, 1.0, 0, False, 0.0, "", "1", None, -0.0, (1,), "text"]
    drawn = [
        {key: draw.choice(values) for key in draw.sample(["a", "b", "c"], draw.randrange(4))}
        for _ in range(400)
    ]
    given = [each for each in GIVEN if isinstance(each, dict) and object not in map(type, each.values())]
    with_us = points(drawn + given)
    installed.remove()
    assert points(drawn + given) == with_us


def test_a_series_goes_on_when_the_shortcuts_come_and_go() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("m").create_counter("n")
    made = AttributeShortcuts()
    for change in (lambda: None, made.install, made.remove):
        change()
        counter.add(1, {"b": 1, "a": "x"})
    data: Any = reader.get_metrics_data()
    provider.shutdown()
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert point.value == 3


def test_an_sdk_that_does_something_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.metrics._internal import _view_instrument_match as matches
    from opentelemetry.sdk.metrics._internal import measurement as measurements

    def other_hash(value: Any) -> Any:
        return frozenset(value.items())

    def other_set(self: Any, attributes: Any) -> None:
        self._dict.update({key: str(value) for key, value in attributes.items()})

    monkeypatch.setattr(matches, "_hash_attributes", other_hash)
    monkeypatch.setattr(BoundedAttributes, "_set_items", other_set)
    monkeypatch.delattr(measurements, "_clean_attribute_value")
    made = AttributeShortcuts()
    made.install()
    assert (repr(made), matches._hash_attributes) == ("<AttributeShortcuts []>", other_hash)
    assert vars(BoundedAttributes)["_set_items"] is other_set
    made.remove()


def test_the_usual_case_is_not_left_to_the_sdk(
    installed: AttributeShortcuts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else there would be two ways in the place of one."""

    def never(*given: Any) -> Any:
        raise AssertionError(given)

    attributes = BoundedAttributes(8, {"a": 0}, immutable=False)
    monkeypatch.setattr("opentelemetry.attributes._clean_attribute_value", never)
    attributes._set_items({"a": 1, "b": "text"})
    assert list(attributes.items()) == [("a", 1), ("b", "text")]
    assert repr(installed).count("installed") == 3
    assert shortcuts._copy({"a": 1}) == {"a": 1}
