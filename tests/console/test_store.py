"""The store: bounded, exact about what it drops, correct under threads, and kept in a file if asked."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

from otel_concurrency.console import Store, StoreError, TableCounts
from otel_concurrency.console import store as store_module
from otel_concurrency.console import tables as tables_module
from otel_concurrency.console.schema import LOGS, POINTS, RESOURCES, SCOPES, SPANS, Batch, PointRow, SpanRow
from otel_concurrency.console.span_rows import span_batch
from otel_concurrency.console.store import Unstorable
from tests.console.conftest import trace_request


def batch_of(count: int, *, size_bytes: int = 0, service: str = "shop", name: str = "span") -> Batch:
    request = trace_request(*[{"name": f"{name} {number}"} for number in range(count)], service=service)
    return span_batch(request, size_bytes, 100_000)


def names(store: Store) -> list[str]:
    return [row[0] for row in store.query("SELECT name FROM spans ORDER BY id")]


def test_rows_and_columns_agree() -> None:
    """A row is a tuple in the order of its table's columns, but for the number that the store adds."""
    assert list(SPANS.columns) == ["id", "received_ns", "size_bytes", *SpanRow._fields]
    assert list(POINTS.columns) == ["id", "received_ns", "size_bytes", *PointRow._fields]
    assert SPANS.columns["start_ns"] == "BIGINT"
    assert POINTS.columns["value"] == "DOUBLE"


def test_the_oldest_rows_make_room() -> None:
    with Store(max_rows=5) as store:
        store.insert(batch_of(4, name="old"))
        store.insert(batch_of(3, name="new"))
        assert names(store) == ["old 2", "old 3", "new 0", "new 1", "new 2"]
        assert store.counts()["spans"] == TableCounts(stored=5, received=7, evicted=2, rejected=0)


def test_a_batch_larger_than_the_table_leaves_its_end() -> None:
    with Store(max_rows=2) as store:
        store.insert(batch_of(5))
        assert names(store) == ["span 3", "span 4"]
        assert store.counts()["spans"] == TableCounts(stored=2, received=5, evicted=3, rejected=0)


def test_few_but_huge_rows_make_room_too() -> None:
    with Store(max_bytes=1000) as store:
        store.insert(batch_of(2, size_bytes=600, name="first"))
        store.insert(batch_of(1, size_bytes=300, name="second"))
        assert names(store) == ["first 0", "first 1", "second 0"]
        store.insert(batch_of(1, size_bytes=500, name="third"))
        assert names(store) == ["second 0", "third 0"]
        store.insert(batch_of(1, size_bytes=1001, name="monster"))
        assert names(store) == []
        assert store.counts()["spans"] == TableCounts(stored=0, received=5, evicted=5, rejected=0)
        store.insert(batch_of(1, size_bytes=1000, name="last"))
        assert names(store) == ["last 0"]


def test_bytes_of_rows_that_made_room_are_free_again() -> None:
    with Store(max_rows=2, max_bytes=1000) as store:
        for number in range(50):
            store.insert(batch_of(1, size_bytes=500, name=f"batch {number}"))
        assert names(store) == ["batch 48 0", "batch 49 0"]


def test_a_resource_is_stored_once() -> None:
    with Store() as store:
        for service in ("shop", "warehouse", "shop"):
            store.insert(batch_of(1, service=service))
        assert sorted(store.query("SELECT service FROM resources")) == [("shop",), ("warehouse",)]
        assert store.query("SELECT name, version FROM scopes") == [("tests", "")]
        joined = "SELECT service FROM spans JOIN resources USING (resource_key) ORDER BY id"
        assert [row[0] for row in store.query(joined)] == ["shop", "warehouse", "shop"]


def test_resources_without_rows_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that restarts for ever makes a new resource each time; those whose rows are gone go too."""
    monkeypatch.setattr(tables_module, "MAX_IDLE_DESCRIPTIONS", 4)
    with Store(max_rows=2) as store:
        for number in range(40):
            store.insert(batch_of(1, service=f"service {number}"))
        kept = {row[0] for row in store.query("SELECT service FROM resources")}
        assert {"service 38", "service 39"} <= kept
        assert len(kept) <= 4
        joined = "SELECT service FROM spans JOIN resources USING (resource_key) ORDER BY id"
        assert store.query(joined) == [("service 38",), ("service 39",)]


def test_resources_in_use_stay_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "MAX_IDLE_DESCRIPTIONS", 4)
    with Store() as store:
        for number in range(40):
            store.insert(batch_of(1, service=f"service {number}"))
        joined = "SELECT count(DISTINCT service) FROM spans JOIN resources USING (resource_key)"
        assert store.query(joined) == [(40,)]


def test_a_failed_insert_leaves_nothing() -> None:
    with Store() as store:
        broken = batch_of(2, service="broken")
        broken.rows[1] = broken.rows[1]._replace(start_ns="no number")
        with pytest.raises(Unstorable):
            store.insert(broken)
        assert store.query("SELECT count(*) FROM spans") == [(0,)]
        assert store.query("SELECT count(*) FROM resources") == [(0,)]
        assert store.counts()["spans"] == TableCounts(stored=0, received=0, evicted=0, rejected=2)
        store.insert(batch_of(1, service="broken"))
        assert store.query("SELECT service FROM spans JOIN resources USING (resource_key)") == [("broken",)]


def test_writers_and_readers_at_once() -> None:
    """Eight threads write while two read: nothing is lost, and a reader never sees half a batch."""
    writers, batches, rows = 8, 25, 7
    with Store() as store:
        done = threading.Event()
        seen: list[int] = []

        def write(writer: int) -> None:
            for number in range(batches):
                store.insert(batch_of(rows, name=f"{writer} {number}", service=f"service {writer}"))

        def read() -> None:
            while not done.is_set():
                seen.append(store.query("SELECT count(*) FROM spans")[0][0])

        readers = [threading.Thread(target=read) for _ in range(2)]
        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
        for thread in readers + threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        expected = sorted(
            f"{writer} {number} {row}"
            for writer in range(writers)
            for number in range(batches)
            for row in range(rows)
        )
        assert sorted(names(store)) == expected
        assert store.query("SELECT count(*) FROM resources") == [(writers,)]
        assert seen
        assert {count % rows for count in seen} == {0}


def test_waiting_ends_when_the_claim_holds() -> None:
    with Store() as store:
        writer = threading.Thread(target=lambda: store.insert(batch_of(3)))
        writer.start()
        assert store.wait_until(lambda: len(names(store)) == 3, timeout_s=20)
        writer.join()
        assert not store.wait_until(lambda: len(names(store)) == 4, timeout_s=0)


def test_a_file_is_opened_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    with Store(path) as store:
        store.insert(batch_of(3, name="before"))
    with Store(path, max_rows=4) as store:
        store.insert(batch_of(2, name="after"))
        assert names(store) == ["before 1", "before 2", "after 0", "after 1"]
        assert store.counts()["spans"] == TableCounts(stored=4, received=2, evicted=1, rejected=0)
        assert store.query("SELECT service FROM resources") == [("shop",)]


@pytest.mark.parametrize("content", ["not a database", "another table"])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.duckdb"
    if content == "not a database":
        path.write_text(content * 1000)
        complaint = "cannot keep telemetry in"
    else:
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE spans (id BIGINT, something VARCHAR)")
        complaint = "written by another version: its spans table differs"
    with pytest.raises(StoreError, match=complaint):
        Store(path)


def test_a_closed_store_says_so() -> None:
    store = Store()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.insert(batch_of(1))
    with pytest.raises(StoreError, match="was closed"):
        store.query("SELECT 1")


def test_the_repr_tells_what_is_held() -> None:
    with Store() as store:
        store.insert(batch_of(2))
        assert repr(store) == "<Store :memory: [2 spans, 0 logs, 0 metric_points]>"


def test_every_table_has_its_name() -> None:
    assert [table.name for table in (RESOURCES, SCOPES, SPANS, LOGS, POINTS)] == [
        "resources",
        "scopes",
        "spans",
        "logs",
        "metric_points",
    ]


class _Before2:
    """A connection as DuckDB 1 has it: without an appender."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> object:
        if name == "appender":
            raise AttributeError(name)
        return getattr(self._connection, name)


def test_rows_go_in_without_an_appender_as_with_one() -> None:
    stored = []
    for as_before in (False, True):
        with Store() as store:
            if as_before:
                store._tables._connection = _Before2(store._tables._connection)  # type: ignore[assignment]
            store.insert(batch_of(3, size_bytes=100))
            store.insert(batch_of(1))
            stored.append(store.query("SELECT * EXCLUDE received_ns FROM spans ORDER BY id"))
    assert stored[0] == stored[1]
    assert [row[:2] for row in stored[0]] == [(0, 34), (1, 33), (2, 33), (3, 0)]


def test_old_rows_go_when_asked_and_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 1_000_000_000_000
    monkeypatch.setattr(
        store_module, "time", SimpleNamespace(time_ns=lambda: now_ns, monotonic=time.monotonic)
    )
    with Store(max_rows=4, max_age_s=60) as store:
        store.insert(batch_of(2, name="old"))
        now_ns += 50_000_000_000
        store.insert(batch_of(3, name="young"))
        assert store.counts()["spans"] == TableCounts(stored=4, received=5, evicted=1, rejected=0)
        now_ns += 20_000_000_000
        store.expire()
        assert names(store) == ["young 0", "young 1", "young 2"]
        assert store.counts()["spans"] == TableCounts(stored=3, received=5, evicted=1, rejected=0, expired=1)


def test_age_and_size_are_known_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 1_000_000_000_000
    monkeypatch.setattr(
        store_module, "time", SimpleNamespace(time_ns=lambda: now_ns, monotonic=time.monotonic)
    )
    path = tmp_path / "telemetry.duckdb"
    with Store(path) as store:
        store.insert(batch_of(2, name="first", size_bytes=600))
        now_ns += 50_000_000_000
        store.insert(batch_of(2, name="second", size_bytes=300))
    with Store(path, max_bytes=1000, max_age_s=60) as store:
        store.insert(batch_of(1, name="third", size_bytes=200))
        assert names(store) == ["second 0", "second 1", "third 0"]
        now_ns += 20_000_000_000
        store.expire()
        assert names(store) == ["second 0", "second 1", "third 0"]
        now_ns += 41_000_000_000
        store.expire()
        assert names(store) == []
        assert store.counts()["spans"] == TableCounts(stored=0, received=1, evicted=2, rejected=0, expired=3)


def test_one_batch_cannot_spoil_those_that_share_its_commit() -> None:
    with Store() as store:
        broken = batch_of(2, name="broken")
        broken.rows[1] = broken.rows[1]._replace(start_ns="no number")
        good = [batch_of(2, name="good"), batch_of(1, name="better")]
        group = [store_module._Waiting(batch) for batch in (good[0], broken, good[1])]
        with store._writing:
            store._store(group)
        assert [type(it.error) for it in group] == [type(None), Unstorable, type(None)]
        assert names(store) == ["good 0", "good 1", "better 0"]
        assert store.counts()["spans"] == TableCounts(stored=3, received=3, evicted=0, rejected=2)


def test_a_cleared_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    with Store(path, max_rows=4) as store:
        store.insert(batch_of(4, name="before"))
        store.clear()
        assert names(store) == []
        assert store.query("SELECT count(*) FROM resources") == [(0,)]
        store.insert(batch_of(2, name="after"))
        assert names(store) == ["after 0", "after 1"]
        assert store.counts()["spans"] == TableCounts(stored=2, received=6, evicted=0, rejected=0)


def test_a_reader_does_not_wait_for_the_writer() -> None:
    with Store() as store:
        store.insert(batch_of(1))
        with store._writing:
            assert len(names(store)) == 1
            assert store.counts()["spans"].stored == 1
