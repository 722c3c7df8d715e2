"""Where a copy of the `contextvars` context is not all: OpenTelemetry's own has to be attached as well.

Another runtime context than OpenTelemetry's default may keep the current context anywhere, in thread locals
for instance. And who has replaced `attach` of the one at hand, to know which span a thread works for, hears
of a thread only if something is attached in it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container
from typing import Any, Protocol

from otel_concurrency.probes.functions import name_parts

ATTACH = "attach"

_OWN = "_otel_concurrency_own"  # of what stands for a thread's run: what its instance had under that name

_logger = logging.getLogger(__name__)


class ContextApi(Protocol):
    """The part of `opentelemetry.context` that is asked; each function when it is needed, not before."""

    def get_current(self) -> Any:
        """Return the current context."""
        ...

    def attach(self, context: Any, /) -> Any:
        """Make a context the current one; returns a token."""
        ...

    def detach(self, token: Any, /) -> None:
        """Put back what was current before a token was given."""
        ...


class Attaching:
    """Attaches the submitter's context where the work is done, while that is asked for.

    Args:
        api: OpenTelemetry's functions; None where there is nothing to attach.
        replaced: Asks for it as long as it contains `ATTACH`: cheap enough to look at for every work item.
    """

    def __init__(self, api: ContextApi | None = None, replaced: Container[str] = ()) -> None:
        self.replaced = replaced
        self._api = api

    def bind(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Callable[..., Any]:
        """Return a function of the same name that attaches what is current now around each call.

        Args:
            function: What to call.
            args: Its positional arguments, for where its name is found among them.
        """
        api = self._api
        if api is None:
            return function
        try:
            current = api.get_current()
        except Exception:
            _logger.exception("Work starts without the context of its submitter")
            return function

        def attached(*args: Any, **kwargs: Any) -> Any:
            try:
                token = api.attach(current)
            except Exception:
                _logger.exception("Work runs without the context of its submitter")
                token = None
            try:
                return function(*args, **kwargs)
            finally:
                if token is not None:
                    api.detach(token)

        attached.__module__, attached.__qualname__ = name_parts(function, args)  # type: ignore[assignment]
        return attached

    def bind_run(self, thread: threading.Thread) -> None:
        """Have a thread that is about to start attach what is current now around its `run`.

        Not earlier in its life: before that the thread is not among those that `threading` knows.
        """
        attached = self.bind(thread.run)

        def run() -> None:
            unbind_run(thread)
            attached()

        setattr(run, _OWN, vars(thread).get("run"))
        vars(thread)["run"] = run


def unbind_run(thread: threading.Thread) -> None:
    """Leave a thread's `run` as it was before `bind_run`, if that had to do with it."""
    kept = vars(thread)
    run = kept.get("run")
    if (own := getattr(run, _OWN, thread)) is thread:
        return
    if own is None:
        del kept["run"]
    else:
        kept["run"] = own
