"""What a look at a thread tells: its frames, whom the loop has called, and what that calls."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_concurrency.probes.stacks import Stack, look, look_at_thread


@pytest.fixture
def looked_at() -> Iterator[Callable[..., Stack]]:
    """Run something on a loop in a thread, and look at it once it waits."""
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def looked_at(function: Callable[[threading.Event], Any]) -> Stack:
        async def main() -> None:
            await asyncio.create_task(function(is_over))

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        threads.append(thread)
        thread.start()
        while True:
            stack = look_at_thread(thread.ident or 0)
            if stack is not None and stack.call.endswith("wait") and stack.root.startswith(__name__):
                return stack
            time.sleep(0.001)

    yield looked_at
    is_over.set()
    for thread in threads:
        thread.join()


async def waits(is_over: threading.Event) -> None:
    is_over.wait()


async def calls_what_waits(is_over: threading.Event) -> None:
    helper(is_over)


def helper(is_over: threading.Event) -> None:
    is_over.wait()


def test_it_tells_the_coroutine_and_the_library_function_that_its_code_calls(
    looked_at: Callable[..., Stack],
) -> None:
    stack = looked_at(calls_what_waits)
    wait = "threading.Event.wait" if sys.version_info >= (3, 11) else "threading.wait"
    assert (stack.root, stack.call) == (f"{__name__}.calls_what_waits", wait)
    assert (stack.file, stack.line) == (__file__, helper.__code__.co_firstlineno + 1)
    assert stack.frames[0].startswith("threading.")
    own = [frame.partition(" ")[0] for frame in stack.frames if __name__ in frame]
    assert own == [f"{__name__}.helper", f"{__name__}.calls_what_waits"]


def test_a_wrapper_of_ours_is_not_whom_the_code_calls(looked_at: Callable[..., Stack]) -> None:
    """As `Thread.start` is one, which waits for its thread."""
    ours: dict[str, Any] = {"__name__": "otel_concurrency.hooks.threads.threads"}
    exec("def wrapper(is_over): is_over.wait()", ours)

    async def calls_a_wrapper(is_over: threading.Event) -> None:
        ours["wrapper"](is_over)

    stack = looked_at(calls_a_wrapper)
    wait = "threading.Event.wait" if sys.version_info >= (3, 11) else "threading.wait"
    assert (stack.root.rpartition(".")[2], stack.call) == ("calls_a_wrapper", wait)
    assert (stack.file, stack.line) == (__file__, calls_a_wrapper.__code__.co_firstlineno + 1)


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("from time import sleep as here\ndef f(): pass", "time.sleep"),
        ("import time\ndef f(): pass\nhere = time.sleep", "time.sleep"),
    ],
    ids=["from a module", "under another name"],
)
def test_a_c_function_goes_by_its_real_name(tmp_path: Path, source: str, call: str) -> None:
    file = tmp_path / "app.py"
    file.write_text(f"{source}\ndef g():\n    here(0)\n")
    namespace: dict[str, Any] = {"__name__": "app"}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    seen: list[Stack | None] = []

    def trace(frame: Any, event: str, argument: Any) -> None:
        if event == "c_call":
            seen.append(look(frame))

    sys.setprofile(trace)
    try:
        namespace["g"]()
    finally:
        sys.setprofile(None)
    assert [(stack.call, stack.frames[0].split()[0], stack.root) for stack in seen[:1] if stack] == [
        (call, "app.g", "")
    ]


def test_a_look_reads_no_file(tmp_path: Path) -> None:
    """Who reads one lets go of the GIL, and the thread goes on before it was looked at."""
    file = tmp_path / "app.py"
    file.write_text("import sys\ndef g():\n    return sys._getframe(0)\n")
    namespace: dict[str, Any] = {"__name__": "app"}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    stack = look(namespace["g"]())
    assert stack is not None
    assert not stack.is_call_at_hand
    assert (stack.call, stack.line) == ("sys._getframe", 3)
    assert stack.is_call_at_hand


def test_nobody_is_seen_in_a_thread_that_is_gone() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert look_at_thread(thread.ident or 0) is None
