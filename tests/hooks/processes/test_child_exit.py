"""The end of multiprocessing's children, each in a program of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import os, sys
    from otel_concurrency.hooks.processes.child_exit import ChildExitHook, is_daemonic_child

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def work():
        say("work")

    def fail():
        raise ValueError("no luck")

    def hook(at_start=lambda: say("start"), at_exit=lambda: say("exit")):
        made = ChildExitHook(at_start, at_exit)
        made.install()
        return made

    def child(method="fork", target=work):
        import multiprocessing
        process = multiprocessing.get_context(method).Process(target=target)
        process.start()
        process.join()
        return process.exitcode

"""


@pytest.fixture
def ended(tmp_path: Path):  # type: ignore[no-untyped-def]
    def ended(program: str) -> tuple[int, str, str]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(program))
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return ended


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


def test_a_forked_child_tells_its_start_and_its_end(ended) -> None:  # type: ignore[no-untyped-def]
    """The library is loaded after us, and not by us."""
    program = """
        hook().install()
        say("multiprocessing" in sys.modules)
        say(child(), child())
    """
    each = "start\nwork\nexit\n"
    assert ended(program) == (0, f"False\n{each}{each}0 0\n", "")


def test_a_library_that_was_loaded_before_us_is_known_once(ended) -> None:  # type: ignore[no-untyped-def]
    assert ended("import multiprocessing.util\nhook()\nsay(child())") == (0, "start\nwork\nexit\n0\n", "")


def test_a_child_that_raises_or_exits_tells_its_end(ended) -> None:  # type: ignore[no-untyped-def]
    code, out, err = ended("hook(); say(child(target=fail)); say(child(target=lambda: sys.exit(5)))")
    assert (code, out) == (0, "start\nexit\n1\nstart\nexit\n5\n")
    assert "no luck" in err


def test_the_childs_own_finalizers_come_first(ended) -> None:  # type: ignore[no-untyped-def]
    program = """
        def work():
            from multiprocessing.util import Finalize
            Finalize(None, say, ("theirs",), exitpriority=-1)

        hook()
        child(target=work)
    """
    assert ended(program) == (0, "start\ntheirs\nexit\n", "")


def test_a_child_of_a_child_tells_its_end(ended) -> None:  # type: ignore[no-untyped-def]
    assert ended("hook(); child(target=child)") == (0, "start\nstart\nwork\nexit\nexit\n", "")


def test_a_removed_hook_is_silent(ended) -> None:  # type: ignore[no-untyped-def]
    program = """
        made = hook()
        child()
        made.remove()
        made.remove()
        say(made, child())
        made.install()
        child()
    """
    out = "start\nwork\nexit\nwork\n<ChildExitHook [removed]> 0\nstart\nwork\nexit\n"
    assert ended(program) == (0, out, "")


def test_trouble_of_ours_is_not_seen(ended) -> None:  # type: ignore[no-untyped-def]
    assert ended("hook(fail, fail); say(child())") == (0, "work\n0\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_children_are_left_to_themselves(ended, method: str) -> None:  # type: ignore[no-untyped-def]
    """They start with no memory of us."""
    program = f"""
        if __name__ == "__main__":
            hook()
            say(child("{method}"))
    """
    assert ended(program) == (0, "work\n0\n", "")


def test_a_twin_of_the_library_is_served_too(ended) -> None:  # type: ignore[no-untyped-def]
    """billiard has the same functions; this stands in for it."""
    program = """
        import types
        util = types.ModuleType("billiard.util")
        registered = []
        util.register_after_fork = lambda obj, function: registered.append((obj, function))
        util.Finalize = lambda obj, call, exitpriority: say("finalizer", exitpriority, call())
        sys.modules["billiard.util"] = util
        hook()
        for obj, function in registered:
            function(obj)
    """
    assert ended(program) == (0, "start\nexit\nfinalizer -100 None\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_worker_is_known_as_such(ended, method: str) -> None:  # type: ignore[no-untyped-def]
    program = f"""
        def work(_=None):
            say(is_daemonic_child())

        if __name__ == "__main__":
            work()
            child("{method}", work)
            import multiprocessing
            work()
            with multiprocessing.get_context("{method}").Pool(1) as pool:
                pool.map(work, [0])
    """
    assert ended(program) == (0, "False\nFalse\nFalse\nTrue\n", "")
