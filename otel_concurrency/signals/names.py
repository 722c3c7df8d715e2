"""Every instrument and attribute key that we emit, once; `docs/metrics.md` is printed from here.

Names follow the semantic conventions' `naming.md`. `code.function.name`, `error.type`, `thread.*` and
`process.pid` are registered there; the `asyncio.*` and `otel_concurrency.*` ones are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCOPE_NAME = "otel_concurrency"
"""The instrumentation scope of everything we emit."""

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]

CODE_FUNCTION_NAME = "code.function.name"
ERROR_TYPE = "error.type"
EVENTLOOP_ID = "asyncio.eventloop.id"
EVENTLOOP_TYPE = "asyncio.eventloop.type"
TASK_OUTCOME = "asyncio.task.outcome"
TASK_STATE = "asyncio.task.state"
COMPONENT = "otel_concurrency.component"

PROCESS_PID = "process.pid"
THREAD_ID = "thread.id"
THREAD_NAME = "thread.name"
TASK_NAME = "asyncio.task.name"

ATTRIBUTE_MEANINGS = {
    CODE_FUNCTION_NAME: "`module.qualname` of the coroutine function, or `_other` beyond the limit",
    ERROR_TYPE: "qualified type of the exception, or `_other` beyond the limit; only with outcome `failed`",
    EVENTLOOP_ID: "`0` for the first event loop seen, then `1`, …, or `_other` beyond the limit",
    EVENTLOOP_TYPE: "`selector`, `proactor`, `uvloop`, `winloop` or `other`",
    TASK_OUTCOME: "`finished`, `failed`, `cancelled`, or `destroyed`: garbage-collected while pending",
    TASK_STATE: "`running`: inside a step; `scheduled`: ready to run; `waiting`: on a future",
    COMPONENT: "which part of us: `collection` is reading the probes and building data points",
    PROCESS_PID: "process that emitted the log record",
    THREAD_ID: "`threading.get_ident()` of the thread that emitted the log record",
    THREAD_NAME: "its name, where `threading` knows it",
    TASK_NAME: "name of the asyncio task that emitted the log record; absent outside a task",
}
"""Attribute key to its meaning and values."""

LOG_ATTRIBUTES = (THREAD_ID, THREAD_NAME, PROCESS_PID, TASK_NAME)
"""What every log record carries."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric.

    Attributes:
        name: Its name on the wire.
        unit: UCUM; where it is `s`, readings hold whole nanoseconds, and data points seconds.
        kind: Decides the shape of its data points and, per reader, their temporality.
        description: A sentence without its full stop.
        attributes: The attribute keys that its data points may carry.
    """

    name: str
    unit: str
    kind: Kind
    description: str
    attributes: tuple[str, ...] = ()


TASK_CREATED = Instrument("asyncio.task.created", "{task}", "counter", "Tasks made", (CODE_FUNCTION_NAME,))
TASK_COMPLETED = Instrument(
    "asyncio.task.completed",
    "{task}",
    "counter",
    "Tasks that ended; created minus completed is the number alive",
    (CODE_FUNCTION_NAME, TASK_OUTCOME, ERROR_TYPE),
)
TASK_DURATION = Instrument(
    "asyncio.task.duration",
    "s",
    "histogram",
    "From a task's creation to its end",
    (CODE_FUNCTION_NAME, TASK_OUTCOME),
)
TASK_START_DELAY = Instrument(
    "asyncio.task.start.delay",
    "s",
    "histogram",
    "From a task's creation to its first step",
    (CODE_FUNCTION_NAME,),
)
TASK_BUSY_TIME = Instrument(
    "asyncio.task.busy.time", "s", "counter", "Time spent inside steps", (CODE_FUNCTION_NAME,)
)
TASK_STEPS = Instrument("asyncio.task.steps", "{step}", "counter", "Steps begun", (CODE_FUNCTION_NAME,))
TASK_STEP_DURATION = Instrument(
    "asyncio.task.step.duration",
    "s",
    "histogram",
    "One run of a task between two awaits; the event loop serves nobody else meanwhile",
    (CODE_FUNCTION_NAME,),
)
TASK_COUNT = Instrument(
    "asyncio.task.count",
    "{task}",
    "updowncounter",
    "Tasks alive",
    (EVENTLOOP_ID, EVENTLOOP_TYPE, TASK_STATE),
)
TASK_AGE_MAX = Instrument(
    "asyncio.task.age.max",
    "s",
    "gauge",
    "Age of the oldest task alive",
    (EVENTLOOP_ID, EVENTLOOP_TYPE, CODE_FUNCTION_NAME),
)
TASKS_UNTRACKED = Instrument(
    "otel_concurrency.tasks.untracked",
    "{task}",
    "updowncounter",
    "Tasks alive that were made before we were there; no other metric counts them",
)
OVERHEAD_TIME = Instrument(
    "otel_concurrency.overhead.time", "s", "counter", "Time that we spent ourselves", (COMPONENT,)
)

INSTRUMENTS = (
    TASK_CREATED,
    TASK_COMPLETED,
    TASK_DURATION,
    TASK_START_DELAY,
    TASK_BUSY_TIME,
    TASK_STEPS,
    TASK_STEP_DURATION,
    TASK_COUNT,
    TASK_AGE_MAX,
    TASKS_UNTRACKED,
    OVERHEAD_TIME,
)
"""All of them, in the order of the page."""
