"""What tasks have done since the last window, and how long requests took, compared with the hour before."""

from __future__ import annotations

from collections import deque
from functools import reduce

from otel_concurrency.diagnosis.flow_rules import BASELINE_FACTOR
from otel_concurrency.diagnosis.loop_meter import p95_s
from otel_concurrency.diagnosis.window import RequestNumbers, TaskNumbers
from otel_concurrency.probes.histogram import HistogramState, merge_states, state_since
from otel_concurrency.probes.readers import Readers
from otel_concurrency.probes.tasks import TaskCount

SERVES = "run_asgi"
"""What the task of a request is called under uvicorn and hypercorn; elsewhere it is a guess."""

BASELINE_S = 3_600.0
BASELINE_WINDOWS = 10
BASELINE_STEP_S = 300.0
LEAST_BASELINE = 100

_NOTHING = HistogramState()


class TaskMeter:
    """Reads the task probe."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._before: dict[str, TaskCount] = {}
        self._past: deque[tuple[float, HistogramState]] = deque()
        self._windows = 0
        self.serves = ""
        self._now_s = 0.0
        self._before = {row.function: row for row in self._rows()}

    def read(self, elapsed_s: float) -> tuple[tuple[TaskNumbers, ...], RequestNumbers]:
        """Return the numbers since the last time."""
        rows = self._rows()
        before, self._before = self._before, {row.function: row for row in rows}
        new = {
            row.function: state_since(before[row.function].finished, row.finished)
            if row.function in before
            else row.finished
            for row in rows
        }
        tasks = tuple(_numbers(before.get(row.function), row, new[row.function]) for row in rows)
        return tasks, self._requests(rows, new, elapsed_s)

    def _rows(self) -> list[TaskCount]:
        return [row for read in self._readers.of("tasks") for row in read()]

    def _requests(
        self,
        rows: list[TaskCount],
        new: dict[str, HistogramState],
        elapsed_s: float,
    ) -> RequestNumbers:
        self._now_s += elapsed_s
        self._windows += 1
        ended = [row for row in rows if row.finished.count]
        asgi = [row for row in ended if row.function.endswith(SERVES)]
        most = _most_like_requests(asgi or ended, self.serves)
        if most is None:
            return RequestNumbers()
        if most.function != self.serves:
            self.serves = most.function
            self._past.clear()
            self._windows = 0
        now = new[most.function]
        baseline_s = self._baseline(now)
        return RequestNumbers(now.count, p95_s(now), baseline_s, most.live)

    def _baseline(self, now: HistogramState) -> float | None:
        """Return the p95 of the last hour, and add this window to it unless it is much slower."""
        past = self._past
        while past and self._now_s - past[0][0] > BASELINE_S:
            past.popleft()
        so_far = reduce(merge_states, (state for _, state in past), _NOTHING)
        is_known = self._windows >= BASELINE_WINDOWS and so_far.count >= LEAST_BASELINE
        baseline_s = p95_s(so_far) if is_known else None
        if baseline_s is None or p95_s(now) < BASELINE_FACTOR * baseline_s:
            if past and self._now_s - past[-1][0] < BASELINE_STEP_S:
                began_s, state = past.pop()
                past.append((began_s, merge_states(state, now)))
            else:
                past.append((self._now_s, now))
        return baseline_s


def _most_like_requests(rows: list[TaskCount], before: str) -> TaskCount | None:
    """Return the function that ends most often, of equals the longest; the one of before while it is one."""
    most = max((row.finished.count for row in rows), default=0)
    equals = [row for row in rows if 2 * row.finished.count >= most]
    known = next((row for row in equals if row.function == before), None)
    return (
        known
        if known is not None
        else max(equals, key=lambda row: row.finished.sum_ns / row.finished.count, default=None)
    )


def _numbers(before: TaskCount | None, now: TaskCount, finished: HistogramState) -> TaskNumbers:
    if before is None or before.created > now.created:
        before = TaskCount(now.function, 0, 0, 0, 0, 0, _NOTHING)
    return TaskNumbers(
        now.function,
        created=now.created - before.created,
        completed=now.done - before.done,
        live=now.live,
        created_ever=now.created,
        completed_ever=now.done,
        busy_s=max(0, now.busy_ns - before.busy_ns) / 1e9,
        steps=max(0, now.steps - before.steps),
        finished=finished.count,
        median_s=finished.quantile_s(0.5) if finished.count else 0.0,
        longest_s=finished.max_ns / 1e9,
        sees_steps=now.sees_steps,
    )
