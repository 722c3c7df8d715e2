"""`/health`: whether the program is alive. It may be busy; it is dead when a loop has not moved for long."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, json_response
from otel_concurrency.instrumentors import event_loops
from otel_concurrency.probes.loop_time import UNSEEN, TimedLoop
from otel_concurrency.probes.stacks import look_at_thread

BLOCKED_NS = 50_000_000
"""From when on an iteration of a loop is worth naming what it does."""


class Health:
    """Answers `/health`.

    Args:
        limit_s: How long an event loop may be blocked before the program counts as dead.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since = time.monotonic()

    def __call__(self, request: Request) -> Response:
        """Answer."""
        loops = loops_now()
        main_thread = threading.main_thread().is_alive()
        is_alive = main_thread and all((loop["blocked_for_s"] or 0) < self._limit_s for loop in loops)
        content = {
            "status": "alive" if is_alive else "dead",
            "pid": os.getpid(),
            "serving_for_s": round(time.monotonic() - self._since, 3),
            "main_thread": "alive" if main_thread else "ended",
            "limit_s": self._limit_s,
            "loops": loops,
        }
        return json_response(content, 200 if is_alive else 503)


def loops_now() -> list[dict[str, Any]]:
    """Return, for each event loop that runs, for how long it has been blocked, and where it stands."""
    return [_told(each) for each in event_loops.running_loops()]


def _told(timed: TimedLoop) -> dict[str, Any]:
    iteration_ns = timed.timer.read().iteration_ns
    told: dict[str, Any] = {
        "id": timed.loop_id,
        "type": timed.loop_type,
        "blocked_for_s": round(max(0, iteration_ns) / 1e9, 3),
    }
    if timed.way == UNSEEN:
        told["blocked_for_s"] = None  # nobody can tell
    if iteration_ns >= BLOCKED_NS:
        stack = look_at_thread(timed.thread_ident)
        if stack is not None:
            told["frame"] = stack.frames[0] if stack.frames else ""
            told["application"] = f"{stack.file}:{stack.line}"
            told["stack"] = list(stack.frames)
    return told
