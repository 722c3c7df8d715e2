"""What a Celery message tells of itself, and the header that we add when it is sent, as a trace adds its own.

It holds the time at which the message was sent; of a retry, when its first try was, a slash, and when this
one was. A retry comes with the headers of the try before (`celery/app/task.py`,
`Context.as_execution_options`), so all tries of a task know the first. That time tells tasks apart for which
a program uses the same id.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from otel_concurrency.probes.shared_runs import run_key

HEADER = "otel_concurrency_sent"

_NO_FIRST = "0"  # a retry of what was sent without the header


def stamp(headers: dict[str, Any], now_ns: int) -> None:
    """Write down in a message's headers that it is sent now."""
    if headers.get("retries"):
        headers[HEADER] = f"{_first(headers.get(HEADER)) or _NO_FIRST}/{now_ns}"
    else:
        headers[HEADER] = str(now_ns)


class Message(NamedTuple):
    """One try of a task, as its message tells.

    Attributes:
        key: Stands for the try, whenever and wherever its message is delivered.
        is_stamped: Whether it is known when its task was sent first.
        sent_ns: When the message was sent, ns since the epoch; 0: unknown.
        eta: When it is to be run, as Celery has it.
    """

    key: int
    is_stamped: bool
    sent_ns: int
    eta: object

    @classmethod
    def received(cls, request: Any) -> Message:
        """Read a `celery.worker.request.Request`."""
        told = request.request_dict
        header = told.get(HEADER) or (told.get("headers") or {}).get(HEADER)
        return cls._of(
            request.id, told.get("retries"), told.get("replaced_task_nesting"), header, told.get("eta")
        )

    @classmethod
    def running(cls, request: Any) -> Message:
        """Read a `celery.app.task.Context`, which is a task's `request`."""
        told = vars(request)
        header = told.get(HEADER) or (request.headers or {}).get(HEADER)
        return cls._of(
            request.id, told.get("retries"), told.get("replaced_task_nesting"), header, told.get("eta")
        )

    @classmethod
    def _of(cls, task_id: Any, retries: Any, nesting: Any, header: Any, eta: Any) -> Message:
        first = _first(header)
        return cls(run_key(task_id, retries or 0, nesting or 0, first), bool(first), _last(header), eta)

    def due_for_ns(self, clock: Callable[[], int]) -> int:
        """Return since when it might be run, as a time ago; endless where it may be run at any time."""
        if not self.eta:
            return sys.maxsize
        eta = self.eta
        if isinstance(eta, str):
            try:
                eta = datetime.fromisoformat(eta)
            except ValueError:
                return sys.maxsize
        if not isinstance(eta, datetime) or eta.tzinfo is None:
            return sys.maxsize
        return clock() - int(eta.timestamp() * 1e9)


def _first(header: object) -> str:
    """Return when the first try was sent, or nothing."""
    first = header.partition("/")[0] if isinstance(header, str) else ""
    return "" if first == _NO_FIRST else first


def _last(header: object) -> int:
    """Return when this try was sent, or 0."""
    last = header.rpartition("/")[2] if isinstance(header, str) else ""
    return int(last) if last.isdecimal() else 0
