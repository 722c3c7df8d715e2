"""The thread hook: who gets whose context, and what an application can see of it."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar
from typing import Any

import pytest

from otel_concurrency.hooks.threads.threads import HAS_CONTEXT, ThreadHook

variable: ContextVar[str] = ContextVar("variable", default="nothing")


@pytest.fixture
def hook() -> Iterator[ThreadHook]:
    hook = ThreadHook()
    yield hook
    hook.remove()


@pytest.fixture
def installed(hook: ThreadHook) -> ThreadHook:
    hook.install()
    return hook


@pytest.fixture(autouse=True)
def inside() -> Iterator[None]:
    token = variable.set("starter's")
    yield
    variable.reset(token)


class OwnRun(threading.Thread):
    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self.tell = tell

    def run(self) -> None:
        self.tell()


def timer(tell: Callable[[], None]) -> threading.Thread:
    return threading.Timer(0, tell)


def plain(tell: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=tell)


def seen_by(make: Callable[[Callable[[], None]], threading.Thread]) -> str:
    seen: list[str] = []
    thread = make(lambda: seen.append(variable.get()))
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.parametrize("make", [plain, OwnRun, timer])
def test_installed_a_thread_has_its_starter_s_context_and_removed_it_has_not(
    hook: ThreadHook, make: Callable[[Callable[[], None]], threading.Thread]
) -> None:
    without = seen_by(make)
    hook.install()
    assert seen_by(make) == "starter's"
    hook.remove()
    assert seen_by(make) == without


def test_it_is_the_context_of_start_and_not_of_the_constructor(installed: ThreadHook) -> None:
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(variable.get()))
    token = variable.set("later")
    thread.start()
    variable.reset(token)
    thread.join()
    assert seen == ["later"]


def test_it_is_a_copy(installed: ThreadHook) -> None:
    thread = threading.Thread(target=variable.set, args=("changed",))
    thread.start()
    thread.join()
    assert variable.get() == "starter's"


def test_removal_leaves_the_class_as_it_was(hook: ThreadHook) -> None:
    before = dict(vars(threading.Thread))
    hook.install()
    hook.install()
    assert dict(vars(threading.Thread)) != before
    hook.remove()
    assert dict(vars(threading.Thread)) == before


def test_a_later_patch_survives_our_removal(installed: ThreadHook, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = threading.Thread.start
    starts: list[threading.Thread] = []

    def start(self: threading.Thread) -> None:
        starts.append(self)
        ours(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        installed.remove()
        assert threading.Thread.start is start
        assert seen_by(plain) == ("nothing" if not _inherits() else "starter's")
        assert len(starts) == 1
    threading.Thread.start = _original_start  # type: ignore[method-assign]


_original_start = threading.Thread.start


def _inherits() -> bool:
    return bool(HAS_CONTEXT and getattr(sys.flags, "thread_inherit_context", False))


def test_a_thread_that_cannot_start_says_so_and_keeps_nothing(
    installed: ThreadHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("can't start new thread")

    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    thread = threading.Thread(target=print)
    before = dict(vars(thread))
    with monkeypatch.context() as patched:
        patched.setattr(threading, name, refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
    assert vars(thread) == before


def test_refusals_are_cpythons_own(installed: ThreadHook) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()

    class Uninitialised(threading.Thread):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match=r"__init__\(\) not called"):
        Uninitialised().start()


def test_nothing_is_left_on_a_thread(installed: ThreadHook) -> None:
    """Until 3.13 the context waits under a private name, no longer than until the thread runs."""
    kept: list[set[str]] = []
    thread = threading.Thread(target=lambda: kept.append(set(vars(thread))))
    names = set(vars(thread))
    thread.start()
    thread.join()
    assert kept[0] <= names


@pytest.mark.skipif(not HAS_CONTEXT, reason="Thread(context=) came with CPython 3.14")
def test_a_given_context_goes_first(installed: ThreadHook) -> None:
    given = Context()
    given.run(variable.set, "given")
    assert seen_by(lambda tell: threading.Thread(target=tell, context=given)) == "given"  # type: ignore[call-arg]
    assert seen_by(lambda tell: threading.Thread(target=tell, context=Context())) == "nothing"  # type: ignore[call-arg]


@pytest.mark.skipif(_inherits(), reason="here CPython itself hands contexts on")
def test_threads_that_serve_many_start_empty(installed: ThreadHook) -> None:
    seen: list[str] = []
    with ThreadPoolExecutor(1, initializer=lambda: seen.append(variable.get())) as pool:
        pool.submit(int).result()

    class Listens(logging.handlers.QueueListener):
        def handle(self, record: logging.LogRecord) -> None:
            seen.append(variable.get())

    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = Listens(messages)
    messages.put(logging.makeLogRecord({}))
    listener.start()
    listener.stop()
    assert seen == ["nothing", "nothing"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_traceback_shows_nothing_of_ours(installed: ThreadHook, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fails() -> None:
        raise ValueError("x")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    assert told[0].thread is thread
    frames = traceback.extract_tb(told[0].exc_traceback)
    assert [
        frame.filename
        for frame in frames
        if "otel_concurrency" in frame.filename and "tests" not in frame.filename
    ] == []
    assert frames[-1].name == "fails"


def test_a_fault_of_ours_costs_the_context_and_nothing_else(
    installed: ThreadHook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks() -> Context:
        raise RuntimeError("ours")

    monkeypatch.setattr("otel_concurrency.hooks.threads.threads.copy_context", breaks)
    seen = seen_by(plain)
    assert (seen == "nothing") or _inherits()
    assert _inherits() or "without the context" in caplog.text
