"""What is attached around work, and that work is done whatever comes of that."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from otel_concurrency.hooks.attaching import ATTACH, Attaching, unbind_run
from otel_concurrency.hooks.threads.threads import ThreadHook
from otel_concurrency.probes.functions import function_name


class Api:
    """Keeps what it is told, and says what a test wants it to say."""

    def __init__(self, token: object = "token", trouble: str = "") -> None:
        self.told: list[object] = []
        self.current = "submitter's"
        self._token = token
        self._trouble = trouble

    def get_current(self) -> str:
        self._fail("get_current")
        return self.current

    def attach(self, context: object) -> object:
        self._fail("attach")
        self.told.append(("attach", context))
        return self._token

    def detach(self, token: object) -> None:
        self.told.append(("detach", token))

    def _fail(self, what: str) -> None:
        if what == self._trouble:
            raise LookupError(what)


api = Api()


def work(number: int, *, fails: bool = False) -> int:
    if fails:
        raise ZeroDivisionError
    return number + 1


def test_what_was_current_when_it_was_submitted_is_attached_around_each_call() -> None:
    api = Api()
    bound = Attaching(api).bind(work)
    api.current = "somebody else's"
    assert [bound(1), bound(number=2)] == [2, 3]
    assert api.told == [("attach", "submitter's"), ("detach", "token")] * 2


def test_it_is_detached_after_a_failure_too() -> None:
    api = Api()
    with pytest.raises(ZeroDivisionError):
        Attaching(api).bind(work)(1, fails=True)
    assert api.told == [("attach", "submitter's"), ("detach", "token")]


def test_without_a_token_there_is_nothing_to_detach() -> None:
    api = Api(token=None)
    assert Attaching(api).bind(work)(1) == 2
    assert api.told == [("attach", "submitter's")]


@pytest.mark.parametrize("trouble", ["get_current", "attach"])
def test_work_is_done_whatever_becomes_of_it(trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    api = Api(trouble=trouble)
    assert Attaching(api).bind(work)(1) == 2
    assert api.told == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("function", [work, functools.partial(work, 1), [].append, Api().detach, int])
def test_it_counts_under_the_name_of_what_it_calls(function: Callable[..., Any]) -> None:
    assert function_name(Attaching(Api()).bind(function)) == function_name(function)


def test_to_thread_s_function_keeps_its_name() -> None:
    run = contextvars.copy_context().run
    assert function_name(Attaching(Api()).bind(run, (work, 1))) == function_name(work)


class OwnRun(threading.Thread):
    """What it ran, and as whom."""

    seen: list[object]

    def run(self) -> None:
        self.seen = [threading.current_thread(), *api.told]


def test_a_thread_s_own_run_is_called_and_nothing_stays_on_it() -> None:
    api.told.clear()
    thread = OwnRun()
    attributes = {*vars(thread), "seen"}
    Attaching(api).bind_run(thread)
    thread.start()
    thread.join()
    assert thread.seen == [thread, ("attach", "submitter's")]
    assert api.told == [("attach", "submitter's"), ("detach", "token")]
    assert {*vars(thread)} == attributes


def test_an_instance_s_own_run_is_put_back() -> None:
    thread = threading.Thread()
    own = thread.run = lambda: None  # type: ignore[method-assign]
    Attaching(api).bind_run(thread)
    assert thread.run is not own
    unbind_run(thread)
    unbind_run(thread)
    assert thread.run is own


def test_a_thread_that_cannot_start_keeps_nothing() -> None:
    hook = ThreadHook(Attaching(api, {ATTACH: None}))
    hook.install()
    try:
        thread = threading.Thread()
        thread.start()
        thread.join()
        attributes = {**vars(thread)}
        with pytest.raises(RuntimeError, match="can only be started once"):
            thread.start()
    finally:
        hook.remove()
    assert vars(thread) == attributes


def test_without_anything_to_attach_a_function_stays_what_it_is() -> None:
    assert Attaching().bind(work) is work
