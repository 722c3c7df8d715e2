"""Waits for connections are counted by server, no more of these than are kept apart."""

from __future__ import annotations

from otel_concurrency.probes.http_pools import (
    MAX_SERVERS,
    OTHER,
    HttpPoolLevel,
    HttpPoolProbe,
    Server,
    ServerLevel,
)

ONE, TWO, THREE = (Server(f"{name}.example", 443) for name in ("one", "two", "three"))


def test_each_server_has_its_row() -> None:
    probe = HttpPoolProbe()
    probe.waited(ONE, 5, origin="here", at_unix_ns=7)
    probe.waited(ONE, 8, timed_out=True)
    probe.waited(TWO, 3)
    one, two = probe.read()
    assert (one.server, one.timeouts, one.waits.count, one.waits.sum_ns, one.waits.max_ns) == (
        ONE,
        1,
        2,
        13,
        8,
    )
    assert [(each.value_ns, each.origin, each.at_unix_ns) for each in one.waits.exemplars] == [(5, "here", 7)]
    assert (two.server, two.timeouts, two.waits.sum_ns) == (TWO, 0, 3)
    assert probe.read()[0].waits.exemplars == ()


def test_servers_beyond_the_limit_share_a_row() -> None:
    probe = HttpPoolProbe(max_servers=1)
    for server in (ONE, TWO, THREE, ONE):
        probe.waited(server, 2)
    assert [(row.server, row.waits.count) for row in probe.read()] == [(ONE, 2), (Server(OTHER, None), 2)]


def test_the_limit_is_that_of_the_catalogue() -> None:
    probe = HttpPoolProbe()
    for number in range(1000):
        probe.waited(Server("crawled.example", number), 1)
    assert len(probe.read()) == MAX_SERVERS + 1 == 51


def test_levels_keep_to_the_same_limits() -> None:
    probe = HttpPoolProbe(max_servers=1, max_pools=1)
    probe.waited(TWO, 1)
    servers = {ONE: ServerLevel(1, 2, 3), TWO: ServerLevel(4, 5, 6), THREE: ServerLevel(10, 20, 30)}
    levels = [HttpPoolLevel(name, 9, None, 5, servers) for name in ("first", "second")]
    bounded = {TWO: ServerLevel(4, 5, 6), Server(OTHER, None): ServerLevel(11, 22, 33)}
    for _ in range(2):
        assert probe.within_limits(levels) == [
            HttpPoolLevel("first", 9, None, 5, bounded),
            HttpPoolLevel(OTHER, 9, None, 5, bounded),
        ]


def test_reset_forgets_all() -> None:
    probe = HttpPoolProbe(max_servers=1)
    probe.waited(ONE, 1, timed_out=True)
    probe.reset()
    assert probe.read() == []
    probe.waited(TWO, 1)
    assert [row.server for row in probe.read()] == [TWO]
