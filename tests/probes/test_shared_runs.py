"""What a worker's processes know of each other's runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from otel_concurrency.probes import shared_runs
from otel_concurrency.probes.shared_runs import SharedRuns, run_key


def in_child(act: Callable[[], None]) -> None:
    """Run something in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_run_is_the_first_to_end_once() -> None:
    runs = SharedRuns()
    key = run_key(("a", 0))
    assert not runs.has_ended(key)
    assert [runs.end(key), runs.end(key)] == [True, False]
    assert runs.has_ended(key)


def test_keys_tell_tries_apart() -> None:
    runs = SharedRuns()
    keys = [run_key(("a", 0)), run_key(("a", 1)), run_key(("b", 0)), run_key(("a", 0, "x"))]
    assert [runs.end(key) for key in keys] == [True] * 4


def test_what_was_not_received_is_unknown() -> None:
    runs = SharedRuns(lambda: 7)
    runs.receive(run_key("a"))
    assert runs.received_ns(run_key("a")) == 7
    assert runs.received_ns(run_key("b")) == 0


def test_what_came_in_again_came_in_then() -> None:
    times = iter((7, 9))
    runs = SharedRuns(lambda: next(times))
    runs.receive(run_key("a"))
    runs.receive(run_key("a"))
    assert runs.received_ns(run_key("a")) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_knows_and_tells() -> None:
    runs = SharedRuns(lambda: 7)
    runs.receive(run_key("a"))

    def run() -> None:
        assert runs.received_ns(run_key("a")) == 7
        assert runs.end(run_key("a"))

    in_child(run)
    assert not runs.end(run_key("a"))
    in_child(lambda: os._exit(int(runs.end(run_key("a")))))


def test_a_bucket_that_is_full_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what came in, the oldest; of what has ended, one of those that came before."""
    monkeypatch.setattr(shared_runs, "RECEIVED_SLOTS", 8)
    monkeypatch.setattr(shared_runs, "ENDED_SLOTS", 8)
    now = [0]

    def tick() -> int:
        now[0] += 1
        return now[0]

    runs = SharedRuns(tick)
    keys = [run_key(("a", number)) for number in range(9)]
    for key in keys:
        runs.receive(key)
        runs.end(key)
    assert [runs.received_ns(key) for key in keys] == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert sum(runs.has_ended(key) for key in keys) == 8
    assert runs.has_ended(keys[8])


def test_many_are_remembered() -> None:
    """Nothing is forgotten while the tables are far from full."""
    runs = SharedRuns()
    keys = [run_key((str(number), 0)) for number in range(5_000)]
    assert sum(runs.end(key) for key in keys) == 5_000
    assert sum(runs.has_ended(key) for key in keys) == 5_000
