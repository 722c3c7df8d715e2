from __future__ import annotations

import asyncio
import threading
import time

import pytest

from otel_concurrency import readiness
from otel_concurrency.readiness import CheckResult, add_check, run_checks


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_checks", {})


def told(results: list[CheckResult]) -> list[tuple[str, bool, str]]:
    return [(result.name, result.ok, result.error) for result in results]


def test_a_check_says_yes_unless_it_raises_or_returns_false() -> None:
    def broken() -> None:
        raise ConnectionError("refused")

    async def ping() -> bool:
        await asyncio.sleep(0)
        return True

    async def down() -> None:
        raise OSError("gone")

    add_check("nothing", lambda: None)
    add_check("zero", lambda: 0)
    add_check("no", lambda: False)
    add_check("broken", broken)
    add_check("ping", ping)
    add_check("down", down)
    add_check("lambda", lambda: ping())
    assert told(run_checks()) == [
        ("nothing", True, ""),
        ("zero", True, ""),
        ("no", False, "says no"),
        ("broken", False, "ConnectionError: refused"),
        ("ping", True, ""),
        ("down", False, "OSError: gone"),
        ("lambda", True, ""),
    ]


def test_a_check_can_be_replaced_and_taken_back() -> None:
    first = add_check("db", lambda: False)
    second = add_check("db", lambda: True)
    first()
    assert told(run_checks()) == [("db", True, "")]
    second()
    assert run_checks() == []


def test_what_is_no_check_is_refused() -> None:
    with pytest.raises(TypeError, match="'db' cannot be called"):
        add_check("db", "SELECT 1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="above 0 s"):
        add_check("db", lambda: True, timeout=0)


def test_checks_run_at_once_and_none_keeps_the_others() -> None:
    """Each waits for all the others: one after the other they never ended."""
    everybody = threading.Barrier(4)

    async def wait() -> None:
        await asyncio.get_running_loop().run_in_executor(None, everybody.wait, 30)

    for number in range(2):
        add_check(f"sync {number}", lambda: everybody.wait(30), timeout=30)
        add_check(f"async {number}", wait, timeout=30)
    assert [result.ok for result in run_checks()] == [True] * 4


def test_a_check_that_blocks_is_not_called_again_before_it_returns() -> None:
    gate, returned = threading.Event(), threading.Event()
    calls = []

    def block() -> None:
        calls.append(1)
        gate.wait(60)
        returned.set()

    add_check("slow", block, timeout=0.05)
    [first] = run_checks()
    assert (first.ok, first.error) == (False, "takes longer than 0.1 s")
    [second] = run_checks()
    assert second.error.startswith("has not returned since")
    assert len(calls) == 1
    gate.set()
    assert returned.wait(30)
    deadline = time.monotonic() + 30
    while not run_checks()[0].ok and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run_checks()[0].ok


def test_all_together_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LIMIT_S", 0.05)
    gate = threading.Event()
    add_check("patient", lambda: gate.wait(60), timeout=50)
    [result] = run_checks()
    gate.set()
    assert (result.ok, result.error) == (False, "takes longer than 0.1 s")


class InALoop:
    """A loop in a thread, that can be held up."""

    def __enter__(self) -> asyncio.AbstractEventLoop:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self.loop

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def test_a_coroutine_runs_where_its_check_was_added_or_where_one_runs() -> None:
    seen = []

    async def check() -> None:
        seen.append(asyncio.get_running_loop())

    async def add() -> None:
        add_check("own", check)

    with InALoop() as own, InALoop() as other:
        asyncio.run_coroutine_threadsafe(add(), own).result(30)
        add_check("any", check)
        assert [result.ok for result in run_checks(lambda: other)] == [True, True]
        assert set(seen) == {own, other}
    assert [result.ok for result in run_checks()] == [True, True]  # and where none runs, in one of ours


def test_a_coroutine_is_cancelled_when_its_time_is_up() -> None:
    ended = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with InALoop() as loop:
        add_check("slow", slow, timeout=0.05)
        [result] = run_checks(lambda: loop)
        assert (result.ok, result.error) == (False, "takes longer than 0.1 s")
        assert ended.wait(30)


def test_a_blocked_loop_is_named_and_not_given_more_to_do() -> None:
    gate, calls = threading.Event(), []

    async def check() -> None:
        calls.append(1)

    with InALoop() as loop:
        add_check("db", check, timeout=0.05)
        loop.call_soon_threadsafe(gate.wait, 60)
        [first] = run_checks(lambda: loop)
        assert first.error == "takes longer than 0.1 s: its event loop has not come to it"
        assert [run_checks(lambda: loop)[0].ok for _ in range(3)] == [False] * 3
        gate.set()
        deadline = time.monotonic() + 30
        while not run_checks(lambda: loop)[0].ok and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(calls) == 1  # those that came too late were not called at all
