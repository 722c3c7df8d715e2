"""What the connection probe keeps of each step of a connection's way."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from otel_concurrency.probes import connections
from otel_concurrency.probes.connections import (
    MAX_POOLS,
    OTHER,
    ConnectionLevel,
    ConnectionPoolProbe,
    ConnectionProbe,
    Holder,
)
from otel_concurrency.probes.histogram import MAX_PENDING

MS = 1_000_000


class Pool:
    """Stands for a library's."""


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000 * MS

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return self.now_ns


class Heard:
    def __init__(self) -> None:
        self.waits: list[tuple[str, int]] = []
        self.timeouts: list[tuple[str, int, list[Holder]]] = []

    def waited(self, pool: str, ns: int, /) -> None:
        self.waits.append((pool, ns))

    def timed_out(self, pool: str, ns: int, holders: Sequence[Holder], /) -> None:
        self.timeouts.append((pool, ns, list(holders)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connections, "monotonic_ns", clock.monotonic_ns)
    return clock


def probe_of(probe: ConnectionProbe, name: str = "db", anchor: Pool | None = None) -> ConnectionPoolProbe:
    return probe.pool(name, anchor or Pool(), lambda _: ConnectionLevel(0))


def test_each_step_is_timed(clock: Clock) -> None:
    probe = ConnectionProbe()
    heard = probe.observer = Heard()
    pool = probe_of(probe)
    asked = pool.asks()
    assert (len(pool.waits), pool.held) == (1, {})
    clock.now_ns += 20 * MS
    pool.created(5 * MS)
    pool.has(asked, "one")
    clock.now_ns += 300 * MS
    pool.gives_back("one")
    pool.gives_back("one")  # the first time counts
    at_once = pool.asks()
    pool.has(at_once, "one")
    [row] = probe.read()
    assert (row.wait_times.count, row.wait_times.sum_ns) == (2, 20 * MS)
    assert (row.use_times.count, row.use_times.sum_ns) == (1, 300 * MS)
    assert (row.create_times.count, row.create_times.sum_ns) == (1, 5 * MS)
    assert heard.waits == [("db", 20 * MS)]
    assert list(pool.held) == ["one"]


def test_who_gives_up_has_waited_all_the_same(clock: Clock) -> None:
    probe = ConnectionProbe()
    heard = probe.observer = Heard()
    pool = probe_of(probe)
    asked = pool.asks()
    clock.now_ns += 20 * MS
    pool.gives_up(asked)
    [row] = probe.read()
    assert (row.wait_times.count, row.timeouts, pool.waits) == (0, 0, {})
    assert heard.waits == [("db", 20 * MS)]


def test_who_is_sent_away_hears_who_has_the_connections(clock: Clock) -> None:
    probe = ConnectionProbe()
    heard = probe.observer = Heard()
    pool = probe_of(probe)
    thread = threading.Thread(target=lambda: pool.has(pool.asks(), 1), name="reports")
    thread.start()
    thread.join()
    clock.now_ns += 10 * MS
    pool.has(pool.asks(), 2)
    asked = pool.asks()
    clock.now_ns += 30 * MS
    pool.is_denied(asked)
    assert heard.timeouts == [
        ("db", 30 * MS, [Holder("reports", 40 * MS), Holder(threading.current_thread().name, 30 * MS)])
    ]
    [row] = probe.read()
    assert (row.timeouts, row.wait_times.count) == (1, 2)


def test_the_slowest_waits_keep_their_context(clock: Clock) -> None:
    origin: ContextVar[str] = ContextVar("origin")
    probe = ConnectionProbe(origin=origin, clock=clock.time_ns)
    pool = probe_of(probe)
    origin.set("here")
    asked = pool.asks()
    clock.now_ns += 20 * MS
    pool.has(asked, 1)
    [[row], [later]] = probe.read(), probe.read()
    assert [(each.value_ns, each.origin) for each in row.wait_times.exemplars] == [(20 * MS, "here")]
    assert later.wait_times.exemplars == ()


def test_beyond_the_limit_pools_share_a_row() -> None:
    probe = ConnectionProbe()
    pools = [probe_of(probe, f"db-{number}") for number in range(MAX_POOLS + 2)]
    assert [pool.name for pool in pools[-3:]] == [f"db-{MAX_POOLS - 1}", OTHER, OTHER]
    for pool in pools:
        pool.is_denied(pool.asks())
    assert {row.name: row.timeouts for row in probe.read()} == {
        **{f"db-{number}": 1 for number in range(MAX_POOLS)},
        OTHER: 2,
    }


def test_a_pool_that_is_gone_has_no_level_any_more() -> None:
    probe = ConnectionProbe()
    anchor = Pool()
    pool = probe.pool("db", anchor, lambda _: ConnectionLevel(1, 2, 3, 4))
    assert probe.levels() == [("db", ConnectionLevel(1, 2, 3, 4))]
    del anchor
    gc.collect()
    assert (probe.levels(), pool.name) == ([], "db")


def test_a_level_that_cannot_be_told_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    probe = ConnectionProbe()
    anchors = Pool(), Pool()

    def unknown(_: Pool) -> ConnectionLevel:
        raise RuntimeError("another shape")

    probe.pool("a", anchors[0], unknown)
    probe.pool("b", anchors[1], lambda _: ConnectionLevel(1))
    for _ in range(2):
        assert probe.levels() == [("b", ConnectionLevel(1))]
    assert len(caplog.records) == 1


def test_an_observer_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    class Raises(Heard):
        def waited(self, pool: str, ns: int, /) -> None:
            raise RuntimeError("ours")

    probe = ConnectionProbe()
    probe.observer = Raises()
    pool = probe_of(probe)
    for number in range(2):
        asked = pool.asks()
        clock.now_ns += 20 * MS
        pool.has(asked, number)
    assert probe.read()[0].wait_times.count == 2
    assert len(caplog.records) == 1


def test_a_forked_child_begins_at_zero() -> None:
    probe = ConnectionProbe()
    pool = probe_of(probe)
    pool.has(pool.asks(), 1)
    asked = pool.asks()
    pool.is_denied(pool.asks())
    probe.reset()
    assert (pool.held, pool.waits) == ({}, {})
    pool.gives_back(1)  # the parent's
    pool.gives_up(asked)
    pool.has(pool.asks(), 2)
    [row] = probe.read()
    assert (row.timeouts, row.wait_times.count, row.use_times.count) == (0, 1, 0)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("db.local", 5432, "shop"), "db.local:5432/shop"),
        (("::1", 5432, "shop"), "[::1]:5432/shop"),
        (("db.local", None, "shop"), "db.local/shop"),
        (("/run/postgresql",), "/run/postgresql"),
    ],
)
def test_a_pool_goes_by_its_server_and_database(parts: tuple[Any, ...], name: str) -> None:
    assert connections.pool_name(*parts) == name


def test_threads_lose_no_count() -> None:
    probe = ConnectionProbe()
    pool = probe_of(probe)
    rounds, threads = 20 * MAX_PENDING, 4

    def work(number: int) -> None:
        for _ in range(rounds):
            pool.has(pool.asks(), number)
            pool.gives_back(number)

    started = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    while any(thread.is_alive() for thread in started):
        probe.read()
        time.sleep(0.001)
    [row] = probe.read()
    assert (row.wait_times.count, row.use_times.count) == (rounds * threads, rounds * threads)
