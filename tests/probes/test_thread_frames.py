"""Frames of threads: whose, and where nobody may ask for them."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Iterator

import pytest

from otel_concurrency.probes import thread_frames as module
from otel_concurrency.probes.thread_frames import thread_frames


@pytest.fixture
def waiting() -> Iterator[int]:
    """A thread that waits: its ident."""
    began, end = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        end.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    began.wait()
    assert thread.ident is not None
    yield thread.ident
    end.set()
    thread.join()


@pytest.mark.skipif(not module._has_gil(), reason="without a GIL nothing is told")
def test_every_thread_but_this_one_is_told(waiting: int) -> None:
    frames = thread_frames()
    assert frames[waiting].f_globals["__name__"] in (__name__, "threading")
    assert threading.get_ident() not in frames


@pytest.mark.skipif(sys.version_info < (3, 12), reason="until 3.11 interpreters share their memory")
def test_beside_another_interpreter_nothing_is_told(waiting: int) -> None:
    """CPython would make frame objects for its threads that it cannot free."""
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    interpreters = importlib.import_module(name)
    other = interpreters.create()
    try:
        assert thread_frames() == {}
    finally:
        interpreters.destroy(other)
    assert waiting in thread_frames()


def test_without_a_gil_nothing_is_told(waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert thread_frames() == {}


@pytest.mark.parametrize("is_enabled", [True, False])
def test_311_collects_no_garbage_meanwhile(is_enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then as before."""
    seen: list[bool] = []
    monkeypatch.setattr(module, "_is_311", True)
    monkeypatch.setattr(sys, "_current_frames", lambda: seen.append(gc.isenabled()) or {})
    if not is_enabled:
        gc.disable()
    try:
        assert thread_frames() == {}
        assert (seen, gc.isenabled()) == ([False], is_enabled)
    finally:
        gc.enable()
