"""Every instrument and attribute key that we emit, once; `docs/metrics.md` is printed from here.

Names follow the semantic conventions' `naming.md`. `code.function.name`, `error.type`, `thread.*` and
`process.pid` are registered there; the `asyncio.*`, `python.*`, `cpython.gc.pause.*`, `cpython.gil.*`,
`celery.*` and `otel_concurrency.*` ones are ours.
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
SYNC_TYPE = "asyncio.sync.type"
SYNC_NAME = "asyncio.sync.name"
QUEUE_NAME = "asyncio.queue.name"
LOOP_STATE = "asyncio.eventloop.state"
ITERATION_KIND = "asyncio.eventloop.iteration.kind"
DELAY_KIND = "asyncio.eventloop.delay.kind"
LOOP_EXCEPTION_CONTEXT = "asyncio.eventloop.exception.context"
TASK_OUTCOME = "asyncio.task.outcome"
TASK_STATE = "asyncio.task.state"
EXECUTOR_NAME = "python.executor.name"
EXECUTOR_TYPE = "python.executor.type"
EXECUTOR_TASK_OUTCOME = "python.executor.task.outcome"
WORKER_STATE = "python.executor.worker.state"
CRASH_REASON = "python.executor.worker.crash.reason"
FUNCTION_OUTCOME = "python.function.outcome"
LIMITER_NAME = "concurrency.limiter.name"
THREAD_STATE = "python.thread.state"
THREAD_SYNC_TYPE = "python.thread.sync.type"
STALL_CAUSE = "asyncio.eventloop.stall.cause"
STALL_ELAPSED = "asyncio.eventloop.stall.elapsed"
STALL_CALL = "asyncio.eventloop.stall.call"
STALL_OVERLAP = "concurrency.stall_overlap"
REQUEST_TASKS = "concurrency.task.count"
REQUEST_BUSY_TIME = "concurrency.busy_time"
REQUEST_SCHEDULED_TIME = "concurrency.scheduled_time"
REQUEST_SLOW_STEPS = "concurrency.slow_steps"
REQUEST_EXECUTOR_WAIT = "concurrency.wait.executor"
REQUEST_LOCK_WAIT = "concurrency.wait.lock"
REQUEST_DB_POOL_WAIT = "concurrency.wait.db_pool"
REQUEST_HTTP_POOL_WAIT = "concurrency.wait.http_pool"
POOL_WAIT_TIME = "pool.wait.time"
CONNECTION_POOL = "db.client.connection.pool.name"
CONNECTION_STATE = "db.client.connection.state"
CONNECTION_HOLDERS = "db.client.connection.holders"
CODE_STACKTRACE = "code.stacktrace"
GC_GENERATION = "cpython.gc.generation"
COMPONENT = "otel_concurrency.component"

HTTP_CONNECTION_STATE = "http.connection.state"
HTTP_REQUEST_METHOD = "http.request.method"
HTTP_POOL_NAME = "http.client.connection.pool.name"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
URL_SCHEME = "url.scheme"

WORK_QUEUE_TIME = "python.executor.task.queue.time"
TASK_SPAN_BUSY_TIME = "asyncio.task.busy.time"
TASK_SPAN_STEPS = "asyncio.task.steps"
TASK_SPAN_START_DELAY = "asyncio.task.start.delay"
SHUTDOWN_REASON = "process.shutdown.reason"
SHUTDOWN_ELAPSED = "process.shutdown.elapsed"
UNFINISHED_TASKS = "process.shutdown.unfinished.tasks"
UNFINISHED_WORK_ITEMS = "process.shutdown.unfinished.work_items"
CPU_MODE = "cpu.mode"
CONTEXT_SWITCH_TYPE = "process.context_switch.type"
PAGING_FAULT_TYPE = "system.paging.fault.type"
DISK_IO_DIRECTION = "disk.io.direction"

CODE_FILE_PATH = "code.file.path"
CODE_LINE_NUMBER = "code.line.number"
ENDPOINT_URL = "otel_concurrency.endpoint.url"
CELERY_TASK_NAME = "celery.task.name"
CELERY_TASK_OUTCOME = "celery.task.outcome"
CELERY_TASK_ID = "celery.task.id"
CELERY_TASK_TRY = "celery.task.try"
MESSAGING_DESTINATION = "messaging.destination.name"
SUPPRESSED = "otel_concurrency.events.suppressed"
FAILURE_KIND = "python.failure.kind"
CANCELLATION_REASON = "asyncio.cancellation.reason"
CANCELLED_BY = "asyncio.cancellation.by"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_MESSAGE = "exception.message"
EXCEPTION_STACKTRACE = "exception.stacktrace"
COROUTINE_NAME = "asyncio.task.coroutine.name"
PROCESS_PID = "process.pid"
THREAD_ID = "thread.id"
THREAD_NAME = "thread.name"
TASK_NAME = "asyncio.task.name"
REQUEST_ID = "request_id"
DIAGNOSIS_RULE = "concurrency.diagnosis.rule"
DIAGNOSIS_SEVERITY = "concurrency.diagnosis.severity"
DIAGNOSIS_SUBJECT = "concurrency.diagnosis.subject"
DIAGNOSIS_BOTTLENECK = "concurrency.diagnosis.bottleneck"
DIAGNOSIS_CULPRIT = "concurrency.diagnosis.culprit"
DIAGNOSIS_ADVICE = "concurrency.diagnosis.advice"
DIAGNOSIS_EVIDENCE = "concurrency.diagnosis.evidence"
DIAGNOSIS_CONFIDENCE = "concurrency.diagnosis.confidence"
DIAGNOSIS_SUPPRESSED = "concurrency.diagnosis.suppressed"
DIAGNOSIS_TRACES = "concurrency.diagnosis.traces"
DIAGNOSIS_SENTENCE = "concurrency.diagnosis.sentence"
LOG_OUTCOME = "otel_concurrency.log.outcome"
LOG_DROPPED = "otel_concurrency.log.dropped"

ATTRIBUTE_MEANINGS = {
    CODE_FUNCTION_NAME: "`module.qualname` of the (coroutine) function, or `_other` beyond the limit",
    ERROR_TYPE: "qualified type of the exception, or `_other` beyond the limit; only where there is one",
    EVENTLOOP_ID: "`0` for the first event loop seen, then `1`, …, or `_other` beyond the limit",
    SYNC_TYPE: "`lock`, `semaphore`, `condition`, `event`, `queue_get`, `queue_put` or `barrier`",
    SYNC_NAME: "where it was made, `module:line`, or `_other` beyond 50; only with "
    "`OTEL_PYTHON_CONCURRENCY_SYNC_WAITS=names`",
    QUEUE_NAME: "where it was made, `module:line`, or `_other` beyond 50: of all queues made there together",
    DIAGNOSIS_RULE: "the rule that has found it, see `docs/diagnosis.md`",
    DIAGNOSIS_SEVERITY: "`info`, `warn` or `crit`",
    DIAGNOSIS_SUBJECT: "what it is about: `loop 0`, `process`, the name of a pool or of a function",
    DIAGNOSIS_BOTTLENECK: "`io_wait`, `gil`, `contention` or `granularity`; only with a finding of these",
    DIAGNOSIS_CULPRIT: "who is to blame, in a few words",
    DIAGNOSIS_ADVICE: "what to do next",
    DIAGNOSIS_EVIDENCE: "JSON: a list of `name`, `value`, `unit` and `threshold`",
    DIAGNOSIS_CONFIDENCE: "`exact`, or `sampled n=` and the number of looks",
    DIAGNOSIS_SUPPRESSED: "rules that it explains away",
    DIAGNOSIS_TRACES: "ids of traces that were affected, five at most",
    DIAGNOSIS_SENTENCE: "the finding, in words",
    EVENTLOOP_TYPE: "`selector`, `proactor`, `uvloop`, `winloop`, `trio` or `other`",
    LOOP_STATE: "`idle`: waiting for events; `active`: the rest of the time that the loop ran",
    ITERATION_KIND: "how it began. `blocking`: with a wait for events; `polling`: callbacks being due, with "
    "a look, which found events; `empty`: with a look that found none; `unknown`: this loop does not tell",
    DELAY_KIND: "`callback`: of one that is due at once, as by `call_soon_threadsafe`",
    LOOP_EXCEPTION_CONTEXT: "what was reported: `task_never_retrieved`, `future_never_retrieved`, "
    "`task_destroyed_pending`, `callback`, `asyncgen`, `transport`, `server` or `other`",
    TASK_OUTCOME: "`finished`, `failed`, `cancelled`, or `destroyed`: garbage-collected while pending; of a "
    "task's span, `detached`, too: the task goes on in the trace that is linked",
    TASK_STATE: "`running`: inside a step; `scheduled`: ready to run; `waiting`: on a future, on trio until "
    "somebody reschedules it",
    EXECUTOR_NAME: "the pool's `thread_name_prefix` with digits cut, `asyncio` for an event loop's default "
    "executor, else where it was made, `module:line`; `_other` beyond the limit",
    EXECUTOR_TYPE: "`thread`, `process`, `interpreter`, `anyio`, `trio`, `mp_pool` (of multiprocessing), or "
    "`celery`: a worker's pool, by the name of its kind",
    EXECUTOR_TASK_OUTCOME: "`finished`, `failed`, or `cancelled` before it began",
    WORKER_STATE: "`active`: runs something; `idle`: waits for work",
    CRASH_REASON: "how a worker was lost: a signal's name, `exit <code>`, or an exception's type",
    THREAD_STATE: "`running`: on a CPU or ready for one; `syscall`: in the kernel; `sleep`; `lock_or_gil`: "
    "waits for either; `idle_worker`: waits for work (`lock_or_gil` in a process of several interpreters, or "
    "without a GIL); `unknown`: beyond 200 threads, or not to be seen here",
    THREAD_SYNC_TYPE: "`condition`, `event`, `semaphore`, `barrier`, `queue_get`, `queue_put`, `queue_join`, "
    "`thread_join`, or `future`: the result of a work item",
    FUNCTION_OUTCOME: "`finished`, `failed`, `cancelled`, or `closed`: a coroutine or generator that was "
    "left before its end",
    LIMITER_NAME: "as the program named the `AdaptiveLimiter`, or `_other` beyond 32 names",
    CPU_MODE: "`user` or `system`",
    CONTEXT_SWITCH_TYPE: "`voluntary` or `involuntary`",
    PAGING_FAULT_TYPE: "`minor`, or `major`: read from disk",
    DISK_IO_DIRECTION: "`read` or `write`",
    STALL_CAUSE: "`blocked_call`: in a call that waits; `cpu_python`: computing; `native_gil_held`: C code "
    "keeps the GIL; `gil_contention`: waiting for the GIL; `gc_pause`; `cpu_starved`: ready, without a CPU; "
    "`spin`: turning without anything to do; `unknown`",
    STALL_ELAPSED: "how long the stall took, or takes so far, in seconds",
    STALL_OVERLAP: "how long it was open while something else held its event loop, in seconds; absent where "
    "nothing did",
    REQUEST_TASKS: "how many tasks were created inside the request",
    REQUEST_BUSY_TIME: "time inside the steps of the request's tasks, the one in which it began included, in "
    "seconds; absent where steps are not seen",
    REQUEST_SCHEDULED_TIME: "what the tasks that were created inside the request waited for their first "
    "steps, one added to the other, in seconds; absent without tasks, and where steps are not seen",
    REQUEST_SLOW_STEPS: "how many of the request's steps held their event loop for as long as a stall takes; "
    "absent if none did",
    REQUEST_LOCK_WAIT: "how long the request's tasks, the one in which it began included, waited for locks, "
    "semaphores and conditions of asyncio, one added to the other, in seconds; absent without any",
    REQUEST_DB_POOL_WAIT: "how long the request waited for connections of databases' pools, one wait "
    "added to the other, in seconds; absent without any",
    REQUEST_HTTP_POOL_WAIT: "how long the request waited for connections of HTTP clients, one wait added "
    "to the other, in seconds; absent without any",
    REQUEST_EXECUTOR_WAIT: "what the work items that the request handed to thread and process pools waited "
    "for a worker, one added to the other, in seconds; absent without any",
    HTTP_CONNECTION_STATE: "`active`: serves a request; `idle`: kept for the next one",
    HTTP_REQUEST_METHOD: "`GET` and the like; `_OTHER`, if it is none that is known",
    URL_SCHEME: "`http` or `https`",
    HTTP_POOL_NAME: "where the client's session was made, `module:line`; `_other` beyond the limit",
    SERVER_ADDRESS: "host of the URL, `_other` beyond the limit",
    SERVER_PORT: "port of the URL",
    POOL_WAIT_TIME: "how long it waited, in seconds",
    CONNECTION_POOL: "what the program named it, else `server.address:server.port/db.namespace` as far as "
    "known; pools of one name add up; `_other` beyond 32 names",
    CONNECTION_STATE: "`used`: somebody has it; `idle`: it is open, and nobody does",
    CONNECTION_HOLDERS: "who had the pool's connections: the name of the task, or of the thread, that took "
    "each, and for how long it had it; ten at most, the longest first",
    STALL_CALL: "what it was calling: a library's function, or a C function as far as it can be named",
    CODE_STACKTRACE: "innermost frames that were seen most often during the stall, the innermost first",
    GC_GENERATION: "`0`, `1` or `2`: how old the objects are that were looked at",
    COMPONENT: "which part of us: `collection` is reading the probes and building data points",
    WORK_QUEUE_TIME: "from being handed in to the real start, in seconds",
    TASK_SPAN_BUSY_TIME: "time inside the task's steps, in seconds; the rest of its life it waited",
    TASK_SPAN_STEPS: "how many steps the task took",
    TASK_SPAN_START_DELAY: "from the task's creation to its first step, in seconds",
    SHUTDOWN_REASON: "`exit`: the main thread came to its end; else the name of the signal",
    SHUTDOWN_ELAPSED: "time since the shutdown started, in seconds",
    UNFINISHED_TASKS: "tasks alive, of asyncio and trio",
    UNFINISHED_WORK_ITEMS: "work items that run, or wait for a worker, in the pools that we see",
    CODE_FILE_PATH: "file in which the exception was raised, or where the work stood; of a task's span, of "
    "its coroutine function",
    CODE_LINE_NUMBER: "line of that file; of a task's span, where its function begins",
    FAILURE_KIND: "what Python gave up on: an exception that nobody caught in the main thread (`main`), a "
    "`thread` or a child `process`; one that is `unraisable`, in a `__del__` for instance; a "
    "`coroutine_never_awaited`; what an event loop reports: `task_never_retrieved`, "
    "`future_never_retrieved`, `task_destroyed_pending`, `callback`, `asyncgen`, `transport`, `server` or "
    "`other`; a pool's future that nobody looked at (`executor_future`); a `context_detach` that failed in "
    "OpenTelemetry",
    CANCELLATION_REASON: "of a span that ended because its task was cancelled: a `timeout`, a `task_group` "
    "in which another task failed, the end of the `gather` that waited for it, the `shutdown` of its event "
    "loop; else `unknown`",
    CANCELLED_BY: "name of the task that cancelled it, where it is known",
    EXCEPTION_TYPE: "qualified type of the exception",
    EXCEPTION_MESSAGE: "what it says",
    EXCEPTION_STACKTRACE: "its traceback, and those of its causes; the innermost 100 frames",
    COROUTINE_NAME: "`module.qualname` of the failed task's coroutine function",
    CELERY_TASK_NAME: "the task's name; `_other` beyond 50, `_unknown` where no task answers to a message",
    CELERY_TASK_OUTCOME: "`finished`, `failed`, `retried`, `ignored`, `rejected`, `requeued` (rejected, to "
    "be delivered again), or `revoked`",
    CELERY_TASK_ID: "the task's id, the same in all its tries",
    CELERY_TASK_TRY: "which try it is; the first is `0`",
    MESSAGING_DESTINATION: "routing key of the message, with Celery's own queues the queue's name; `_other` "
    "beyond 16",
    SUPPRESSED: "like events since the last one that was emitted, left out",
    PROCESS_PID: "process that emitted the log record; of spans and metrics it is in the resource",
    THREAD_ID: "`threading.get_ident()` of the thread that started the span or emitted the log record",
    THREAD_NAME: "of a span or a log record: the name of the thread that started or emitted it, where "
    "`threading` knows it; of a metric: the threads of a name, its numbers left out; `_unnamed`: those that "
    "`threading` does not know; `_other` beyond 32 names",
    TASK_NAME: "name of the task, of asyncio or trio, that started the span or emitted the log record, or "
    "whose span it is; absent outside a task",
    LOG_OUTCOME: "`written`, or `dropped`: too many waited already, or the file could not be written",
    REQUEST_ID: "what the request's header says, or an id that was made for it; absent outside a request",
}
"""Attribute key to its meaning and values."""

CANCELLATION_ATTRIBUTES = (CANCELLATION_REASON, CANCELLED_BY)
"""What a span carries that a cancellation has ended."""

IDENTITY_ATTRIBUTES = (THREAD_ID, THREAD_NAME, TASK_NAME, REQUEST_ID)
"""What every span carries."""

LOG_ATTRIBUTES = (THREAD_ID, THREAD_NAME, PROCESS_PID, TASK_NAME, REQUEST_ID)
"""What every log record carries."""

SPAN_ATTRIBUTES = (CODE_FUNCTION_NAME, EXECUTOR_NAME, EXECUTOR_TYPE, WORK_QUEUE_TIME, ERROR_TYPE)
"""What the span of a process pool's work item carries."""

REQUEST_ATTRIBUTES = (
    *(REQUEST_TASKS, REQUEST_BUSY_TIME, REQUEST_SCHEDULED_TIME, REQUEST_SLOW_STEPS),
    *(REQUEST_EXECUTOR_WAIT, REQUEST_LOCK_WAIT, REQUEST_DB_POOL_WAIT, REQUEST_HTTP_POOL_WAIT),
    STALL_OVERLAP,
)
"""What the span of a request carries, as far as there is something to tell."""

POOL_WAIT = "pool.wait"
"""Event of a span in which somebody waited for a connection of a pool."""

POOL_WAIT_ATTRIBUTES = (POOL_WAIT_TIME,)
"""What it carries, beside what tells the pool."""

TASK_SPAN = "asyncio.task"
"""The name of a task's span begins so; the name of its coroutine function follows."""

TASK_SPAN_ATTRIBUTES = (
    *(CODE_FUNCTION_NAME, CODE_FILE_PATH, CODE_LINE_NUMBER, TASK_NAME, TASK_OUTCOME, ERROR_TYPE),
    *(TASK_SPAN_BUSY_TIME, TASK_SPAN_STEPS, TASK_SPAN_START_DELAY),
)
"""What the span of a task carries; the last three only where steps are seen."""

CELERY_DUPLICATE = "celery.task.duplicate"

SHUTDOWN_STARTED = "process.shutdown.started"
SHUTDOWN_PROGRESS = "process.shutdown.progress"
SHUTDOWN_COMPLETED = "process.shutdown.completed"

STALL_STARTED = "asyncio.eventloop.stall.started"
STALL_ENDED = "asyncio.eventloop.stall.ended"
STALL_SPAN_EVENT = "asyncio.stall"
UNKNOWN_FUNCTION = "_unknown"
"""`code.function.name` of a stall of which nobody saw who it was."""

FUTURE_UNRETRIEVED = "python.executor.future.unretrieved"

FAILURE_EVENTS = {
    "main": "python.exception.uncaught",
    "thread": "python.thread.exception_uncaught",
    "process": "python.process.exception_uncaught",
    "unraisable": "python.exception.unraisable",
    "coroutine_never_awaited": "python.coroutine.never_awaited",
    "task_never_retrieved": "asyncio.task.exception_never_retrieved",
    "future_never_retrieved": "asyncio.future.exception_never_retrieved",
    "task_destroyed_pending": "asyncio.task.destroyed_pending",
    "callback": "asyncio.eventloop.callback_failed",
    "asyncgen": "asyncio.asyncgen.finaliser_failed",
    "transport": "asyncio.eventloop.exception",
    "server": "asyncio.eventloop.exception",
    "other": "asyncio.eventloop.exception",
    "executor_future": FUTURE_UNRETRIEVED,
    "context_detach": "opentelemetry.context.detach_failed",
}
"""Kind of a failure to the name of its log event."""

_STALL = (
    *(EVENTLOOP_ID, EVENTLOOP_TYPE, STALL_CAUSE, CODE_FUNCTION_NAME, TASK_NAME, STALL_CALL),
    *(CODE_FILE_PATH, CODE_LINE_NUMBER, CODE_STACKTRACE, THREAD_ID),
)
_RAISED = (ERROR_TYPE, EXCEPTION_TYPE, EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE)
_PLACE = (CODE_FUNCTION_NAME, CODE_FILE_PATH, CODE_LINE_NUMBER)
_FAILURE = (FAILURE_KIND, *_PLACE, THREAD_ID, THREAD_NAME, PROCESS_PID)
_OF_TASK = (TASK_NAME, COROUTINE_NAME)
_FAILURE_MORE = {
    "python.executor.future.unretrieved": (*_RAISED, EXECUTOR_NAME),
    "asyncio.task.exception_never_retrieved": (*_RAISED, *_OF_TASK),
    "asyncio.asyncgen.finaliser_failed": (*_RAISED, *_OF_TASK),
    "asyncio.task.destroyed_pending": _OF_TASK,
    "python.coroutine.never_awaited": (),
}
_FAILURE_MEANINGS = {
    "python.exception.uncaught": "Nobody caught an exception in the main thread",
    "python.thread.exception_uncaught": "Nobody caught an exception in another thread",
    "python.process.exception_uncaught": "Nobody caught an exception in a child of `multiprocessing`",
    "python.exception.unraisable": "An exception came where there is nobody to catch it, in a `__del__`",
    "python.coroutine.never_awaited": "A coroutine was let go of that nobody had awaited",
    "asyncio.task.exception_never_retrieved": "A failed task was let go of with nobody looking",
    "asyncio.future.exception_never_retrieved": "A failed future was let go of with nobody looking",
    "asyncio.task.destroyed_pending": "A task was garbage-collected that was not done",
    "asyncio.eventloop.callback_failed": "A callback raised in an event loop",
    "asyncio.asyncgen.finaliser_failed": "An asynchronous generator raised while it was being closed",
    "asyncio.eventloop.exception": "A transport, a server or a library told an event loop of an exception",
    "python.executor.future.unretrieved": "A pool's failed future was let go of with nobody looking",
    "opentelemetry.context.detach_failed": "OpenTelemetry could not leave a context where it was entered",
}
DIAGNOSIS_OPENED = "concurrency.diagnosis.opened"
DIAGNOSIS_UPDATED = "concurrency.diagnosis.updated"
DIAGNOSIS_CLOSED = "concurrency.diagnosis.closed"
DIAGNOSIS_SPAN_EVENT = "concurrency.diagnosis"
DIAGNOSIS_SPAN_ATTRIBUTES = (DIAGNOSIS_RULE, DIAGNOSIS_SEVERITY, DIAGNOSIS_SENTENCE)
"""What that event on open requests says."""
_DIAGNOSIS = (
    *(DIAGNOSIS_RULE, DIAGNOSIS_SEVERITY, DIAGNOSIS_SUBJECT, DIAGNOSIS_BOTTLENECK, DIAGNOSIS_CULPRIT),
    *(DIAGNOSIS_ADVICE, DIAGNOSIS_EVIDENCE, DIAGNOSIS_CONFIDENCE, DIAGNOSIS_SUPPRESSED, DIAGNOSIS_TRACES),
    *(*_PLACE, CODE_STACKTRACE),
)
POOL_EXHAUSTED = "db.client.connection.pool.exhausted"

EVENTS = {
    STALL_STARTED: (
        "An event loop is held; in the trace of who holds it, one in 10 s of each line",
        (*_STALL, SUPPRESSED),
    ),
    STALL_ENDED: ("It goes on", (*_STALL, STALL_ELAPSED, SUPPRESSED)),
    **{
        event: (
            f"{_FAILURE_MEANINGS[event]}; in the trace that created the work, ten of a kind in 10 s",
            (*_FAILURE, *_FAILURE_MORE.get(event, _RAISED), SUPPRESSED),
        )
        for event in dict.fromkeys(FAILURE_EVENTS.values())
    },
    DIAGNOSIS_OPENED: (
        "Something is wrong, in words; `concurrency.diagnosis.evidence` is JSON, see `docs/diagnosis.md`",
        _DIAGNOSIS,
    ),
    DIAGNOSIS_UPDATED: ("It has become worse, or somebody else is to blame for it now", _DIAGNOSIS),
    DIAGNOSIS_CLOSED: ("It was not seen for six windows, or the program ends", _DIAGNOSIS),
    POOL_EXHAUSTED: (
        "Somebody waited for a connection in vain, until the pool gave up; one in 10 s of each pool",
        (CONNECTION_POOL, POOL_WAIT_TIME, CONNECTION_HOLDERS, SUPPRESSED),
    ),
    CELERY_DUPLICATE: (
        "A task was run again that a run had brought to its end before; one in 10 s of each name",
        (CELERY_TASK_NAME, CELERY_TASK_ID, CELERY_TASK_TRY, CELERY_TASK_OUTCOME, SUPPRESSED),
    ),
    SHUTDOWN_STARTED: (
        "SIGTERM came to its default action; or the main thread ended, and a second later not all is over",
        (SHUTDOWN_REASON,),
    ),
    SHUTDOWN_PROGRESS: (
        "Each second after that",
        (SHUTDOWN_REASON, SHUTDOWN_ELAPSED, UNFINISHED_TASKS, UNFINISHED_WORK_ITEMS),
    ),
    SHUTDOWN_COMPLETED: (
        "All threads are through, and what they recorded is out or half of the time for that is over",
        (SHUTDOWN_REASON, SHUTDOWN_ELAPSED),
    ),
}
"""Log records of our own: the name of the event, when it comes, and its attributes."""


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
SYNC_CONTENTIONS = Instrument(
    "asyncio.sync.contentions",
    "{contention}",
    "counter",
    "Tasks that had to wait for a lock, a condition, an event or a queue",
    (SYNC_TYPE, SYNC_NAME),
)
SYNC_WAITING = Instrument(
    "asyncio.sync.waiting",
    "{task}",
    "updowncounter",
    "Tasks that wait for a lock, a condition, an event or a queue",
    (SYNC_TYPE, SYNC_NAME),
)
SYNC_WAIT_TIME = Instrument(
    "asyncio.sync.wait.time",
    "s",
    "counter",
    "How long tasks waited for locks, conditions, events and queues, all together; of waits that are over",
    (SYNC_TYPE, SYNC_NAME),
)
SYNC_WAIT_DURATION = Instrument(
    "asyncio.sync.wait.duration",
    "s",
    "histogram",
    "How long a task waited for a lock, a condition, an event or a queue, until it went on",
    (SYNC_TYPE, SYNC_NAME),
)
SYNC_HOLD_DURATION = Instrument(
    "asyncio.sync.hold.duration",
    "s",
    "histogram",
    "How long a lock or a semaphore was held; only with `OTEL_PYTHON_CONCURRENCY_SYNC_WAITS=names`",
    (SYNC_TYPE, SYNC_NAME),
)
QUEUE_SIZE = Instrument(
    "asyncio.queue.size",
    "{item}",
    "updowncounter",
    "Items in asyncio's queues",
    (QUEUE_NAME,),
)
QUEUE_LIMIT = Instrument(
    "asyncio.queue.limit",
    "{item}",
    "updowncounter",
    "Items that these queues may hold; of those that have a limit",
    (QUEUE_NAME,),
)
_LOOP = (EVENTLOOP_ID, EVENTLOOP_TYPE)
LOOP_TIME = Instrument(
    "asyncio.eventloop.time",
    "s",
    "counter",
    "Time that event loops ran, by what they did with it",
    (*_LOOP, LOOP_STATE),
)
LOOP_UTILIZATION = Instrument(
    "asyncio.eventloop.utilization",
    "1",
    "gauge",
    "Active time by the time that the loop ran, since the last collection at least 10 s ago; at first, since "
    "the loop began",
    _LOOP,
)
LOOP_CPU_TIME = Instrument(
    "asyncio.eventloop.cpu.time", "s", "counter", "CPU time of the loop's thread while the loop ran", _LOOP
)
LOOP_RUNQUEUE_TIME = Instrument(
    "asyncio.eventloop.runqueue.time",
    "s",
    "counter",
    "Time in which the loop's thread was ready to run, and waited for a CPU; on Linux",
    _LOOP,
)
LOOP_BLOCKED_TIME = Instrument(
    "asyncio.eventloop.blocked.time",
    "s",
    "counter",
    "Active time in which the loop's thread neither had a CPU nor was ready for one: inside a callback that "
    "waits, for the GIL for instance",
    _LOOP,
)
LOOP_ITERATIONS = Instrument(
    "asyncio.eventloop.iterations",
    "{iteration}",
    "counter",
    "How often the loop looked for events and ran what was due",
    (*_LOOP, ITERATION_KIND),
)
LOOP_ITERATION_DURATION = Instrument(
    "asyncio.eventloop.iteration.duration",
    "s",
    "histogram",
    "Time between two waits for events; what becomes due meanwhile has to wait for the rest of it",
    _LOOP,
)
LOOP_DELAY = Instrument(
    "asyncio.eventloop.delay",
    "s",
    "histogram",
    "What a callback waits for its turn that becomes due at any time, one for each ms that the loop runs",
    (*_LOOP, DELAY_KIND),
)
LOOP_IO_EVENTS = Instrument(
    "asyncio.eventloop.io.events", "{event}", "counter", "Events that were found", _LOOP
)
LOOP_QUEUE_SIZE = Instrument(
    "asyncio.eventloop.callback.queue.size",
    "{callback}",
    "updowncounter",
    "Callbacks ready to run; not on uvloop",
    _LOOP,
)
LOOP_TIMER_COUNT = Instrument(
    "asyncio.eventloop.timer.count",
    "{timer}",
    "updowncounter",
    "Callbacks set for later; not on uvloop",
    _LOOP,
)
LOOP_EXCEPTIONS = Instrument(
    "asyncio.eventloop.exceptions",
    "{exception}",
    "counter",
    "Reports to the loop's exception handler: what nobody else handled",
    (*_LOOP, LOOP_EXCEPTION_CONTEXT, ERROR_TYPE),
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
_CONNECTIONS = (CONNECTION_POOL,)
CONNECTION_COUNT = Instrument(
    "db.client.connection.count",
    "{connection}",
    "updowncounter",
    "Open connections of a pool",
    (*_CONNECTIONS, CONNECTION_STATE),
)
CONNECTION_MAX = Instrument(
    "db.client.connection.max",
    "{connection}",
    "updowncounter",
    "How many connections a pool may have open; absent without a limit",
    _CONNECTIONS,
)
CONNECTION_IDLE_MIN = Instrument(
    "db.client.connection.idle.min",
    "{connection}",
    "updowncounter",
    "How many connections a pool keeps open at least; absent where it promises nothing",
    _CONNECTIONS,
)
CONNECTION_IDLE_MAX = Instrument(
    "db.client.connection.idle.max",
    "{connection}",
    "updowncounter",
    "How many idle connections a pool keeps; absent where it keeps all",
    _CONNECTIONS,
)
CONNECTION_PENDING = Instrument(
    "db.client.connection.pending_requests",
    "{request}",
    "updowncounter",
    "Those that wait for a connection",
    _CONNECTIONS,
)
CONNECTION_TIMEOUTS = Instrument(
    "db.client.connection.timeouts",
    "{timeout}",
    "counter",
    "How often somebody waited for a connection in vain, until the pool gave up",
    _CONNECTIONS,
)
CONNECTION_WAIT_TIME = Instrument(
    "db.client.connection.wait_time",
    "s",
    "histogram",
    "From asking for a connection to having an open one, which may have to be made first",
    _CONNECTIONS,
)
CONNECTION_USE_TIME = Instrument(
    "db.client.connection.use_time",
    "s",
    "histogram",
    "From having a connection to giving it back",
    _CONNECTIONS,
)
CONNECTION_CREATE_TIME = Instrument(
    "db.client.connection.create_time", "s", "histogram", "What it took to open a connection", _CONNECTIONS
)
_SERVER = (SERVER_ADDRESS, SERVER_PORT)
HTTP_OPEN_CONNECTIONS = Instrument(
    "http.client.open_connections",
    "{connection}",
    "updowncounter",
    "Open connections of aiohttp's and httpx's clients",
    (*_SERVER, HTTP_POOL_NAME, HTTP_CONNECTION_STATE),
)
HTTP_CONNECTION_LIMIT = Instrument(
    "http.client.connection.limit",
    "{connection}",
    "updowncounter",
    "Connections that clients may have; without those that have no limit",
    (HTTP_POOL_NAME,),
)
HTTP_CONNECTION_LIMIT_PER_HOST = Instrument(
    "http.client.connection.limit_per_host",
    "{connection}",
    "updowncounter",
    "Connections to one server that clients may have; without those that have no such limit",
    (HTTP_POOL_NAME,),
)
HTTP_CONNECTION_IDLE_LIMIT = Instrument(
    "http.client.connection.idle.limit",
    "{connection}",
    "updowncounter",
    "Connections that clients keep for the next request; without those that have no such limit",
    (HTTP_POOL_NAME,),
)
HTTP_PENDING_REQUESTS = Instrument(
    "http.client.connection.pending_requests",
    "{request}",
    "updowncounter",
    "Requests that wait for a connection, because their client has as many as it may",
    (*_SERVER, HTTP_POOL_NAME),
)
HTTP_CONNECTION_WAIT_TIME = Instrument(
    "http.client.connection.wait_time",
    "s",
    "histogram",
    "How long requests waited for a connection that had to; whether they got one or gave up",
    _SERVER,
)
HTTP_CONNECTION_TIMEOUTS = Instrument(
    "http.client.connection.timeouts",
    "{timeout}",
    "counter",
    "Requests that waited too long for a connection: `PoolTimeout` of httpx",
    _SERVER,
)
CELERY_COMPLETED = Instrument(
    "celery.task.completed",
    "{task}",
    "counter",
    "Tries of Celery's tasks that ended, each once, however often its message was delivered",
    (CELERY_TASK_NAME, CELERY_TASK_OUTCOME, ERROR_TYPE),
)
CELERY_DUPLICATES = Instrument(
    "celery.task.duplicates",
    "{run}",
    "counter",
    "Runs of a try that a run of this worker had brought to its end before; not among the completed",
    (CELERY_TASK_NAME,),
)
CELERY_REDELIVERED = Instrument(
    "celery.task.redelivered",
    "{run}",
    "counter",
    "Runs of a message that the broker had delivered before",
    (CELERY_TASK_NAME,),
)
CELERY_RETRIES = Instrument(
    "celery.task.retries", "{retry}", "counter", "Further tries that were asked for", (CELERY_TASK_NAME,)
)
CELERY_QUEUE_DURATION = Instrument(
    "celery.task.queue.duration",
    "s",
    "histogram",
    "From a message being sent, or from its ETA, to its run; 0 where the sender's clock is ahead",
    (CELERY_TASK_NAME, MESSAGING_DESTINATION),
)
CELERY_PREFETCH_DURATION = Instrument(
    "celery.task.prefetch.duration",
    "s",
    "histogram",
    "From a message coming in at the worker, or from its ETA, to its run",
    (CELERY_TASK_NAME,),
)
CELERY_DURATION = Instrument(
    "celery.task.duration",
    "s",
    "histogram",
    "From the begin of a run to its end, duplicates included",
    (CELERY_TASK_NAME, CELERY_TASK_OUTCOME),
)
HTTP_ACTIVE_REQUESTS = Instrument(
    "http.server.active_requests",
    "{request}",
    "updowncounter",
    "Requests that aiohttp's server, Starlette or FastAPI has open; where nobody else emits this metric",
    (HTTP_REQUEST_METHOD, URL_SCHEME),
)
PROCESS_MEMORY_USAGE = Instrument(
    "process.memory.usage", "By", "updowncounter", "Physical memory in use (resident set)"
)
PROCESS_MEMORY_VIRTUAL = Instrument("process.memory.virtual", "By", "updowncounter", "Address space in use")
PROCESS_CPU_TIME = Instrument(
    "process.cpu.time", "s", "counter", "CPU time of all threads, ended ones included", (CPU_MODE,)
)
PROCESS_CPU_UTILIZATION = Instrument(
    "process.cpu.utilization",
    "1",
    "gauge",
    "CPU time by elapsed time and CPUs available, since the last collection at least 10 s ago; at first, "
    "since the process started",
)
PROCESS_THREAD_COUNT = Instrument(
    "process.thread.count", "{thread}", "updowncounter", "Threads of the operating system, whoever made them"
)
PROCESS_CONTEXT_SWITCHES = Instrument(
    "process.context_switches",
    "{context_switch}",
    "counter",
    "Context switches of all threads, ended ones included",
    (CONTEXT_SWITCH_TYPE,),
)
PROCESS_PAGING_FAULTS = Instrument(
    "process.paging.faults", "{fault}", "counter", "Page faults", (PAGING_FAULT_TYPE,)
)
PROCESS_DISK_IO = Instrument(
    "process.disk.io", "By", "counter", "Bytes moved from and to storage", (DISK_IO_DIRECTION,)
)
PROCESS_FILE_DESCRIPTOR_COUNT = Instrument(
    "process.unix.file_descriptor.count", "{file_descriptor}", "updowncounter", "Open file descriptors"
)
PROCESS_HANDLE_COUNT = Instrument(
    "process.windows.handle.count", "{handle}", "updowncounter", "Open handles; on Windows"
)
PROCESS_UPTIME = Instrument("process.uptime", "s", "gauge", "For how long the process has been running")
PROCESS_CHILD_COUNT = Instrument(
    "python.process.child.count",
    "{process}",
    "updowncounter",
    "Child processes, ended ones that nobody has waited for included; left out beyond 200 threads",
)
PROCESS_FORKS = Instrument(
    "python.process.forks", "{fork}", "counter", "Calls of `os.fork()` in this process"
)
THREAD_COUNT = Instrument(
    "python.thread.count",
    "{thread}",
    "updowncounter",
    "Threads that `threading` knows, but for the SDK's and ours, sampled at the collection",
    (THREAD_NAME, THREAD_STATE),
)
THREAD_CPU_TIME = Instrument(
    "python.thread.cpu.time",
    "s",
    "counter",
    "CPU time of threads, as of the last collection that saw each; the SDK's and ours are left out",
    (THREAD_NAME,),
)
THREAD_SYNC_WAITING = Instrument(
    "python.thread.sync.waiting",
    "{thread}",
    "updowncounter",
    "Threads that wait for another one in a function of `threading`, `queue` or `concurrent.futures`, "
    "sampled at the collection by their frames; a plain `threading.Lock` has none. Workers without work are "
    "left out",
    (THREAD_SYNC_TYPE,),
)
MAIN_THREAD_ALIVE = Instrument(
    "python.thread.main.alive", "1", "gauge", "1, or 0 once the main thread has ended and others go on"
)
_LOOP = (EVENTLOOP_ID, EVENTLOOP_TYPE)
EVENTLOOP_STALLS = Instrument(
    "asyncio.eventloop.stalls",
    "{stall}",
    "counter",
    "Times that an event loop was held for longer than `OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD`",
    (*_LOOP, STALL_CAUSE, CODE_FUNCTION_NAME),
)
EVENTLOOP_STALL_DURATION = Instrument(
    "asyncio.eventloop.stall.duration",
    "s",
    "histogram",
    "For how long",
    (*_LOOP, STALL_CAUSE),
)
GC_PAUSE_DURATION = Instrument(
    "cpython.gc.pause.duration",
    "s",
    "histogram",
    "For how long a run of the garbage collector kept the program waiting",
    (GC_GENERATION,),
)
GIL_ENABLED = Instrument(
    "cpython.gil.enabled", "1", "gauge", "1, or 0 where threads run in parallel (free-threaded builds)"
)
GIL_WAIT_TIME = Instrument(
    "cpython.gil.wait.time",
    "s",
    "counter",
    "Waits for the global interpreter lock that a probing thread met; by `cpython.gil.probes`, the mean wait",
)
GIL_PROBES = Instrument(
    "cpython.gil.probes",
    "{probe}",
    "counter",
    "Times that the probing thread asked for the lock; it does so while an event loop runs",
)
GIL_WAIT_MAX = Instrument(
    "cpython.gil.wait.max", "s", "gauge", "The longest of these waits in the last minute"
)
CPU_THROTTLED_TIME = Instrument(
    "python.process.cpu.throttled.time",
    "s",
    "counter",
    "For how long this process's cgroup, all its processes together, had used up its CPU quota",
)
FUNCTION_DURATION = Instrument(
    "python.function.duration",
    "s",
    "histogram",
    "How long calls of functions took that are decorated with `otel_concurrency.timed`",
    (CODE_FUNCTION_NAME, FUNCTION_OUTCOME, ERROR_TYPE),
)
LIMIT_RECOMMENDED = Instrument(
    "concurrency.limit.recommended",
    "{call}",
    "gauge",
    "How many calls should be under way at once, by moving averages of their throughput and 99th percentile; "
    "limiters of one name add up",
    (LIMITER_NAME,),
)
LIMIT_IN_USE = Instrument(
    "concurrency.limit.in_use", "{call}", "updowncounter", "Calls under way in a limiter", (LIMITER_NAME,)
)
LIMIT_WAITING = Instrument(
    "concurrency.limit.waiting", "{call}", "updowncounter", "Calls that wait for a limiter", (LIMITER_NAME,)
)
LIMIT_REJECTED = Instrument(
    "concurrency.limit.rejected", "{call}", "counter", "Calls that a limiter has refused", (LIMITER_NAME,)
)
SHUTDOWN_DURATION = Instrument(
    "process.shutdown.duration",
    "s",
    "histogram",
    "From `process.shutdown.started` to `process.shutdown.completed`",
    (SHUTDOWN_REASON,),
)
TIMEOUTS_EXPIRED = Instrument(
    "asyncio.timeout.expired",
    "{timeout}",
    "counter",
    "Timeouts that have cancelled a task: of `asyncio.timeout` and `asyncio.wait_for`, and deadlines of trio",
    (CODE_FUNCTION_NAME,),
)
DIAGNOSIS_ACTIVE = Instrument(
    "concurrency.diagnosis.active",
    "1",
    "gauge",
    "1 while something of the kind is wrong, 0 once it is over",
    (DIAGNOSIS_RULE, DIAGNOSIS_SEVERITY),
)
DIAGNOSIS_DETECTIONS = Instrument(
    "concurrency.diagnosis.detections",
    "{detection}",
    "counter",
    "Findings that were opened",
    (DIAGNOSIS_RULE,),
)
FAILURES = Instrument(
    "python.failures",
    "{failure}",
    "counter",
    "What Python gave up on: exceptions that nobody handled, and work that nobody waited for",
    (FAILURE_KIND, ERROR_TYPE),
)
LOG_RECORDS = Instrument(
    "otel_concurrency.log.records",
    "{record}",
    "counter",
    "Log records for `OTEL_PYTHON_CONCURRENCY_LOG_JSON`, by what became of them",
    (LOG_OUTCOME,),
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
    SYNC_CONTENTIONS,
    SYNC_WAITING,
    SYNC_WAIT_TIME,
    SYNC_WAIT_DURATION,
    SYNC_HOLD_DURATION,
    QUEUE_SIZE,
    QUEUE_LIMIT,
    LOOP_TIME,
    LOOP_UTILIZATION,
    LOOP_CPU_TIME,
    LOOP_RUNQUEUE_TIME,
    LOOP_BLOCKED_TIME,
    LOOP_ITERATIONS,
    LOOP_ITERATION_DURATION,
    LOOP_DELAY,
    LOOP_IO_EVENTS,
    LOOP_QUEUE_SIZE,
    LOOP_TIMER_COUNT,
    LOOP_EXCEPTIONS,
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
    CONNECTION_COUNT,
    CONNECTION_MAX,
    CONNECTION_IDLE_MIN,
    CONNECTION_IDLE_MAX,
    CONNECTION_PENDING,
    CONNECTION_TIMEOUTS,
    CONNECTION_WAIT_TIME,
    CONNECTION_USE_TIME,
    CONNECTION_CREATE_TIME,
    HTTP_OPEN_CONNECTIONS,
    HTTP_CONNECTION_LIMIT,
    HTTP_CONNECTION_LIMIT_PER_HOST,
    HTTP_CONNECTION_IDLE_LIMIT,
    HTTP_PENDING_REQUESTS,
    HTTP_CONNECTION_WAIT_TIME,
    HTTP_CONNECTION_TIMEOUTS,
    CELERY_COMPLETED,
    CELERY_DUPLICATES,
    CELERY_REDELIVERED,
    CELERY_RETRIES,
    CELERY_QUEUE_DURATION,
    CELERY_PREFETCH_DURATION,
    CELERY_DURATION,
    HTTP_ACTIVE_REQUESTS,
    PROCESS_MEMORY_USAGE,
    PROCESS_MEMORY_VIRTUAL,
    PROCESS_CPU_TIME,
    PROCESS_CPU_UTILIZATION,
    PROCESS_THREAD_COUNT,
    PROCESS_CONTEXT_SWITCHES,
    PROCESS_PAGING_FAULTS,
    PROCESS_DISK_IO,
    PROCESS_FILE_DESCRIPTOR_COUNT,
    PROCESS_HANDLE_COUNT,
    PROCESS_UPTIME,
    PROCESS_CHILD_COUNT,
    PROCESS_FORKS,
    THREAD_COUNT,
    THREAD_CPU_TIME,
    THREAD_SYNC_WAITING,
    MAIN_THREAD_ALIVE,
    EVENTLOOP_STALLS,
    EVENTLOOP_STALL_DURATION,
    GC_PAUSE_DURATION,
    GIL_ENABLED,
    GIL_WAIT_TIME,
    GIL_PROBES,
    GIL_WAIT_MAX,
    CPU_THROTTLED_TIME,
    FUNCTION_DURATION,
    LIMIT_RECOMMENDED,
    LIMIT_IN_USE,
    LIMIT_WAITING,
    LIMIT_REJECTED,
    SHUTDOWN_DURATION,
    TIMEOUTS_EXPIRED,
    DIAGNOSIS_ACTIVE,
    DIAGNOSIS_DETECTIONS,
    FAILURES,
    LOG_RECORDS,
    OVERHEAD_TIME,
)
"""All of them, in the order of the page."""
