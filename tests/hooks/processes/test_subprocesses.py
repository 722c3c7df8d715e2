"""Programs that are started get the context in their environment, and everything else as it was."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from otel_concurrency.hooks.processes.subprocesses import SubprocessHook
from tests.conftest import LoopFactory
from tests.loops import run

SHOW = [
    sys.executable,
    "-S",
    "-c",
    "import os; print(os.environ.get('TRACEPARENT'), os.environ.get('TRACESTATE'))",
]
FIELDS = ("traceparent", "tracestate", "baggage")


def capture() -> dict[str, str]:
    return {"traceparent": "00-ours"}


def fail() -> Any:
    raise RuntimeError("no luck today")


@pytest.fixture
def install() -> Iterator[Callable[..., SubprocessHook]]:
    """Install a hook; it comes off after the test."""
    import uvloop

    owners = [
        (subprocess.Popen, "__init__"),
        (uvloop.Loop, "subprocess_exec"),
        (uvloop.Loop, "subprocess_shell"),
    ]
    before = [vars(owner).get(name) for owner, name in owners]
    installed: list[SubprocessHook] = []

    def install(capture: Callable[[], Mapping[str, str]] = capture) -> SubprocessHook:
        installed.append(SubprocessHook(capture, lambda: FIELDS))
        installed[-1].install()
        return installed[-1]

    yield install
    for hook in reversed(installed):
        hook.remove()
    assert [vars(owner).get(name) for owner, name in owners] == before


def shown(**kwargs: Any) -> str:
    return subprocess.run(SHOW, stdout=subprocess.PIPE, text=True, check=True, **kwargs).stdout.strip()


@pytest.mark.parametrize(
    "kwargs", [{}, {"env": None}, {"env": {}}, {"env": {b"A": b"b"}}, {"close_fds": False}]
)
def test_a_program_gets_the_context(install: Callable[..., SubprocessHook], kwargs: dict[str, Any]) -> None:
    assert shown(**kwargs) == "None None"
    hook = install()
    assert shown(**kwargs) == "00-ours None"
    hook.install()
    hook.remove()
    assert shown(**kwargs) == "None None"


def test_an_environment_may_be_given_by_position(install: Callable[..., SubprocessHook]) -> None:
    install()
    env: dict[str, str] = {}
    before_env = (SHOW, -1, None, None, subprocess.PIPE, None, None, True, False, None)
    with subprocess.Popen(*before_env, env) as child:
        assert child.communicate()[0] == b"00-ours None\n"
    assert env == {}


def test_what_this_process_was_started_with_gives_way_and_what_the_application_sets_stays(
    install: Callable[..., SubprocessHook], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-start")
    monkeypatch.setenv("TRACESTATE", "start=1")
    install()
    assert shown() == "00-ours None"
    assert shown(env=dict(os.environ)) == "00-ours None"
    assert shown(env={"TRACEPARENT": "00-mine"}) == "00-mine None"
    monkeypatch.setenv("TRACEPARENT", "00-mine")
    assert shown() == "00-mine start=1"


@pytest.mark.parametrize("env", [None, {}])
def test_what_runs_before_the_program_may_change_what_it_inherits(
    install: Callable[..., SubprocessHook], monkeypatch: pytest.MonkeyPatch, env: dict[str, str] | None
) -> None:
    """`preexec_fn` in the child: it changes the inherited environment, and none that was given."""
    monkeypatch.setenv("TRACESTATE", "start=1")
    install()

    def preexec() -> None:
        os.environ["TRACESTATE"] = "mine=1"

    assert shown(env=env, preexec_fn=preexec) == ("00-ours None" if env == {} else "00-ours mine=1")
    assert shown(env=env, preexec_fn=int) == "00-ours None"


@pytest.mark.parametrize("refused", [3, fail])
def test_what_cannot_run_before_the_program_is_refused_as_ever(
    install: Callable[..., SubprocessHook], refused: Any
) -> None:
    said, depth = refusal(preexec_fn=refused)
    install()
    assert refusal(preexec_fn=refused) == (said, depth + 1)


def test_without_context_a_program_starts_with_what_was_asked_for(
    install: Callable[..., SubprocessHook], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    original = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def execute_child(self: Any, *args: Any) -> None:
        seen.append(args[6])
        original(self, *args)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", execute_child)
    install(dict)
    env = {"A": "b"}
    assert (shown(), shown(env=env)) == ("None None", "None None")
    assert seen[0] is None
    assert seen[1] is env


@pytest.mark.parametrize("way", ["exec", "shell"])
def test_a_program_of_a_loop_gets_the_context(
    install: Callable[..., SubprocessHook], lazy_loop_factory: LoopFactory, way: str
) -> None:
    async def show(**kwargs: Any) -> bytes:
        if way == "exec":
            child = await asyncio.create_subprocess_exec(*SHOW, stdout=subprocess.PIPE, **kwargs)
        else:
            command = "echo ${TRACEPARENT-None} ${TRACESTATE-None}"
            child = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE, **kwargs)
        return (await child.communicate())[0]

    async def main() -> list[bytes]:
        env: dict[str, str] = {}
        found = [await show(), await show(env=env), await show(env={"TRACEPARENT": "00-mine"})]
        found.append(await show(preexec_fn=lambda: os.putenv("TRACESTATE", "mine")))
        assert env == {}
        hook.remove()
        return [*found, await show()]

    hook = install()
    assert run(lazy_loop_factory, main()) == [
        b"00-ours None\n",
        b"00-ours None\n",
        b"00-mine None\n",
        b"00-ours mine\n",
        b"None None\n",
    ]


def test_a_later_patch_survives_our_removal(
    install: Callable[..., SubprocessHook], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = vars(subprocess.Popen)["__init__"]
    hook = install()
    ours, calls = vars(subprocess.Popen)["__init__"], []

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        calls.append("__init__")
        ours(self, *args, **kwargs)

    with monkeypatch.context() as patching:
        patching.setattr(subprocess.Popen, "__init__", __init__)
        hook.remove()
        assert shown() == "None None"
    assert calls == ["__init__"]
    subprocess.Popen.__init__ = original  # type: ignore[method-assign]


def test_our_trouble_stays_ours(install: Callable[..., SubprocessHook]) -> None:
    install(fail)
    assert shown() == "None None"


def refusal(**kwargs: Any) -> tuple[str, int]:
    """What `Popen` says to arguments that it does not take, and how deep its traceback is."""
    try:
        subprocess.Popen(**{"args": SHOW} | kwargs)
    except Exception as error:
        depth, traceback = 0, error.__traceback__
        while traceback:
            depth, traceback = depth + 1, traceback.tb_next
        return f"{type(error).__name__}: {error}", depth
    raise AssertionError("it is taken")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"args": ["/no/such/program"]},
        {"cwd": "/no/such/folder"},
        {"env": 3},
        {"env": ["A=b"]},
        {"env": {"A": 3}},
        {"env": {"A=": "b"}},
        {"env": {"A": "b\0"}},
        {"bufsize": "x"},
        {"nonsense": 1},
    ],
)
def test_what_popen_refuses_it_refuses_in_the_same_words(
    install: Callable[..., SubprocessHook], kwargs: dict[str, Any]
) -> None:
    said, depth = refusal(**kwargs)
    install()
    assert refusal(**kwargs) == (said, depth + 1)


def test_a_missing_encoding_is_blamed_on_the_program() -> None:
    """`-X warn_default_encoding` names the line that started the program, not one of ours."""
    program = """
import subprocess, sys
from otel_concurrency.hooks.processes.subprocesses import SubprocessHook
if "ours" in sys.argv:
    SubprocessHook(dict, list).install()
subprocess.run([sys.executable, "-S", "-c", ""], text=True, stdout=subprocess.PIPE)
subprocess.check_output([sys.executable, "-S", "-c", ""], text=True)
"""
    bare, ours = (
        subprocess.run(
            [sys.executable, "-X", "warn_default_encoding", "-c", program, *words],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for words in ([], ["ours"])
    )
    assert ("EncodingWarning" in bare) is (sys.version_info >= (3, 11))  # 3.10 says nothing of subprocess
    assert ours == bare


def test_popen_looks_as_it_did(install: Callable[..., SubprocessHook]) -> None:
    before = inspect.signature(subprocess.Popen), subprocess.Popen.__init__.__doc__
    install()
    assert (inspect.signature(subprocess.Popen), subprocess.Popen.__init__.__doc__) == before
