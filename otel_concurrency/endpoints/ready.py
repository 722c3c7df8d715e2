"""`/ready`: whether the program can take work now: it may be about to end, or have too much to do."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import asdict, replace
from typing import Any

from otel_concurrency import readiness, snapshot
from otel_concurrency.endpoints.health import loops_now
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, json_response
from otel_concurrency.hooks.ending.shutdown_notice import shutdown_reason
from otel_concurrency.instrumentors import event_loops
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.signals.points import difference
from otel_concurrency.snapshot import Snapshot

BACKLOG = 10
"""How many work items for each of its workers are too many to wait for an executor."""

WINDOW_S = 10.0
"""Over how long at least loops' delays are judged, once the program has run for so long."""

_QUANTILE = 0.95
_MARKS = 8

_Delays = dict[tuple[int | None, str], HistogramState]


class Ready:
    """Answers `/ready`.

    Args:
        limit_s: How late an event loop may be, and how long a pool may let others wait.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._delays = Delays()

    def __call__(self, request: Request) -> Response:
        """Answer."""
        began = time.monotonic()
        reason = shutdown_reason()
        checks = [asdict(result) for result in readiness.run_checks(_a_loop)]
        loops = loops_now()
        delays = self._delays.p95(time.monotonic())
        for loop in loops:
            delay_s = delays.get((loop["id"], loop["type"]))
            loop["delay_p95_s"] = delay_s
            loop["late"] = max(loop["blocked_for_s"] or 0.0, delay_s or 0.0) > self._limit_s
        seen = snapshot.take_levels()
        pools, executors = self._pools(seen), _executors(seen)
        troubles = [
            *([f"told to end: {reason}"] if reason else []),
            *(f"check {check['name']}: {check['error']}" for check in checks if not check["ok"]),
            *(f"event loop {loop['id']} is late" for loop in loops if loop["late"]),
            *(f"pool {pool['name']} is exhausted" for pool in pools if pool["saturated"]),
            *(f"executor {each['name']} has too much to do" for each in executors if each["saturated"]),
        ]
        content = {
            "status": "not ready" if troubles else "ready",
            "troubles": troubles,
            "pid": os.getpid(),
            "shutting_down": reason or None,
            "checks": checks,
            "loops": loops,
            "pools": pools,
            "executors": executors,
            "took_s": round(time.monotonic() - began, 4),
        }
        return json_response(content, 503 if troubles else 200)

    def _pools(self, seen: Snapshot) -> list[dict[str, Any]]:
        return [
            {
                "kind": pool.kind,
                "name": pool.name,
                "used": pool.used,
                "limit": pool.limit,
                "pending": pool.pending,
                "longest_wait_s": pool.longest_wait_s,
                "saturated": pool.pending > 0 and (pool.longest_wait_s or 0.0) > self._limit_s,
            }
            for pool in seen.pools
        ]


def _executors(seen: Snapshot) -> list[dict[str, Any]]:
    return [
        {
            "kind": each.kind,
            "name": each.name,
            "active": each.active,
            "limit": each.limit,
            "queued": each.queued,
            "saturated": bool(each.limit)
            and (each.active or 0) >= (each.limit or 0)
            and (each.queued or 0) >= BACKLOG * (each.limit or 0),
        }
        for each in seen.executors
    ]


class Delays:
    """How late event loops were of late: what they have counted since they were looked at before."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, _Delays]] = []
        self._lock = threading.Lock()

    def p95(self, now: float) -> dict[tuple[int | None, str], float | None]:
        """Return the delay, in s, that 95 of 100 callbacks had at most, by the id and type of loops.

        Args:
            now: Monotonic time, s.
        """
        current = {(row.loop_id, row.loop_type): row.time.delays for row in event_loops.loop_rows()}
        with self._lock:
            old = [delays for at, delays in self._marks if now - at >= WINDOW_S]
            young = [delays for at, delays in self._marks if now - at >= WINDOW_S / _MARKS]
            before: _Delays = old[-1] if old else young[0] if young else {}
            while len(self._marks) > 1 and now - self._marks[1][0] >= WINDOW_S:
                self._marks.pop(0)
            if not self._marks or now - self._marks[-1][0] >= WINDOW_S / _MARKS:
                self._marks.append((now, current))
        found: dict[tuple[int | None, str], float | None] = {}
        for key, state in current.items():
            recent = difference(state, before.get(key, HistogramState()))
            # The extremes of a part are not known: those of the whole bound them.
            recent = replace(recent, min_ns=0, max_ns=state.max_ns)
            found[key] = round(recent.quantile_s(_QUANTILE), 6) if recent.count else None
        return found


def _a_loop() -> asyncio.AbstractEventLoop | None:
    for timed in event_loops.running_loops():
        loop = timed.reference()
        if isinstance(loop, asyncio.AbstractEventLoop):
            return loop
    return None
