"""Where the time of a request went, on its span: what its own tasks were busy, and what they waited for.

A span of kind server or consumer gets an account when it starts; every span inside, and every task that is
created there, shares it (probes/account.py). When it ends, the sums become its attributes. They are sums over
all its tasks: five that wait side by side for a second have waited five.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AnyValue

from otel_concurrency.probes.account import ATTRIBUTE, Account, AccountRead
from otel_concurrency.signals import names
from otel_concurrency.signals.current_context import SPAN_KEY, get_current
from otel_concurrency.signals.whereabouts import fill_in

NS = 1_000_000_000
REQUESTS = (SpanKind.SERVER, SpanKind.CONSUMER)
"""The kinds of spans that are a request's."""

_WAITS = (
    names.REQUEST_EXECUTOR_WAIT,
    names.REQUEST_LOCK_WAIT,
    names.REQUEST_DB_POOL_WAIT,
    names.REQUEST_HTTP_POOL_WAIT,
)  # in the order of `WAITED_FOR`


class RequestTimes(SpanProcessor):
    """Gives requests their accounts, and their spans what these say.

    Args:
        new_account: Returns one for a request that begins.

    Attributes:
        is_on: Whether requests that start now get one.
    """

    def __init__(self, new_account: Callable[[], Account]) -> None:
        self._new_account = new_account
        self._has_begun = False
        self.is_on = True

    def __repr__(self) -> str:
        return f"<RequestTimes [{'on' if self.is_on else 'off'}]>"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span starts, in its task."""
        if not self.is_on:
            return
        try:
            is_request = span._kind in REQUESTS
            if not (is_request or self._has_begun):
                return
            context = get_current() if parent_context is None else parent_context
            # A `NonRecordingSpan` from another process has none, and a stand-in has that of its task.
            around = getattr(context.get(SPAN_KEY), ATTRIBUTE, None)
            if is_request:
                self._has_begun = True
                account = self._new_account()
                setattr(span, ATTRIBUTE, account)
                account.begin(around)
            elif around is not None:
                setattr(span, ATTRIBUTE, around)
        except Exception:  # an SDK that is built differently
            self.is_on = False

    def _on_ending(self, span: Span) -> None:
        if not self._has_begun or span.kind not in REQUESTS:
            return
        try:
            account: Account | None = getattr(span, ATTRIBUTE, None)
            if account is not None:
                account.end()
                # It takes nothing new any more, and nobody else has it yet.
                fill_in(span._attributes, request_times(AccountRead(*account.read())))
        except Exception:  # as above
            self.is_on = False


def request_times(read: AccountRead) -> dict[str, AnyValue]:
    """Return what an account says, as attributes; nothing of what is not known or never was."""
    told: dict[str, AnyValue] = {names.REQUEST_TASKS: read.tasks}
    if read.busy_ns is not None:
        told[names.REQUEST_BUSY_TIME] = read.busy_ns / NS
    if read.start_delay_ns is not None and read.tasks:
        told[names.REQUEST_SCHEDULED_TIME] = read.start_delay_ns / NS
    if read.slow_steps:
        told[names.REQUEST_SLOW_STEPS] = read.slow_steps
    for name, (times, ns) in zip(_WAITS, read.waited, strict=True):
        if times:
            told[name] = ns / NS
    return told
