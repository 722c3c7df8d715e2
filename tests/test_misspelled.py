"""Names that no setting has: each gives one warning, with what may have been meant."""

from __future__ import annotations

import pytest

from otel_concurrency.config import PREFIX, SETTINGS
from otel_concurrency.misspelled import known_options, warn_of_variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TASK_SPAN", "TASK_SPANS"),
        ("TASK_SPAN_TRESHOLD", "TASK_SPAN_THRESHOLD"),
        ("STALLTHRESHOLD", "STALL_THRESHOLD"),
        ("ENABLE", "ENABLED"),
        ("task_spans", None),
        ("Q", None),
    ],
)
def test_a_variable_that_is_none_of_ours_is_named_with_what_it_is_like(
    caplog: pytest.LogCaptureFixture, name: str, meant: str | None
) -> None:
    warn_of_variables({PREFIX + name: "x", "PATH": "/bin"})
    asked = f"; did you mean {PREFIX}{meant}?" if meant else ""
    assert caplog.messages == [f"{PREFIX}{name} is no setting, and does nothing{asked}"]


def test_what_is_ours_or_nobodys_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    ours = [setting.variable for setting in SETTINGS]
    others = ["OTEL_PYTHON_CONCURRENCY", f"_{PREFIX}INSTANCE", "OTEL_PYTHON_DISTRO"]
    warn_of_variables(dict.fromkeys([*ours, *others], "x"))
    assert caplog.messages == []


def test_options_that_an_instrumentor_has_not_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    given = {"enabled": True, "native": False, "natif": True}
    assert known_options("concurrency_x", given, ["native", "depth"]) == {"enabled": True, "native": False}
    assert known_options("concurrency_y", {"depth": 3}, []) == {}
    first, second = caplog.messages
    begins = "The configuration file gives %s an option that it has not, and that does nothing: "
    assert first == begins % "concurrency_x" + "natif; it has depth, native"
    assert second == begins % "concurrency_y" + "depth; it has none but enabled"
