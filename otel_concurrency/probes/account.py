"""What the work of one request took, added up while it runs: on the span of the request, and on its tasks.

Who creates a task inside the request's span lets it share the account, by `ATTRIBUTE` of what is the current
span there. The native twin also follows the task in which the request began (native_source/account.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

ATTRIBUTE = "_otel_concurrency_account"
"""Under which a span has the account of the request that it is part of; also a stand-in for one."""


class AccountRead(NamedTuple):
    """What an account holds.

    Attributes:
        tasks: Tasks that were created inside the request.
        busy_ns: Time inside the steps of these, and of the task in which the request began; a step inside a
            step counts once. None where nobody sees steps.
        start_delay_ns: What these tasks waited for their first steps, one added to the other; None as above.
        slow_steps: Steps that held their loop for as long as `TaskProbe.note_slow_steps` was told.
        queued: Work items of thread and process pools that were handed in inside the request, and have run.
        queue_ns: What these waited for a worker, one added to the other.
    """

    tasks: int
    busy_ns: int | None
    start_delay_ns: int | None
    slow_steps: int
    queued: int
    queue_ns: int


class Account(Protocol):
    """The account of one request; what comes before its begin or after its end is not counted."""

    def begin(self, outer: object = None, /) -> None:
        """Count from now on; the steps of the task that runs now, too.

        Args:
            outer: The account of a request around this one, which counts the same.
        """
        ...

    def end(self) -> None:
        """Count up to now."""
        ...

    def add_task(self) -> None:
        """Count a task whose steps nobody sees."""
        ...

    def add_queue(self, ns: int, /) -> None:
        """Count a work item that has waited for a worker."""
        ...

    def read(self) -> tuple[int, int | None, int | None, int, int, int]:
        """Return the fields of an `AccountRead`."""
        ...


class PureAccount:
    """The twin of the native one; nobody sees steps."""

    __slots__ = ("_is_open", "_outer", "_queue_ns", "_queued", "_tasks")

    def __init__(self) -> None:
        self._is_open = False
        self._outer: PureAccount | None = None
        self._tasks = self._queued = self._queue_ns = 0

    def begin(self, outer: object = None, /) -> None:
        """Count from now on."""
        self._is_open = True
        self._outer = outer if isinstance(outer, PureAccount) and outer is not self else None

    def end(self) -> None:
        """Count nothing any more."""
        self._is_open = False

    def add_task(self) -> None:
        """Count a task."""
        account: PureAccount | None = self
        while account is not None:
            account._tasks += account._is_open
            account = account._outer

    def add_queue(self, ns: int, /) -> None:
        """Count a work item that has waited for a worker."""
        account: PureAccount | None = self
        while account is not None:
            if account._is_open:
                account._queued += 1
                account._queue_ns += ns
            account = account._outer

    def read(self) -> AccountRead:
        """Return the numbers."""
        return AccountRead(self._tasks, None, None, 0, self._queued, self._queue_ns)


def account_in(origin: Any, span_key: object) -> Any:
    """Return the account of the span in a value of the origin variable, or None."""
    if span_key is None or not isinstance(origin, Mapping):
        return None
    return getattr(origin.get(span_key), ATTRIBUTE, None)
