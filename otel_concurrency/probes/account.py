"""What the work of one request took, added up while it runs: on the span of the request, and on its tasks.

Who creates a task inside the request's span lets it share the account, by `ATTRIBUTE` of what is the current
span there. The native twin also follows the task in which the request began (native_source/account.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

ATTRIBUTE = "_otel_concurrency_account"
"""Under which a span has the account of the request that it is part of; also a stand-in for one."""

WAITED_FOR = ("executor", "lock", "db_pool", "http_pool")
"""What the work of a request waits for: a worker of a thread or process pool; a lock, semaphore or
condition; a connection of a database's pool; one of an HTTP client's."""
EXECUTOR, LOCK, DB_POOL, HTTP_POOL = range(len(WAITED_FOR))


class AccountRead(NamedTuple):
    """What an account holds.

    Attributes:
        tasks: Tasks that were created inside the request.
        busy_ns: Time inside the steps of these, and of the task in which the request began; a step inside a
            step counts once. None where nobody sees steps.
        start_delay_ns: What these tasks waited for their first steps, one added to the other; None as above.
        slow_steps: Steps that held their loop for as long as `TaskProbe.note_slow_steps` was told.
        waited: For each of `WAITED_FOR`, how often its tasks and work items, and that task, waited for it;
            and how long, one added to the other, in ns.
    """

    tasks: int
    busy_ns: int | None
    start_delay_ns: int | None
    slow_steps: int
    waited: tuple[tuple[int, int], ...]


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

    def add_wait(self, what: int, ns: int, /) -> None:
        """Count a wait that is over, for what an index of `WAITED_FOR` says."""
        ...

    def read(self) -> tuple[int, int | None, int | None, int, tuple[tuple[int, int], ...]]:
        """Return the fields of an `AccountRead`."""
        ...


class PureAccount:
    """The twin of the native one; nobody sees steps."""

    __slots__ = ("_is_open", "_outer", "_tasks", "_waited")

    def __init__(self) -> None:
        self._is_open = False
        self._outer: PureAccount | None = None
        self._tasks = 0
        self._waited = [(0, 0)] * len(WAITED_FOR)

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

    def add_wait(self, what: int, ns: int, /) -> None:
        """Count a wait that is over."""
        account: PureAccount | None = self
        while account is not None:
            if account._is_open:
                times, so_far_ns = account._waited[what]
                account._waited[what] = times + 1, so_far_ns + ns
            account = account._outer

    def read(self) -> AccountRead:
        """Return the numbers."""
        return AccountRead(self._tasks, None, None, 0, tuple(self._waited))


def account_in(origin: Any, span_key: object) -> Any:
    """Return the account of the span in a value of the origin variable, or None."""
    if span_key is None or not isinstance(origin, Mapping):
        return None
    return getattr(origin.get(span_key), ATTRIBUTE, None)
