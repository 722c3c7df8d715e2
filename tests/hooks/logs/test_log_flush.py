"""A process ends in silence."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider

from otel_concurrency.hooks.logs.log_flush import LogFlushHook


@pytest.fixture
def hook() -> Iterator[LogFlushHook]:
    before = vars(LoggingHandler)["flush"]
    hook = LogFlushHook()
    yield hook
    hook.remove()
    assert vars(LoggingHandler)["flush"] is before


def refused(self: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


def test_a_refused_thread_is_kept_back(hook: LogFlushHook, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = LoggingHandler(logger_provider=LoggerProvider(shutdown_on_exit=False))
    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError):
        handler.flush()
    hook.install()
    hook.install()
    handler.flush()
    hook.remove()
    with pytest.raises(RuntimeError):
        handler.flush()


def test_the_provider_is_still_flushed(hook: LogFlushHook, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = threading.Event()
    provider = LoggerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(provider, "force_flush", flushed.set)
    hook.install()
    LoggingHandler(logger_provider=provider).flush()
    assert flushed.wait(10)
