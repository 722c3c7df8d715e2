from __future__ import annotations

import pytest

from otel_concurrency.snapshot.chains import Function
from otel_concurrency.snapshot.wait_kinds import EXECUTOR, FUTURE, GATHER, TASK, classify

OWN: Function = ("app", "serve")
SLEEP: Function = ("asyncio.tasks", "sleep")
WAIT_FOR: Function = ("asyncio.tasks", "wait_for")
QUEUE: Function = ("asyncio.queues", "Queue.get")
EVENT: Function = ("asyncio.locks", "Event.wait")
LOCK: Function = ("asyncio.locks", "Lock.acquire")
CONDITION: Function = ("asyncio.locks", "Condition.wait")
ANYIO = "anyio._backends._asyncio"


@pytest.mark.parametrize(
    ("functions", "waiter", "kind", "has_timeout"),
    [
        ([SLEEP, OWN], FUTURE, "sleep", False),
        ([SLEEP, WAIT_FOR, OWN], FUTURE, "sleep", True),
        ([WAIT_FOR, OWN], FUTURE, "timeout", True),
        ([OWN, WAIT_FOR], FUTURE, "future", True),
        ([WAIT_FOR, OWN], TASK, "task", True),
        ([OWN], GATHER, "gather", False),
        ([OWN], TASK, "task", False),
        ([OWN], EXECUTOR, "executor", False),
        ([("asyncio.threads", "to_thread")], EXECUTOR, "executor", False),
        ([("asyncio.tasks", "_wait"), ("asyncio.tasks", "wait")], FUTURE, "wait", False),
        ([QUEUE, ("asyncio.tasks", "as_completed.<locals>._wait_for_one")], FUTURE, "wait", False),
        ([("asyncio.taskgroups", "TaskGroup.__aexit__"), OWN], FUTURE, "taskgroup", False),
        ([LOCK, ("asyncio.locks", "_ContextManagerMixin.__aenter__"), OWN], FUTURE, "lock", False),
        ([("asyncio.locks", "Semaphore.acquire")], FUTURE, "semaphore", False),
        ([CONDITION, OWN], FUTURE, "condition", False),
        ([LOCK, CONDITION, OWN], FUTURE, "lock", False),
        ([EVENT, OWN], FUTURE, "event", False),
        ([QUEUE, OWN], FUTURE, "queue", False),
        ([EVENT, ("asyncio.queues", "Queue.join")], FUTURE, "queue", False),
        ([("asyncio.streams", "StreamReader._wait_for_data"), OWN], FUTURE, "stream_io", False),
        ([("asyncio.selector_events", "BaseSelectorEventLoop.sock_recv")], FUTURE, "stream_io", False),
        ([("", "Loop.sock_recv"), OWN], FUTURE, "stream_io", False),
        ([("asyncpg.connection", "Connection._execute"), OWN], FUTURE, "stream_io", False),
        ([QUEUE, ("asyncpg.pool", "Pool._acquire"), OWN], FUTURE, "db_pool", False),
        (
            [("asyncpg.connect_utils", "_connect"), ("asyncpg.pool", "Pool._acquire")],
            FUTURE,
            "stream_io",
            False,
        ),
        (
            [QUEUE, WAIT_FOR, ("sqlalchemy.util.concurrency", "greenlet_spawn")],
            FUTURE,
            "db_pool",
            True,
        ),
        (
            [
                ("asyncpg.connection", "Connection._execute"),
                ("sqlalchemy.util.concurrency", "greenlet_spawn"),
            ],
            FUTURE,
            "stream_io",
            False,
        ),
        (
            [CONDITION, ("redis.asyncio.connection", "BlockingConnectionPool.get_connection")],
            FUTURE,
            "db_pool",
            False,
        ),
        (
            [OWN, ("aiohttp.connector", "BaseConnector._wait_for_available_connection")],
            FUTURE,
            "http_pool",
            False,
        ),
        (
            [
                EVENT,
                (ANYIO, "Event.wait"),
                ("httpcore._async.connection_pool", "AsyncPoolRequest.wait_for_connection"),
            ],
            FUTURE,
            "http_pool",
            False,
        ),
        (
            [EVENT, (ANYIO, "Event.wait"), ("anyio.streams.memory", "MemoryObjectReceiveStream.receive")],
            FUTURE,
            "queue",
            False,
        ),
        ([EVENT, (ANYIO, "SocketStream.receive"), OWN], FUTURE, "stream_io", False),
        ([(ANYIO, "AsyncIOBackend.run_sync_in_worker_thread"), OWN], FUTURE, "executor", False),
        (
            [
                ("trio._core._traps", "wait_task_rescheduled"),
                ("trio._core._parking_lot", "ParkingLot.park"),
                ("trio._sync", "Semaphore.acquire"),
            ],
            FUTURE,
            "semaphore",
            False,
        ),
        ([OWN, OWN], FUTURE, "future", False),
        ([], FUTURE, "future", False),
    ],
)
def test_functions_tell_for_what_a_task_waits(
    functions: list[Function], waiter: str, kind: str, has_timeout: bool
) -> None:
    assert classify(functions, waiter) == (kind, has_timeout)
