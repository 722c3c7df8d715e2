"""Where code runs: thread, task and request, as attributes of whatever it records there.

Asked for every span and every log record: nothing of OpenTelemetry's API is called, and nothing is imported.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.util.types import AnyValue

from otel_concurrency.signals.names import REQUEST_ID, TASK_NAME, THREAD_ID, THREAD_NAME
from otel_concurrency.signals.request_id import request_id_in

_TRIO = "trio._core._run"


def whereabouts(context: Context) -> dict[str, AnyValue]:
    """Return what is known of the place that calls this.

    Args:
        context: OpenTelemetry's, of the span or the log record.

    Returns:
        `thread.id`; `thread.name` where `threading` knows it; `asyncio.task.name` inside a task; `request_id`
        inside a request.
    """
    thread_id = threading.get_ident()
    found: dict[str, AnyValue] = {THREAD_ID: thread_id}
    # `threading.current_thread()` would register a dummy, for good, for a thread that C code started.
    thread = threading._active.get(thread_id)  # type: ignore[attr-defined]
    if thread is not None:
        found[THREAD_NAME] = thread.name
    # Asked first, as `asyncio.current_task()` raises where no loop runs.
    loop = asyncio._get_running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    if task is not None:
        found[TASK_NAME] = task.get_name()
    elif (trio := sys.modules.get(_TRIO)) is not None:
        # A variable of each thread's, there while a task runs. Source: `trio.lowlevel.current_task`.
        task = getattr(getattr(trio, "GLOBAL_RUN_CONTEXT", None), "task", None)
        if task is not None:
            found[TASK_NAME] = task.name
    if (request_id := request_id_in(context)) is not None:
        found[REQUEST_ID] = request_id
    return found


def fill_in(attributes: object, told: Mapping[str, AnyValue]) -> None:
    """Add attributes that are not set yet, as far as there is room.

    Args:
        attributes: Of a span or a log record that nobody else has yet.
        told: Values that need no checking; text is cut where the SDK would cut it.
    """
    if isinstance(attributes, BoundedAttributes) and attributes.max_value_len is None:
        # The SDK checks and locks for each value that is set, 1 µs apiece.
        target: MutableMapping[str, Any] = attributes._dict
    elif isinstance(attributes, MutableMapping):
        target = attributes
    else:
        return
    room = getattr(attributes, "maxlen", None)
    if room is None or len(target) + len(told) <= room:
        for key, value in told.items():
            target.setdefault(key, value)
        return
    for key, value in told.items():
        # A full mapping would drop its oldest entry, which is the application's.
        if key not in target and len(target) < room:
            target[key] = value
