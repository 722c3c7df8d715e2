"""The end of a process: in order, and at `os._exit`. Real ends are in tests/e2e/test_exit.py."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.ending.exit import ImmediateExitHook


def ended(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )


ORDER = """
    import atexit, threading, time
    from otel_concurrency.hooks.ending.exit import ExitHook

    atexit.register(print, "registered before")
    hook = ExitHook(lambda: print("end of main"), lambda: print("exit"))
    hook.install()
    hook.install()
    atexit.register(print, "registered after")
    is_through = threading.Event()

    def work():
        threading.main_thread().join()
        print("worker")

    threading.Thread(target=work).start()
"""


def test_both_stages_run_once_and_in_order() -> None:
    finished = ended(ORDER)
    assert (finished.returncode, finished.stderr) == (0, "")
    said = finished.stdout.split("\n")[:-1]
    assert sorted(said[:2]) == ["end of main", "worker"]
    assert said[2:] == ["registered after", "exit", "registered before"]


def test_what_was_removed_does_not_run() -> None:
    finished = ended(ORDER + "    hook.remove()\n")
    assert finished.stdout.split("\n")[:-1] == ["worker", "registered after", "registered before"]


def test_it_can_be_installed_again() -> None:
    finished = ended(ORDER + "    hook.remove()\n    hook.install()\n")
    assert finished.stdout.count("end of main") == finished.stdout.count("exit\n") == 1


def test_trouble_of_ours_is_not_seen() -> None:
    finished = ended("""
        import sys
        from otel_concurrency.hooks.ending.exit import ExitHook

        def fail():
            raise ValueError("no luck")

        hook = ExitHook(fail, fail)
        hook.install()
        sys.exit(3)
    """)
    assert (finished.returncode, finished.stdout, finished.stderr) == (3, "", "")


class EndedError(Exception):
    """In the place of the end of the process."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Keeps the status of each `os._exit`, and lets the process live."""
    exits: list[object] = []

    def _exit(status: int) -> None:
        exits.append(status)
        raise EndedError

    monkeypatch.setattr(os, "_exit", _exit)
    return exits


@pytest.fixture
def hook(exits: list[object]) -> Iterator[Callable[..., ImmediateExitHook]]:
    hooks: list[ImmediateExitHook] = []

    def make(before: Callable[[], object], is_needed: Callable[[], bool] = lambda: True) -> ImmediateExitHook:
        hooks.append(ImmediateExitHook(before, is_needed))
        hooks[-1].install()
        return hooks[-1]

    yield make
    for each in hooks:
        each.remove()


def test_os_exit_calls_us_first_and_ends_with_its_status(hook: Any, exits: list[object]) -> None:
    seen: list[object] = []
    installed = hook(lambda: seen.append(list(exits)))
    installed.install()
    with pytest.raises(EndedError):
        os._exit(7)
    assert (seen, exits) == ([[]], [7])


def test_os_exit_does_not_call_us_where_it_is_not_needed(hook: Any, exits: list[object]) -> None:
    seen: list[object] = []
    hook(lambda: seen.append("before"), lambda: False)
    with pytest.raises(EndedError):
        os._exit(status=7)
    assert (seen, exits) == ([], [7])


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt, SystemExit])
def test_os_exit_ends_the_process_whatever_happens_to_us(
    hook: Any, exits: list[object], trouble: type[BaseException]
) -> None:
    def fail() -> None:
        raise trouble

    hook(fail)
    with pytest.raises(EndedError):
        os._exit(7)
    assert exits == [7]


def test_os_exit_refuses_what_it_refuses_without_us(hook: Any) -> None:
    hook(lambda: None)
    with pytest.raises(TypeError):
        os._exit()  # type: ignore[call-arg]


def test_os_exit_can_be_pickled_as_without_us(hook: Any) -> None:
    """As a work item of a process pool, or the target of a process that is spawned."""
    hook(lambda: None)
    ours = os._exit
    assert pickle.loads(pickle.dumps(ours)) is ours


def test_os_exit_is_put_back(hook: Any, exits: list[object]) -> None:
    original, seen = os._exit, []
    installed = hook(lambda: seen.append("before"))
    installed.remove()
    installed.remove()
    assert os._exit is original
    with pytest.raises(EndedError):
        os._exit(7)
    assert (seen, exits) == ([], [7])


def test_a_later_patch_of_os_exit_survives_our_removal(
    hook: Any, exits: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    installed = hook(lambda: seen.append("ours"))
    ours = os._exit

    def theirs(status: int) -> None:
        seen.append("theirs")
        ours(status)

    monkeypatch.setattr(os, "_exit", theirs)
    with pytest.raises(EndedError):
        os._exit(1)
    installed.remove()
    with pytest.raises(EndedError):
        os._exit(2)
    assert (seen, exits) == (["theirs", "ours", "theirs"], [1, 2])
