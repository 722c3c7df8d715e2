"""What a process does at its end, and how often."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from otel_concurrency.signals import ending, shutdown
from otel_concurrency.signals.ending import Ending


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A collector that answers once this is set, and telemetry that waits for it."""
    answers = threading.Event()
    monkeypatch.setattr(shutdown, "flush", lambda timeout_s, retry: answers.wait(30))
    monkeypatch.setattr(shutdown, "has_unsent", lambda: True)
    yield answers
    answers.set()


def test_a_child_that_has_waited_in_vain_does_not_wait_again_at_os_exit(collector: threading.Event) -> None:
    end = Ending(0.01)
    assert end._is_needed()
    end._end_child()
    assert not end._is_needed()


def test_what_comes_after_the_end_of_a_child_is_exported_at_os_exit(collector: threading.Event) -> None:
    collector.set()
    end = Ending(30)
    end._end_child()
    assert end._is_needed()


@pytest.mark.parametrize(("is_daemonic", "retries"), [(True, False), (False, True)])
def test_a_worker_of_a_pool_tries_once_and_another_child_again(
    is_daemonic: bool, retries: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminated pool waits for each worker, one that ends in order before its signal comes, too."""
    told: list[bool] = []
    monkeypatch.setattr(shutdown, "flush", lambda timeout_s, retry: told.append(retry))
    monkeypatch.setattr(ending, "is_daemonic_child", lambda: is_daemonic)
    Ending(30)._end_child()
    assert told == [retries]
