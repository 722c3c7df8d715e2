"""Log records that reach OpenTelemetry in another thread than that which logged them.

`logging.handlers.QueueHandler` hands a copy of a record to a listener, whose handlers then run in the
listener's thread: upstream's log handler, when it is one of these, takes whatever is current there. Here the
context of the place that logs is kept beside the copy, and is current again while the handler has it. A
record that was pickled has lost it, and tells of its thread and process what it says itself.

Leans on CPython `logging/handlers.py`, and on `opentelemetry.instrumentation.logging.handler` (0.66b).
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry.context import Context

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched


class QueuedLogHook:
    """Gives records that come out of a queue the context that they went in with.

    Args:
        here: Returns the context of the place that calls it, to be current elsewhere.
        told_by: Returns what a record of another thread says itself, as such a context.
    """

    def __init__(self, here: Callable[[], Context], told_by: Callable[[logging.LogRecord], Context]) -> None:
        self._here = here
        self._told_by = told_by
        # Not an attribute of the record: formatters print all of those.
        self._origins: weakref.WeakKeyDictionary[logging.LogRecord, Context] = weakref.WeakKeyDictionary()
        self._has_queued = False
        self._patches: list[Patch] = []
        self._stop_awaiting: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<QueuedLogHook {self._patches}>"

    def install(self) -> None:
        """Patch both ends; an upstream that is built differently is left alone."""
        if self._stop_awaiting is not None:
            return
        try:
            from opentelemetry.instrumentation.logging.handler import LoggingHandler
        except ImportError:
            return
        self._patch(LoggingHandler, "emit", self._emitting)
        self._stop_awaiting = when_imported("logging.handlers", self._join)

    def remove(self) -> None:
        """Put both back; what is queued keeps nothing."""
        if self._stop_awaiting is not None:
            self._stop_awaiting()
            self._stop_awaiting = None
        while self._patches:
            self._patches.pop().remove()
        self._origins.clear()

    def _join(self, handlers: ModuleType) -> None:
        # A subclass may have either of its own, and call the other one.
        self._patch(handlers.QueueHandler, "prepare", self._preparing)
        self._patch(handlers.QueueHandler, "enqueue", self._enqueuing)

    def _patch(self, owner: Any, name: str, make: Callable[[Any, Switch], Any]) -> None:
        patch = Patch(owner, name, switched(make))
        patch.install()
        self._patches.append(patch)

    def _preparing(self, original: Callable[[Any, Any], Any], switch: Switch) -> Any:
        def prepare(self_: Any, record: logging.LogRecord) -> Any:
            prepared = original(self_, record)
            if switch.is_on:
                self._note(prepared)
            return prepared

        return prepare

    def _enqueuing(self, original: Callable[[Any, Any], Any], switch: Switch) -> Any:
        def enqueue(self_: Any, record: Any) -> Any:
            if switch.is_on:
                self._note(record)
            return original(self_, record)

        return enqueue

    def _note(self, record: object) -> None:
        try:
            if isinstance(record, logging.LogRecord) and record not in self._origins:
                self._origins[record] = self._here()
                self._has_queued = True
        except Exception:  # a record that cannot be told from others, or held weakly
            pass

    def _emitting(self, original: Callable[[Any, Any], Any], switch: Switch) -> Any:
        def emit(self_: Any, record: logging.LogRecord) -> Any:
            origin = self._origin_of(record) if switch.is_on else None
            if origin is None:
                return original(self_, record)
            token = opentelemetry_context.attach(origin)
            try:
                return original(self_, record)
            finally:
                opentelemetry_context.detach(token)

        return emit

    def _origin_of(self, record: logging.LogRecord) -> Context | None:
        try:
            origin = self._origins.get(record) if self._has_queued else None
            if origin is not None or _is_from_here(record):
                return origin
            return self._told_by(record)
        except Exception:
            return None


def _is_from_here(record: logging.LogRecord) -> bool:
    """Whether this thread made the record; also where the program has switched that off in `logging`."""
    return record.thread in (threading.get_ident(), None) and record.process in (os.getpid(), None)
