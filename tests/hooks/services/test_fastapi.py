"""Defaults for FastAPI's own telemetry: filled in, taken back, and never against the application's word."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from otel_concurrency.hooks.services.fastapi import FastAPITelemetryHook

ORIGINAL = vars(FastAPI)["__init__"]


@pytest.fixture
def hook() -> Iterator[FastAPITelemetryHook]:
    hook = FastAPITelemetryHook({"operation_spans": False})
    hook.install()
    yield hook
    hook.remove()
    FastAPI.__init__ = ORIGINAL  # type: ignore[method-assign]


def operation_spans(app: FastAPI) -> object:
    return app._telemetry["operation_spans"]


def test_an_application_gets_what_it_leaves_open(hook: FastAPITelemetryHook) -> None:
    app = FastAPI(title="Shop", telemetry={"metrics": False})
    assert (app.title, operation_spans(app), app._telemetry["metrics"]) == ("Shop", False, False)
    assert operation_spans(FastAPI()) is False


def test_the_word_of_the_application_stands(hook: FastAPITelemetryHook) -> None:
    """And its dict is not changed."""
    given: Any = {"operation_spans": True}
    assert operation_spans(FastAPI(telemetry=given)) is True
    assert given == {"operation_spans": True}


def test_a_subclass_is_covered(hook: FastAPITelemetryHook) -> None:
    class Shop(FastAPI):
        def __init__(self) -> None:
            super().__init__(title="Shop")

    assert operation_spans(Shop()) is False


def test_the_class_keeps_its_face(hook: FastAPITelemetryHook) -> None:
    assert inspect.signature(FastAPI) == inspect.signature(ORIGINAL).replace(
        parameters=list(inspect.signature(ORIGINAL).parameters.values())[1:]
    )


def test_removed_it_leaves_the_original(hook: FastAPITelemetryHook) -> None:
    hook.remove()
    assert vars(FastAPI)["__init__"] is ORIGINAL
    assert operation_spans(FastAPI()) is True


def test_installed_twice_it_is_removed_once(hook: FastAPITelemetryHook) -> None:
    hook.install()
    hook.remove()
    assert vars(FastAPI)["__init__"] is ORIGINAL


def test_a_later_patch_survives_our_removal(hook: FastAPITelemetryHook) -> None:
    """Ours beneath it falls silent."""
    ours = FastAPI.__init__

    def theirs(app: FastAPI, **kwargs: Any) -> None:
        ours(app, **{"title": "Theirs"} | kwargs)

    FastAPI.__init__ = theirs  # type: ignore[assignment, method-assign]
    hook.remove()
    app = FastAPI()
    assert (app.title, operation_spans(app)) == ("Theirs", True)


def test_what_the_application_does_wrong_fails_as_without_us(hook: FastAPITelemetryHook) -> None:
    wrong: Any = 3
    with pytest.raises(TypeError) as without_us:
        ORIGINAL(FastAPI.__new__(FastAPI), telemetry=wrong)
    with pytest.raises(TypeError) as with_us:
        FastAPI(telemetry=wrong)
    assert str(with_us.value) == str(without_us.value)
