"""What a program gets of the context, and what of its environment stays as the application wants it."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from otel_concurrency.hooks.processes.child_environment import own_environment, variable, with_context

FIELDS = ("traceparent", "tracestate", "baggage")
CARRIER = {"traceparent": "00-ours", "baggage": "who=ours"}
AT_START = {"TRACEPARENT": "00-start", "TRACESTATE": "start=1", "BAGGAGE": "who=start"}


@pytest.mark.parametrize(
    ("env", "becomes"),
    [
        ({}, {"TRACEPARENT": "00-ours", "BAGGAGE": "who=ours"}),
        ({"PATH": "/bin"}, {"PATH": "/bin", "TRACEPARENT": "00-ours", "BAGGAGE": "who=ours"}),
        # What came with this process gives way, the state that belongs to the other parent too.
        (AT_START, {"TRACEPARENT": "00-ours", "BAGGAGE": "who=ours"}),
        ({b"TRACEPARENT": b"00-start"}, {b"TRACEPARENT": b"00-ours", b"BAGGAGE": b"who=ours"}),
        # What the application chose stays; a trace is chosen as a whole.
        ({"TRACEPARENT": "00-mine"}, {"TRACEPARENT": "00-mine", "BAGGAGE": "who=ours"}),
        (
            AT_START | {"TRACEPARENT": "00-mine"},
            {"TRACEPARENT": "00-mine", "TRACESTATE": "start=1", "BAGGAGE": "who=ours"},
        ),
        ({"BAGGAGE": "who=mine"}, {"BAGGAGE": "who=mine", "TRACEPARENT": "00-ours"}),
        ({"TRACEPARENT": "00-mine", "BAGGAGE": ""}, {"TRACEPARENT": "00-mine", "BAGGAGE": ""}),
        ({b"PATH": b"/bin"}, {b"PATH": b"/bin", b"TRACEPARENT": b"00-ours", b"BAGGAGE": b"who=ours"}),
        ({b"A": "b", "C": b"d"}, {b"A": "b", "C": b"d", "TRACEPARENT": "00-ours", "BAGGAGE": "who=ours"}),
        (MappingProxyType({"A": "b"}), {"A": "b", "TRACEPARENT": "00-ours", "BAGGAGE": "who=ours"}),
        (OrderedDict(A="b"), {"A": "b", "TRACEPARENT": "00-ours", "BAGGAGE": "who=ours"}),
    ],
)
def test_an_environment_is_copied_and_completed(env: Mapping[Any, Any], becomes: dict[Any, Any]) -> None:
    before = list(env.items())
    assert with_context(env, CARRIER, FIELDS, AT_START) == becomes
    assert list(env.items()) == before


def test_an_environment_to_which_nothing_is_added_is_handed_on_itself() -> None:
    env = {"TRACEPARENT": "00-mine"}
    assert with_context(env, {"traceparent": "00-ours"}, FIELDS, {}) is env


def test_none_means_the_environment_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACEPARENT", raising=False)
    monkeypatch.setenv("BAGGAGE", "who=mine")
    found = with_context(None, CARRIER, FIELDS, {})
    assert found == own_environment() | {"TRACEPARENT": "00-ours"}
    assert found.items() >= os.environ.items()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads C's environment where it is at hand")
def test_what_only_c_knows_is_inherited_as_well() -> None:
    """A child of `execv` gets it; `os.environ` does not say it. (GNU readline, for one, exports `LINES`.)"""
    before = own_environment()
    assert before.items() >= os.environ.items()
    os.putenv("ONLY_IN_C", "a=\udcff")
    try:
        assert own_environment() == before | {"ONLY_IN_C": "a=\udcff"}
    finally:
        os.unsetenv("ONLY_IN_C")
    assert own_environment() == before


@pytest.mark.parametrize(
    ("field", "name"),
    [("traceparent", "TRACEPARENT"), ("x-b3-traceid", "X_B3_TRACEID"), ("9a", "_9A"), ("", "_")],
)
def test_names_are_those_of_the_specification(field: str, name: str) -> None:
    assert variable(field) == name
