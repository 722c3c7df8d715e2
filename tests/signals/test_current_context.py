"""The current context by a short way: what the API says, and what the API sees."""

from __future__ import annotations

import contextvars

import pytest
from opentelemetry import baggage, context

from otel_concurrency.signals import current_context


def test_it_is_the_apis() -> None:
    before = context.get_current()
    token = current_context.attach(baggage.set_baggage("who", "me"))
    assert current_context.get_current() is context.get_current()
    assert baggage.get_all() == {"who": "me"}
    current_context.detach(token)
    assert current_context.get_current() is before


def test_where_nothing_was_ever_attached_it_is_empty() -> None:
    assert contextvars.Context().run(current_context.get_current) == {}


def test_a_token_of_another_context_is_refused() -> None:
    token = contextvars.Context().run(current_context.attach, context.Context())
    with pytest.raises(ValueError, match="different Context"):
        current_context.detach(token)
