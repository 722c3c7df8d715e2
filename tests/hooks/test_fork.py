"""Entries run on their side of a fork, in order, and let go when asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks import fork

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    # What other tests have left running is no business of these: 3.12 and later warn of it.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]


@pytest.fixture
def add() -> Iterator[Callable[..., Callable[[], None]]]:
    """Add an entry; what is left of it goes with the test."""
    undo: list[Callable[[], None]] = []

    def add(side: Callable[[Any], Callable[[], None]], callback: Any) -> Callable[[], None]:
        undo.append(side(callback))
        return undo[-1]

    yield add
    for each in undo:
        each()


def forked(seen: list[str]) -> str:
    """Fork; return what the child has seen."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, ",".join(seen).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return told


def test_each_side_runs_in_its_own_process_and_in_order(add: Any) -> None:
    seen: list[str] = []
    add(fork.before_fork, lambda: seen.append("before"))
    add(fork.in_child, lambda: seen.append("child"))
    add(fork.in_child, lambda: seen.append("child again"))
    add(fork.in_parent, lambda: seen.append("parent"))
    assert forked(seen) == "before,child,child again"
    assert seen == ["before", "parent"]


def test_an_entry_that_was_taken_back_does_not_run(add: Any) -> None:
    seen: list[str] = []
    take_back = add(fork.in_child, lambda: seen.append("first"))
    add(fork.in_child, lambda: seen.append("second"))
    take_back()
    take_back()
    assert forked(seen) == "second"


def test_an_entry_that_raises_is_logged_and_the_next_one_runs(
    add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def fail() -> None:
        raise ValueError("no luck")

    add(fork.in_parent, fail)
    add(fork.in_parent, lambda: seen.append("next"))
    forked(seen)
    assert seen == ["next"]
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("no luck",)]  # type: ignore[union-attr]


def test_entries_can_come_after_those_that_others_have_made(add: Any) -> None:
    seen: list[str] = []
    add(fork.in_child, lambda: seen.append("ours"))
    is_active = True
    os.register_at_fork(after_in_child=lambda: seen.append("another's") if is_active else None)
    assert forked(seen) == "ours,another's"
    fork.come_last()
    assert forked(seen) == "another's,ours"
    is_active = False
