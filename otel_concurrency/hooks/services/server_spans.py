"""Keeps the span that a process was started with away from the requests that it serves.

Upstream's web instrumentors (asgi, wsgi, django, flask and others) make a server span of a request only
where there is no current span; else an inner one, which does not even look at the request's headers
(`opentelemetry.instrumentation.utils._start_internal_or_server_span`, 0.66b). For a server that a traced
program has started, the current span of every request would be that program's.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import context, trace

from otel_concurrency.hooks.patch import Patch

_NAME = "_start_internal_or_server_span"
_PACKAGE = "opentelemetry.instrumentation."
_HOME = f"{_PACKAGE}utils"


class ServerSpanHook:
    """Lets requests begin outside of one span.

    Args:
        span: The current span that is none of theirs.
    """

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._patches: list[Patch] = []

    def __repr__(self) -> str:
        return f"<ServerSpanHook {self._patches}>"

    def install(self) -> None:
        """Patch the function, also in modules that have imported it; a second call changes nothing."""
        if self._patches:
            return
        try:
            from opentelemetry.instrumentation import utils
        except ImportError:
            return
        original = getattr(utils, _NAME, None)
        for name, module in list(sys.modules.items()):
            if name.startswith(_PACKAGE) and original and vars(module).get(_NAME) is original:
                patch = Patch(module, _NAME, self._outside)
                patch.install()
                self._patches.append(patch)

    def remove(self) -> None:
        """Put it back; requests are again what upstream makes of them."""
        while self._patches:
            self._patches.pop().remove()

    def _outside(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        is_active = True

        @functools.wraps(original)
        def start_span(*args: Any, **kwargs: Any) -> Any:
            if not is_active or trace.get_current_span() is not self._span:
                return original(*args, **kwargs)
            # The caller gives back the token at the end: ours leads out of both contexts.
            token = context.attach(context.Context())
            try:
                span, _ = original(*args, **kwargs)
            except BaseException:
                context.detach(token)
                raise
            return span, token

        def silence() -> None:
            nonlocal is_active
            is_active = False

        return start_span, silence
