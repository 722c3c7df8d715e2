"""What a Celery message tells of itself, and the header that we add when it is sent, as a trace adds its own.

It holds the time at which the message was sent; of a retry, when its first try was, a slash, and when this
one was. A retry comes with the headers of the try before (`celery/app/task.py`,
`Context.as_execution_options`), so all tries of a task know the first. That time tells tasks apart for which
a program uses the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from otel_concurrency.probes.shared_runs import run_key

HEADER = "otel_concurrency_sent"

_NO_FIRST = "0"  # a retry of what was sent without the header
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def stamp(headers: dict[str, Any], now_ns: int) -> None:
    """Write down in a message's headers that it is sent now."""
    if headers.get("retries"):
        before = headers.get(HEADER)
        first = before.partition("/")[0] if isinstance(before, str) else _NO_FIRST
        headers[HEADER] = f"{first}/{now_ns}"
    else:
        headers[HEADER] = str(now_ns)


def read(told: Mapping[str, Any]) -> tuple[int, str, str]:
    """Read what tells a try of a task from others, whenever and wherever its message is delivered.

    Args:
        told: What the message says: `request_dict` of a `celery.worker.request.Request`, or `vars` of a
            `celery.app.task.Context`, which is a task's `request`.

    Returns:
        Its key, when its task was sent first, and when its message was sent: ns since the epoch, or nothing.
    """
    header = told.get(HEADER)
    if header is None:
        header = (told.get("headers") or _NOTHING).get(HEADER)  # of the first task protocol
    first = sent = header if isinstance(header, str) else ""
    if "/" in first:
        first, _, sent = first.partition("/")
        if first == _NO_FIRST:
            first = ""
    key = run_key((told.get("id"), told.get("retries") or 0, told.get("replaced_task_nesting") or 0, first))
    return key, first, sent


def due_unix_ns(eta: object) -> int:
    """Return from when on a message may be run, ns since the epoch; 0 where nothing readable is said."""
    if isinstance(eta, str):
        try:
            eta = datetime.fromisoformat(eta)
        except ValueError:
            return 0
    if not isinstance(eta, datetime) or eta.tzinfo is None:
        return 0
    return int(eta.timestamp() * 1e9)
