"""Lets the trace go on in other processes: those of multiprocessing, programs that are started, and this one.

`subprocesses` and `inherit_trace` are its settings; see `docs/propagation.md`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from contextvars import Token
from dataclasses import fields
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import ChildProcessOptions, Config
from otel_concurrency.hooks.processes.processes import ProcessHook
from otel_concurrency.hooks.processes.subprocesses import SubprocessHook
from otel_concurrency.hooks.services.server_spans import ServerSpanHook
from otel_concurrency.signals import carriers, inherited


class ChildProcessInstrumentor(BaseInstrumentor):
    """Hands the context to children, and takes up the one that this process was started with.

    Options are the fields of `ChildProcessOptions`; what is not given comes from the environment.
    """

    configuration = ChildProcessOptions

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: it is all in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {field.name: kwargs.get(field.name) for field in fields(ChildProcessOptions)}
        config = Config.from_options(options, os.environ)
        self._hooks: list[Any] = [
            ProcessHook(carriers.capture, carriers.restore, inherited.of_forked_child),
        ]
        if config.subprocesses:
            self._hooks.append(SubprocessHook(carriers.capture, _fields))
        # Another thread is not where the program runs; what it starts with there is its own.
        if config.inherit_trace and threading.current_thread() is threading.main_thread():
            base = inherited.from_environment(os.environ)
            if base is not None:
                self._hooks.append(_Base(base))
                span = trace.get_current_span(base)
                if span.get_span_context().is_valid:
                    self._hooks.append(ServerSpanHook(span))
        for hook in self._hooks:
            hook.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        while self._hooks:
            self._hooks.pop().remove()


class _Base:
    """The context in which the program begins."""

    def __init__(self, base: Context) -> None:
        self._base = base
        self._token: Token[Context] | None = None

    def install(self) -> None:
        if not context.get_current():  # a program that starts us inside of something goes on inside of it
            self._token = context.attach(self._base)

    def remove(self) -> None:
        if self._token is not None and context.get_current() is self._base:
            context.detach(self._token)
        self._token = None


def _fields() -> Collection[str]:
    return propagate.get_global_textmap().fields
