"""Where the connections of SQLAlchemy's pools are, told by the hook; the database is a file's."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import sqlalchemy.exc
from sqlalchemy import create_engine, log, pool, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import base

from otel_concurrency.hooks.pools.sqlalchemy_pools import NAME_KEY, POOL_KEY, SQLAlchemyPoolHook
from otel_concurrency.probes.connections import ConnectionLevel, ConnectionProbe, ConnectionRow

Make = Callable[..., Engine]
ORIGINALS = {
    (base._ConnectionRecord, "checkout"): vars(base._ConnectionRecord)["checkout"],
    (base._ConnectionRecord, "checkin"): vars(base._ConnectionRecord)["checkin"],
    (base._ConnectionRecord, "_ConnectionRecord__connect"): vars(base._ConnectionRecord)[
        "_ConnectionRecord__connect"
    ],
    (base._ConnectionFairy, "detach"): vars(base._ConnectionFairy)["detach"],
    (log, "instance_logger"): vars(log)["instance_logger"],
}


@pytest.fixture
def probe() -> ConnectionProbe:
    return ConnectionProbe()


@pytest.fixture
def hook(probe: ConnectionProbe) -> Iterator[SQLAlchemyPoolHook]:
    hook = SQLAlchemyPoolHook(probe)
    hook.install()
    yield hook
    hook.remove()
    assert {(owner, name): vars(owner)[name] for owner, name in ORIGINALS} == ORIGINALS


@pytest.fixture
def engine(hook: SQLAlchemyPoolHook, tmp_path: Path) -> Iterator[Make]:
    """Makes engines with a pool of two, one of these kept."""
    made: list[Engine] = []

    def make(**options: Any) -> Engine:
        options = {
            "poolclass": pool.QueuePool,
            "pool_size": 1,
            "max_overflow": 1,
            "pool_timeout": 0.05,
        } | options
        options.setdefault("connect_args", {"check_same_thread": False})
        made.append(create_engine(f"sqlite:///{tmp_path}/db", **options))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


def only(probe: ConnectionProbe) -> ConnectionRow:
    [row] = probe.read()
    return row


def level(probe: ConnectionProbe) -> ConnectionLevel:
    [(_, found)] = probe.levels()
    return found


def counts(probe: ConnectionProbe) -> tuple[int, int, int, int]:
    """Waits, uses, connections made, timeouts."""
    row = only(probe)
    return row.wait_times.count, row.use_times.count, row.create_times.count, row.timeouts


def test_a_connection_goes_out_and_comes_back(engine: Make, probe: ConnectionProbe, tmp_path: Path) -> None:
    made = engine()
    with made.connect() as one:
        assert one.execute(text("select 1")).scalar() == 1
        assert level(probe) == ConnectionLevel(1, 0, 0, limit=2, idle_max=1)
        with made.connect():
            assert level(probe) == ConnectionLevel(2, 0, 0, limit=2, idle_max=1)
    assert level(probe) == ConnectionLevel(0, 1, 0, limit=2, idle_max=1)
    assert counts(probe) == (2, 2, 2, 0)
    assert only(probe).name == f"sqlite/{tmp_path}/db"


def test_a_pool_goes_by_the_name_that_it_has(engine: Make, probe: ConnectionProbe) -> None:
    with engine(pool_logging_name="reports").connect():
        assert only(probe).name == "reports"


def test_the_pool_after_a_disposal_counts_in_the_same_row(engine: Make, probe: ConnectionProbe) -> None:
    made = engine()
    made.connect().close()
    made.dispose()
    gc.collect()
    made.connect().close()
    assert counts(probe) == (2, 2, 2, 0)
    assert level(probe).idle == 1


def test_who_is_sent_away_counts_as_a_timeout(engine: Make, probe: ConnectionProbe) -> None:
    made = engine()
    with made.connect(), made.connect():
        with pytest.raises(sqlalchemy.exc.TimeoutError, match="QueuePool limit of size 1 overflow 1"):
            made.connect()
        assert level(probe) == ConnectionLevel(2, 0, 0, limit=2, idle_max=1)
    assert counts(probe) == (2, 2, 2, 1)


def test_a_connection_that_cannot_be_made_counts_nowhere(engine: Make, probe: ConnectionProbe) -> None:
    def refuse() -> sqlite3.Connection:
        raise sqlite3.OperationalError("no")

    with pytest.raises(sqlalchemy.exc.OperationalError):
        engine(creator=refuse, connect_args={}).connect()
    assert counts(probe) == (0, 0, 0, 0)
    assert level(probe) == ConnectionLevel(0, 0, 0, limit=2, idle_max=1)


def test_a_lost_connection_is_made_anew(engine: Make, probe: ConnectionProbe) -> None:
    made = engine()
    with made.connect() as one:
        one.invalidate()
        assert level(probe).used == 0
    assert level(probe) == ConnectionLevel(0, 0, 0, limit=2, idle_max=1)
    made.connect().close()
    assert counts(probe) == (2, 2, 2, 0)


def test_a_detached_connection_is_not_the_pools_any_more(engine: Make, probe: ConnectionProbe) -> None:
    made = engine()
    with made.connect() as one:
        one.detach()
        assert level(probe).used == 0
    assert counts(probe) == (1, 1, 1, 0)


def test_a_connection_that_is_let_go_of_comes_back(engine: Make, probe: ConnectionProbe) -> None:
    one = engine().raw_connection()
    assert level(probe).used == 1
    del one
    gc.collect()
    assert (level(probe).used, level(probe).idle) == (0, 1)
    assert counts(probe) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("kind", "options", "while_used", "after"),
    [
        (pool.NullPool, {}, ConnectionLevel(1), ConnectionLevel(0)),
        (pool.SingletonThreadPool, {"pool_size": 3}, ConnectionLevel(1, 0), ConnectionLevel(0, 1)),
        (pool.AssertionPool, {}, ConnectionLevel(1), ConnectionLevel(0)),
        (
            pool.QueuePool,
            {"pool_size": 0, "max_overflow": -1},
            ConnectionLevel(1, 0, limit=None, idle_max=None),
            ConnectionLevel(0, 1, limit=None, idle_max=None),
        ),
    ],
)
def test_other_pools_say_what_they_can(
    engine: Make,
    probe: ConnectionProbe,
    kind: type[pool.Pool],
    options: dict[str, Any],
    while_used: ConnectionLevel,
    after: ConnectionLevel,
) -> None:
    url = engine().url
    made = create_engine(url, poolclass=kind, **options)
    with made.connect():
        assert level(probe) == while_used
    assert level(probe) == after
    assert counts(probe) == (1, 1, 1, 0)
    made.dispose()


def test_a_pool_of_one_for_all_is_left_alone(engine: Make, probe: ConnectionProbe) -> None:
    made = create_engine(engine().url, poolclass=pool.StaticPool)
    with made.connect(), made.connect():
        pass
    assert (probe.read(), probe.levels()) == ([], [])
    made.dispose()


def test_engines_of_before_and_connections_that_are_out_survive(
    probe: ConnectionProbe, tmp_path: Path
) -> None:
    made = create_engine(f"sqlite:///{tmp_path}/db", poolclass=pool.QueuePool, pool_size=2)
    before = made.connect()
    hook = SQLAlchemyPoolHook(probe)
    hook.install()
    hook.install()
    with made.connect():
        before.close()
        assert only(probe).name == "sqlite"
        assert level(probe).used == 1
    out = made.connect()
    marked = made.pool
    assert POOL_KEY in vars(marked)
    hook.remove()
    hook.remove()
    assert POOL_KEY not in vars(marked)
    out.close()
    made.connect().close()
    assert counts(probe) == (2, 1, 1, 0)
    made.dispose()


def test_an_engine_takes_the_options_that_it_took(engine: Make) -> None:
    """`create_engine` reads the code of constructors to know which keywords are for whom."""
    options = {"echo": False, "logging_name": "shop", "hide_parameters": True, "query_cache_size": 7}
    made = engine(**options, execution_options={"stream_results": True}, pool_logging_name="shops")
    assert (made.logging_name, made.hide_parameters, made.pool.logging_name) == ("shop", True, "shops")
    assert made.get_execution_options() == {"stream_results": True}


def test_all_is_put_back(engine: Make, hook: SQLAlchemyPoolHook) -> None:
    made = engine()
    made.connect().close()
    dialect, used = made.dialect, made.pool
    assert (NAME_KEY in vars(dialect), POOL_KEY in vars(used)) == (True, True)
    hook.remove()
    assert (NAME_KEY in vars(dialect), POOL_KEY in vars(used)) == (False, False)
    assert {(owner, name): vars(owner)[name] for owner, name in ORIGINALS} == ORIGINALS
    hook.install()
    assert vars(base._ConnectionRecord)["checkout"] is not ORIGINALS[base._ConnectionRecord, "checkout"]


def test_a_later_patch_survives_our_removal(
    hook: SQLAlchemyPoolHook, engine: Make, probe: ConnectionProbe
) -> None:
    ours = base._ConnectionRecord.checkout
    seen: list[Any] = []

    def theirs(used: Any) -> Any:
        seen.append(used)
        return ours(used)

    base._ConnectionRecord.checkout = staticmethod(theirs)
    try:
        made = engine()
        made.connect().close()
        hook.remove()
        made.connect().close()
    finally:
        base._ConnectionRecord.checkout = ORIGINALS[base._ConnectionRecord, "checkout"]
    assert seen == [made.pool, made.pool]
    assert counts(probe) == (1, 1, 1, 0)


def test_what_we_cannot_tell_harms_nobody(
    engine: Make, probe: ConnectionProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("ours")

    made = engine()
    monkeypatch.setattr(probe, "pool", fail)
    with made.connect() as one:
        assert one.execute(text("select 1")).scalar() == 1
    assert probe.read() == []


def test_another_shape_is_left_alone(monkeypatch: pytest.MonkeyPatch, probe: ConnectionProbe) -> None:
    monkeypatch.delattr(base._ConnectionRecord, "_ConnectionRecord__connect")
    hook = SQLAlchemyPoolHook(probe)
    hook.install()
    assert vars(base._ConnectionRecord)["checkout"] is ORIGINALS[base._ConnectionRecord, "checkout"]
    hook.remove()


def test_threads_lose_no_connection(engine: Make, probe: ConnectionProbe) -> None:
    made = engine(pool_size=2, max_overflow=1, pool_timeout=60)

    def work() -> None:
        for _ in range(200):
            made.connect().close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = only(probe)
    assert (row.wait_times.count, row.use_times.count, row.timeouts) == (1_200, 1_200, 0)
    assert (level(probe).used, level(probe).pending) == (0, 0)
    assert row.create_times.count >= level(probe).idle
