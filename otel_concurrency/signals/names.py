"""Every instrument and attribute key that we emit, once; `docs/metrics.md` is printed from here.

Names follow the semantic conventions' `naming.md`. `code.function.name`, `error.type`, `thread.*` and
`process.pid` are registered there; the `asyncio.*`, `python.*` and `otel_concurrency.*` ones are ours.
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
EXECUTOR_NAME = "python.executor.name"
EXECUTOR_TYPE = "python.executor.type"
EXECUTOR_TASK_OUTCOME = "python.executor.task.outcome"
WORKER_STATE = "python.executor.worker.state"
CRASH_REASON = "python.executor.worker.crash.reason"
COMPONENT = "otel_concurrency.component"

WORK_QUEUE_TIME = "python.executor.task.queue.time"

PROCESS_PID = "process.pid"
THREAD_ID = "thread.id"
THREAD_NAME = "thread.name"
TASK_NAME = "asyncio.task.name"

ATTRIBUTE_MEANINGS = {
    CODE_FUNCTION_NAME: "`module.qualname` of the (coroutine) function, or `_other` beyond the limit",
    ERROR_TYPE: "qualified type of the exception, or `_other` beyond the limit; only with outcome `failed`",
    EVENTLOOP_ID: "`0` for the first event loop seen, then `1`, …, or `_other` beyond the limit",
    EVENTLOOP_TYPE: "`selector`, `proactor`, `uvloop`, `winloop` or `other`",
    TASK_OUTCOME: "`finished`, `failed`, `cancelled`, or `destroyed`: garbage-collected while pending",
    TASK_STATE: "`running`: inside a step; `scheduled`: ready to run; `waiting`: on a future",
    EXECUTOR_NAME: "the pool's `thread_name_prefix` with digits cut, `asyncio` for an event loop's default "
    "executor, else where it was made, `module:line`; `_other` beyond the limit",
    EXECUTOR_TYPE: "`thread`, `process`, `interpreter`, `anyio` or `mp_pool` (of multiprocessing)",
    EXECUTOR_TASK_OUTCOME: "`finished`, `failed`, or `cancelled` before it began",
    WORKER_STATE: "`active`: runs something; `idle`: waits for work",
    CRASH_REASON: "how a worker was lost: a signal's name, `exit <code>`, or an exception's type",
    COMPONENT: "which part of us: `collection` is reading the probes and building data points",
    WORK_QUEUE_TIME: "from being handed in to the real start, in seconds",
    PROCESS_PID: "process that emitted the log record",
    THREAD_ID: "`threading.get_ident()` of the thread that emitted the log record",
    THREAD_NAME: "its name, where `threading` knows it",
    TASK_NAME: "name of the asyncio task that emitted the log record; absent outside a task",
}
"""Attribute key to its meaning and values."""

LOG_ATTRIBUTES = (THREAD_ID, THREAD_NAME, PROCESS_PID, TASK_NAME)
"""What every log record carries."""

SPAN_ATTRIBUTES = (CODE_FUNCTION_NAME, EXECUTOR_NAME, EXECUTOR_TYPE, WORK_QUEUE_TIME, ERROR_TYPE)
"""What the span of a process pool's work item carries."""


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
_POOL = (EXECUTOR_TYPE, EXECUTOR_NAME)
WORKER_COUNT = Instrument(
    "python.executor.worker.count", "{worker}", "updowncounter", "Workers of a pool", (*_POOL, WORKER_STATE)
)
WORKER_LIMIT = Instrument(
    "python.executor.worker.limit", "{worker}", "updowncounter", "Workers that a pool may have", _POOL
)
EXECUTOR_QUEUE_SIZE = Instrument(
    "python.executor.queue.size", "{task}", "updowncounter", "Work items waiting for a worker", _POOL
)
WORK_SUBMITTED = Instrument(
    "python.executor.task.submitted",
    "{task}",
    "counter",
    "Work items handed to a pool, rejected ones included",
    _POOL,
)
WORK_COMPLETED = Instrument(
    "python.executor.task.completed",
    "{task}",
    "counter",
    "Work items that ended; submitted minus completed, rejected and abandoned is the number alive",
    (*_POOL, EXECUTOR_TASK_OUTCOME, ERROR_TYPE),
)
WORK_REJECTED = Instrument(
    "python.executor.task.rejected",
    "{task}",
    "counter",
    "Work items that a pool refused, being shut down or broken",
    _POOL,
)
WORK_ABANDONED = Instrument(
    "python.executor.task.abandoned",
    "{task}",
    "counter",
    "Work items that nobody will run: their pool was shut down or died",
    _POOL,
)
WORK_UNRETRIEVED = Instrument(
    "python.executor.task.unretrieved",
    "{task}",
    "counter",
    "Failed futures that were let go of although nobody had looked at them",
    (*_POOL, ERROR_TYPE),
)
WORK_QUEUE_DURATION = Instrument(
    "python.executor.task.queue.duration",
    "s",
    "histogram",
    "From a work item's submission to its real start, in another process for instance",
    _POOL,
)
WORK_DURATION = Instrument(
    "python.executor.task.duration",
    "s",
    "histogram",
    "From a work item's start to its end",
    (*_POOL, CODE_FUNCTION_NAME),
)
WORK_TRANSFER_DURATION = Instrument(
    "python.executor.task.transfer.duration",
    "s",
    "histogram",
    "What sending a work item to another process and its result back took: neither queued nor running",
    _POOL,
)
WORKER_CRASHES = Instrument(
    "python.executor.worker.crashes", "{worker}", "counter", "Workers lost", (*_POOL, CRASH_REASON)
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
    WORKER_COUNT,
    WORKER_LIMIT,
    EXECUTOR_QUEUE_SIZE,
    WORK_SUBMITTED,
    WORK_COMPLETED,
    WORK_REJECTED,
    WORK_ABANDONED,
    WORK_UNRETRIEVED,
    WORK_QUEUE_DURATION,
    WORK_DURATION,
    WORK_TRANSFER_DURATION,
    WORKER_CRASHES,
    OVERHEAD_TIME,
)
"""All of them, in the order of the page."""
