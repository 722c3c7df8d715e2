from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.ending import shutdown_notice
from otel_concurrency.hooks.ending.shutdown_notice import ShutdownNotice, shutdown_reason

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nobody sends SIGTERM on Windows")


@pytest.fixture
def notice(monkeypatch: pytest.MonkeyPatch) -> Iterator[ShutdownNotice]:
    monkeypatch.setattr(shutdown_notice, "_told", (0, ""))
    before = signal.getsignal(signal.SIGTERM)
    notice = ShutdownNotice()
    notice.install()
    yield notice
    notice.remove()
    signal.signal(signal.SIGTERM, before)


def test_the_handler_is_called_as_before_and_looks_as_before(notice: ShutdownNotice) -> None:
    heard: list[Any] = []

    def handler(signum: int, frame: Any) -> None:
        heard.append((signum, frame.f_code.co_name, shutdown_reason()))

    signal.signal(signal.SIGTERM, handler)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert shutdown_reason() == ""
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [(signal.SIGTERM, "test_the_handler_is_called_as_before_and_looks_as_before", "SIGTERM")]
    assert signal.signal(signal.SIGTERM, signal.SIG_IGN) is handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_a_handler_that_was_there_before_is_heard_too_and_stays_when_we_go(notice: ShutdownNotice) -> None:
    notice.remove()

    def handler(signum: int, frame: Any) -> None: ...

    signal.signal(signal.SIGTERM, handler)
    again = ShutdownNotice()
    again.install()
    again.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert shutdown_reason() == "SIGTERM"
    again.remove()
    again.remove()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_other_signals_are_nobodys_business(notice: ShutdownNotice) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert shutdown_reason() == ""


def test_a_handler_of_an_event_loop_is_heard(notice: ShutdownNotice) -> None:
    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(ended.wait(), 30)
        assert loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(main())
    assert shutdown_reason() == "SIGTERM"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_not_about_to_end(notice: ShutdownNotice) -> None:
    shutdown_notice.note("SIGTERM")
    child = os.fork()
    if not child:
        os._exit(7 if shutdown_reason() == "" else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert shutdown_reason() == "SIGTERM"
