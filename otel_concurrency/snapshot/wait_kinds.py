"""For what a task waits, told by the functions that it stands in: pure functions of names.

The innermost functions come first. What the sync primitives of AnyIO and trio are, their hooks know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from otel_concurrency.hooks.trio import trio_waits
from otel_concurrency.hooks.waits import anyio_waits
from otel_concurrency.hooks.waits.wait_kinds import NOT_OURS
from otel_concurrency.snapshot.chains import Function
from otel_concurrency.snapshot.live_tasks import WaitKind

LOOKED_AT = 8
"""Innermost functions that may tell."""

TASK, GATHER, EXECUTOR, FUTURE = "task", "gather", "executor", "future"
"""What `_fut_waiter` may be."""


class Classified(NamedTuple):
    """What names tell of a wait.

    Attributes:
        kind: One of `WAIT_KINDS`; `timeout` where nothing is known but that.
        has_timeout: Whether it is inside of a `wait_for`.
    """

    kind: WaitKind
    has_timeout: bool


_OF_PROBES: dict[str, WaitKind] = {
    "lock": "lock",
    "semaphore": "semaphore",
    "condition": "condition",
    "event": "event",
    "barrier": "condition",
    "queue_get": "queue",
    "queue_put": "queue",
}
_SYNC = frozenset(("lock", "semaphore", "condition", "event", "queue", "future", "timeout"))
_WAIT_FOR: frozenset[Function] = frozenset((("asyncio.tasks", "wait_for"),))


def _table(kind: WaitKind, module: str, *names: str) -> dict[Function, WaitKind]:
    return {(module, name): kind for name in names}


def _of_hooks(known: dict[str, tuple[tuple[str, str], ...]]) -> Iterable[tuple[Function, WaitKind]]:
    for module, functions in known.items():
        for name, kind in functions:
            if kind != NOT_OURS:
                yield (module, name), _OF_PROBES[kind]


_ANYIO = "anyio._backends._asyncio"

# The innermost of these tells, or what is right around it, ...
_WAITING: dict[Function, WaitKind] = {
    **_table("sleep", "asyncio.tasks", "sleep"),
    **_table("sleep", "trio._timeouts", "sleep", "sleep_until", "sleep_forever"),
    **_table("wait", "asyncio.tasks", "_wait", "wait"),
    **_table("task", "asyncio.tasks", "_cancel_and_wait"),
    **_table("taskgroup", "asyncio.taskgroups", "TaskGroup.__aexit__", "TaskGroup._aexit"),
    **_table("taskgroup", _ANYIO, "TaskGroup.__aexit__"),
    **_table("taskgroup", "trio._core._run", "NurseryManager.__aexit__", "Nursery._nested_child_finished"),
    **_table("lock", "asyncio.locks", "Lock.acquire"),
    **_table("semaphore", "asyncio.locks", "Semaphore.acquire", "BoundedSemaphore.acquire"),
    **_table("condition", "asyncio.locks", "Condition.wait", "Barrier._block", "Barrier._wait"),
    **_table("event", "asyncio.locks", "Event.wait"),
    **_table("queue", "asyncio.queues", "Queue.get", "Queue.put"),
    **_table("stream_io", "asyncio.streams", "StreamReader._wait_for_data", "FlowControlMixin._drain_helper"),
    **_table("stream_io", "asyncio.base_events", "Server.serve_forever", "Server.wait_closed"),
    **_table(
        "stream_io",
        "trio._core._io_epoll",
        "EpollIOManager._epoll_wait",
        "EpollIOManager.wait_readable",
        "EpollIOManager.wait_writable",
    ),
    **_table("executor", "trio._threads", "to_thread_run_sync"),
    **_table("lock", "trio._sync", "_LockImpl.acquire"),
    **_table("event", "trio._sync", "Event.wait"),
    **_table("queue", "trio._channel", "MemoryReceiveChannel.receive", "MemorySendChannel.send"),
    **_table("task", "anyio._core._tasks", "TaskHandle.wait", "TaskHandle.__await__"),
    **dict(_of_hooks(trio_waits.WAITING)),
    **dict(_of_hooks(anyio_waits.WAITING)),
}

# ... unless it is there for one of these, further out.
_AROUND: dict[Function, WaitKind] = {
    **_table(
        "wait",
        "asyncio.tasks",
        "as_completed.<locals>._wait_for_one",
        "_AsCompletedIterator._wait_for_one",  # 3.13
    ),
    **_table("queue", "asyncio.queues", "Queue.join"),
    **_table("condition", "asyncio.locks", "Barrier.wait"),
    **_table("executor", "asyncio.threads", "to_thread"),
    **_table("executor", _ANYIO, "AsyncIOBackend.run_sync_in_worker_thread", "WorkerThread.run"),
    **_table(
        "stream_io",
        _ANYIO,
        *(
            name
            for name, kind in anyio_waits.WAITING[_ANYIO]
            if kind == NOT_OURS and name.startswith(("SocketStream.", "UDPSocket.", "ConnectedUDPSocket."))
        ),
        "AsyncIOBackend.wait_readable",
        "AsyncIOBackend.wait_writable",
        "UNIXSocketStream.receive",
        "UNIXSocketStream.send",
        "TCPSocketListener.accept",
        "UNIXSocketListener.accept",
    ),
    **_table("stream_io", "uvicorn.protocols.http.h11_impl", "RequestResponseCycle.receive"),
    **_table("stream_io", "uvicorn.protocols.http.httptools_impl", "RequestResponseCycle.receive"),
    **_table("stream_io", "uvicorn.protocols.http.flow_control", "FlowControl.drain"),
    **_table("stream_io", "psycopg.waiting", "wait_async"),
    **_table("stream_io", "aiohttp.streams", "StreamReader._wait", "DataQueue.read"),
    **_table("db_pool", "asyncpg.pool", "Pool._acquire", "Pool._acquire.<locals>._acquire_impl"),
    **_table("db_pool", "psycopg_pool.pool_async", "AsyncConnectionPool.getconn", "WaitingClient.wait"),
    **_table("db_pool", "redis.asyncio.connection", "BlockingConnectionPool.get_connection"),
    **_table("http_pool", "aiohttp.connector", "BaseConnector._wait_for_available_connection"),
    **_table("http_pool", "httpcore._async.connection_pool", "AsyncPoolRequest.wait_for_connection"),
    **_table("http_pool", "httpcore2._async.connection_pool", "AsyncPoolRequest.wait_for_connection"),
}

# SQLAlchemy has a queue for its pools, and no other; the pool itself is in a greenlet, and not to be seen.
_GREENLETS: frozenset[Function] = frozenset(
    (
        ("sqlalchemy.util._concurrency_py3k", "greenlet_spawn"),
        ("sqlalchemy.util.concurrency", "greenlet_spawn"),
    )
)

# Who waits for a future of its own in one of these waits for a file descriptor.
_CLIENTS = frozenset(
    (
        "aio_pika",
        "aiohttp",
        "aiokafka",
        "aiomysql",
        "aiormq",
        "asyncpg",
        "grpc",
        "hypercorn",
        "motor",
        "nats",
        "psycopg",
        "pymongo",
        "redis",
        "uvicorn",
        "websockets",
    )
)
_LOOPS = ("asyncio.selector_events", "asyncio.proactor_events", "trio._socket", "trio._highlevel_socket")
_COMPILED_SOCKETS = "Loop.sock_"  # uvloop's, whose module nobody tells


def classify(functions: Sequence[Function], waiter: str = FUTURE) -> Classified:
    """Return for what a task waits.

    Args:
        functions: That it stands in, the innermost first.
        waiter: What its `_fut_waiter` is: `task`, `gather`, `executor`, or `future` for any other.
    """
    looked_at = functions[:LOOKED_AT]
    has_timeout = any(function in _WAIT_FOR for function in functions)
    kind = _inner_kind(looked_at, waiter)
    if kind == FUTURE and looked_at and looked_at[0] in _WAIT_FOR:
        kind = "timeout"
    if kind in _SYNC:
        for function in looked_at:
            around = _AROUND.get(function)
            if around is not None:
                kind = around
                break
            if kind == "queue" and function in _GREENLETS:
                kind = "db_pool"
                break
    return Classified(kind, has_timeout)


def _inner_kind(functions: Sequence[Function], waiter: str) -> WaitKind:
    found: WaitKind | None = None
    for function in functions:
        kind = _WAITING.get(function)
        # Who comes back from a condition's wait wants its lock; all else is there for what is around it.
        if found is not None and (kind is None or (found == "lock" and kind == "condition")):
            return found
        found = kind or found
    if found is not None:
        return found
    if waiter == GATHER:
        return "gather"
    if waiter == EXECUTOR:
        return "executor"
    if waiter == TASK:
        return "task"
    return "stream_io" if _is_io(functions) else "future"


def _is_io(functions: Sequence[Function]) -> bool:
    for module, qualname in functions:
        if module:
            return module.partition(".")[0] in _CLIENTS or module in _LOOPS
        if qualname.startswith(_COMPILED_SOCKETS):
            return True
    return False
