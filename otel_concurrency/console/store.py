"""The DuckDB store: bounded tables of spans, logs and metric points, which count what they drop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from otel_concurrency.console.schema import RESOURCES, SCOPES, TELEMETRY, Batch, Table

MEMORY = ":memory:"
MAX_ROWS = 200_000
"""Rows that each table keeps; the oldest go first."""

MAX_BYTES = 256 * 2**20
"""Request bytes whose rows each table keeps: a bound for rows that are few but huge."""

MAX_IDLE_DESCRIPTIONS = 1_000
"""Resources, and scopes, beyond which those that no row points at are removed."""


class StoreError(Exception):
    """The store cannot be opened, or was closed."""


@dataclass(frozen=True, slots=True)
class TableCounts:
    """What became of the items sent to one table, since the store was opened.

    Attributes:
        stored: Rows it holds now.
        received: Rows it was given.
        evicted: Rows it has dropped, oldest first, to stay within its limits.
        rejected: Items that never became a row because they were malformed.
    """

    stored: int
    received: int
    evicted: int
    rejected: int


@dataclass(slots=True)
class _Shelf:
    """One table's ids in use, `first` up to but not including `next`, and its batches, oldest first."""

    first: int = 0
    next: int = 0
    received: int = 0
    evicted: int = 0
    rejected: int = 0
    size_bytes: int = 0
    batches: deque[tuple[int, int]] = field(default_factory=deque)  # (id after the last row, bytes)


class Store:
    """Keeps what the receiver takes in; one writer at a time, any number of readers, any threads.

    Args:
        path: A file to keep it in, or `MEMORY`. A file is opened with what it holds.
        max_rows: Rows kept in each table.
        max_bytes: Request bytes whose rows are kept in each table.

    Raises:
        StoreError: The file is not a store, is in use by another process, or was written by another version.
    """

    def __init__(
        self, path: str | Path = MEMORY, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self._path = str(path)
        self._changed = threading.Condition()  # its lock is the writers' lock
        self._shelves = {table.name: _Shelf() for table in TELEMETRY}
        self._described: dict[str, set[int]] = {}
        self._description_limit = {RESOURCES.name: MAX_IDLE_DESCRIPTIONS, SCOPES.name: MAX_IDLE_DESCRIPTIONS}
        self._is_closed = False
        try:
            # Nothing is fetched from anywhere: what DuckDB needs here is built into it.
            config: dict[str, str | bool | int | float | list[str]] = {
                "autoinstall_known_extensions": "false",
                "threads": 2,
            }
            self._connection = duckdb.connect(self._path, config=config)
            self._open_tables()
        except duckdb.Error as error:
            raise StoreError(f"cannot keep telemetry in {self._path}: {error}") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count.stored} {name}" for name, count in self.counts().items())
        return f"<Store {self._path} [{counts}]>"

    def insert(self, batch: Batch) -> None:
        """Store a batch and evict what it pushes out, both or neither.

        Raises:
            StoreError: The store was closed.
        """
        with self._changed:
            self._check_open()
            shelf = self._shelves[batch.table.name]
            if batch.rows:
                self._write(batch, shelf)
            shelf.rejected += batch.rejected_count
            self._changed.notify_all()

    def query(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a query on what is stored now, beside the writer.

        Raises:
            StoreError: The store was closed.
            duckdb.Error: The query is wrong.
        """
        with self._changed:
            self._check_open()
            cursor = self._connection.cursor()  # a connection of its own: it sees whole batches only
        try:
            return cursor.execute(sql, parameters).fetchall()
        finally:
            cursor.close()

    def counts(self) -> dict[str, TableCounts]:
        """Return what became of the items sent to each table, by table name."""
        with self._changed:
            return {
                name: TableCounts(shelf.next - shelf.first, shelf.received, shelf.evicted, shelf.rejected)
                for name, shelf in self._shelves.items()
            }

    def wait_until(self, claim: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a claim about the store holds; it is asked again after each change.

        Returns:
            Whether it held in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with self._changed:
                seen = self._version()
            if claim():  # outside the lock: it queries, and writers go on meanwhile
                return True
            with self._changed:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._is_closed:
                    return False
                if self._version() == seen:
                    self._changed.wait(min(remaining, 0.5))

    def close(self) -> None:
        """Close the database; a memory store is gone with it. Closing twice is fine."""
        with self._changed:
            if not self._is_closed:
                self._is_closed = True
                self._connection.close()
                self._changed.notify_all()

    def _version(self) -> tuple[int, bool]:
        return sum(shelf.received + shelf.rejected for shelf in self._shelves.values()), self._is_closed

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError(f"the store {self._path} was closed")

    def _open_tables(self) -> None:
        for table in (RESOURCES, SCOPES, *TELEMETRY):
            self._connection.execute(table.create_sql)
            found = self._connection.execute(f"SELECT * FROM {table.name} LIMIT 0").description
            if [column[0] for column in found] != list(table.columns):
                raise StoreError(
                    f"{self._path} was written by another version: its {table.name} table differs"
                )
        for table in (RESOURCES, SCOPES):
            self._described[table.name] = self._described_keys(table)
        for table in TELEMETRY:
            bounds = f"SELECT coalesce(min(id), 0), coalesce(max(id) + 1, 0) FROM {table.name}"
            first, after = self._connection.execute(bounds).fetchall()[0]
            shelf = self._shelves[table.name]
            shelf.first, shelf.next = first, after
            shelf.batches.append((after, 0))

    def _write(self, batch: Batch, shelf: _Shelf) -> None:
        after = shelf.next + len(batch.rows)
        size_bytes = shelf.size_bytes + batch.size_bytes
        shelf.batches.append((after, batch.size_bytes))
        first = max(shelf.first, after - self.max_rows)
        drop = 0
        while size_bytes > self.max_bytes and drop < len(shelf.batches):
            last_id, freed = shelf.batches[drop]
            first = max(first, last_id)
            size_bytes -= freed
            drop += 1
        ids = range(shelf.next, after)
        self._connection.begin()
        try:
            self._describe(RESOURCES, batch.resources)
            self._describe(SCOPES, batch.scopes)
            columns = [list(column) for column in zip(*batch.rows, strict=True)]
            self._connection.execute(batch.table.insert_sql, [list(ids), *columns])
            if first > shelf.first:
                self._connection.execute(f"DELETE FROM {batch.table.name} WHERE id < ?", [first])
            self._connection.commit()
        except BaseException:
            shelf.batches.pop()
            self._connection.rollback()
            self._described = {table.name: self._described_keys(table) for table in (RESOURCES, SCOPES)}
            raise
        while shelf.batches and shelf.batches[0][0] <= first:
            shelf.size_bytes -= shelf.batches.popleft()[1]
        shelf.size_bytes += batch.size_bytes
        shelf.received += len(batch.rows)
        shelf.evicted += first - shelf.first
        shelf.first, shelf.next = first, after

    def _describe(self, table: Table, rows: Mapping[int, tuple[Any, ...]]) -> None:
        known = self._described[table.name]
        new = [row for key, row in rows.items() if key not in known]
        if not new:
            return
        if len(known) + len(new) > self._description_limit[table.name]:
            self._forget_idle(table)
            known = self._described[table.name]
            new = [row for key, row in rows.items() if key not in known]
        self._connection.execute(table.insert_sql, [list(column) for column in zip(*new, strict=True)])
        known.update(row[0] for row in new)

    def _forget_idle(self, table: Table) -> None:
        """Remove descriptions that no row points at, and double the limit where most of them are in use."""
        key = next(iter(table.columns))
        in_use = " UNION ".join(f"SELECT {key} FROM {telemetry.name}" for telemetry in TELEMETRY)
        self._connection.execute(f"DELETE FROM {table.name} WHERE {key} NOT IN ({in_use})")
        left = self._described[table.name] = self._described_keys(table)
        self._description_limit[table.name] = max(MAX_IDLE_DESCRIPTIONS, 2 * len(left))

    def _described_keys(self, table: Table) -> set[int]:
        key = next(iter(table.columns))
        return {row[0] for row in self._connection.execute(f"SELECT {key} FROM {table.name}").fetchall()}
