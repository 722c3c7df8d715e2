"""Where a thread takes over the context of whoever started it: `threading.Thread.start`.

The whole context is copied, in `start`, so a `Timer`, a subclass with a `run` of its own and a thread made
long before all get the context that was current when they started. CPython has a place for it from 3.14 on
(`Thread._context`); a context that somebody gave goes first. Until 3.13 the copy waits under a private name
for `Thread._bootstrap_inner`, and then all of the thread's life runs in it, `threading.excepthook` included.

A thread that serves many (a pool's worker, the feeder of a queue, an exporter) keeps the context that CPython
gives it, normally an empty one: the starter's would mark all that it ever does as the starter's.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from otel_concurrency.hooks.attaching import ATTACH, Attaching, unbind_run
from otel_concurrency.hooks.patch import Patch, Patches
from otel_concurrency.probes.functions import name_parts

HAS_CONTEXT = sys.version_info >= (3, 14)
SERVING_MODULES = (
    "anyio.",
    "concurrent.futures.",
    "logging.",
    "multiprocessing.",
    "opentelemetry.",
    "otel_concurrency.",
    "trio.",
)
"""Where the code of threads that serve many comes from."""

_KEY = "_otel_concurrency_context"

_logger = logging.getLogger(__name__)


class ThreadHook:
    """Gives every thread a copy of its starter's context.

    Args:
        attaching: Where a copy is not all.
    """

    def __init__(self, attaching: Attaching | None = None) -> None:
        self._attaching = attaching or Attaching()
        patches = [Patch(threading.Thread, "start", self._start_with_context)]
        if not HAS_CONTEXT:
            patches.insert(0, Patch(threading.Thread, "_bootstrap_inner", _run_in_context))
        self._patches = Patches(patches)

    def __repr__(self) -> str:
        return f"<ThreadHook {self._patches}>"

    def install(self) -> None:
        """Patch `Thread`; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back, last first."""
        self._patches.remove()

    def _start_with_context(
        self, original: Callable[[Any], None]
    ) -> tuple[Callable[[Any], None], Callable[[], None]]:
        hook = self
        is_active = True

        @functools.wraps(original)
        def start(self: Any) -> None:
            gave = is_active and hook._give_context(self)
            try:
                original(self)
            except BaseException:  # it never ran: leave it as it was
                if gave:
                    _take_context(self)
                if is_active:
                    unbind_run(self)
                raise

        def silence() -> None:
            nonlocal is_active
            is_active = False

        return start, silence

    def _give_context(self, thread: Any) -> bool:
        """Return whether the thread got a context from us."""
        try:
            if serves_many(thread):
                return False
            if not HAS_CONTEXT:
                # Started before, or never initialised: the original refuses.
                if thread._started.is_set():
                    return False
                thread.__dict__[_KEY] = copy_context()
                gave = True
            else:
                gave = thread._context is None and not sys.flags.thread_inherit_context  # type: ignore[attr-defined]
                if gave:
                    thread._context = copy_context()
            if ATTACH in self._attaching.replaced:
                self._attaching.bind_run(thread)
        except AttributeError:
            return False
        except Exception:
            _logger.exception("A thread starts without the context of its starter")
            return False
        return gave


def serves_many(thread: threading.Thread) -> bool:
    """Tell whether a thread's code comes from what starts threads on behalf of all."""
    run = getattr(type(thread), "run", None)
    if run is not _plain_run:
        module = getattr(run, "__module__", None)
    else:
        module, _ = name_parts(getattr(thread, "_target", None))
    return isinstance(module, str) and module.startswith(SERVING_MODULES)


_plain_run = threading.Thread.run


def _take_context(thread: Any) -> None:
    if HAS_CONTEXT:
        thread._context = None
    else:
        thread.__dict__.pop(_KEY, None)


def _run_in_context(original: Callable[[Any], None]) -> tuple[Callable[[Any], None], Callable[[], None]]:
    @functools.wraps(original)
    def _bootstrap_inner(self: Any) -> None:
        context = self.__dict__.pop(_KEY, None)
        if context is None:
            original(self)
        else:
            context.run(original, self)

    return _bootstrap_inner, lambda: None  # silent by itself: nobody leaves a context any more
