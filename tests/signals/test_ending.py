"""What a process does at its end, and how often."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from otel_concurrency.signals import shutdown
from otel_concurrency.signals.ending import Ending


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A collector that answers once this is set, and telemetry that waits for it."""
    answers = threading.Event()
    monkeypatch.setattr(shutdown, "flush", lambda timeout_s: answers.wait(30))
    monkeypatch.setattr(shutdown, "has_unsent", lambda: True)
    yield answers
    answers.set()


def test_a_child_that_has_waited_in_vain_does_not_wait_again_at_os_exit(collector: threading.Event) -> None:
    ending = Ending(0.01)
    assert ending._is_needed()
    ending._end_child()
    assert not ending._is_needed()


def test_what_comes_after_the_end_of_a_child_is_exported_at_os_exit(collector: threading.Event) -> None:
    collector.set()
    ending = Ending(30)
    ending._end_child()
    assert ending._is_needed()
