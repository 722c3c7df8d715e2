"""The DuckDB store: bounded tables of spans, logs and metric points, which count what they drop.

What `insert` has returned from is on the disk, or in memory where no file was asked for. Writers that come at
once share a commit: the first takes what the others brought along, and they find it done.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from otel_concurrency.console.schema import Batch
from otel_concurrency.console.shelf import Limits
from otel_concurrency.console.tables import Tables

MEMORY = ":memory:"
MAX_ROWS = 200_000
"""Rows that each table keeps; the oldest go first."""

MAX_BYTES = 256 * 2**20
"""Request bytes whose rows each table keeps: a bound for rows that are few but huge."""

MEMORY_LIMIT = "1GB"
"""What DuckDB may use of the memory; larger sorts go through files beside a store that is one."""

# The disk is full, or the memory used up: later it may not be.
_PASSING = (duckdb.OperationalError, duckdb.InternalError, duckdb.FatalException)


class StoreError(Exception):
    """The store cannot be opened, was closed, or has no room now."""


class Unstorable(ValueError):  # noqa: N818  (an input, not a fault of ours)
    """A batch holds what no table can."""


@dataclass(frozen=True, slots=True)
class TableCounts:
    """What became of the items sent to one table, since the store was opened.

    Attributes:
        stored: Rows it holds now.
        received: Rows it was given.
        evicted: Rows it has dropped, oldest first, to stay within its limits.
        rejected: Items that never became a row because they were malformed.
        expired: Rows it has dropped because of their age.
    """

    stored: int
    received: int
    evicted: int
    rejected: int
    expired: int = 0


class _Waiting:
    """A batch on its way into the store."""

    __slots__ = ("batch", "error", "is_done")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.is_done = False
        self.error: Exception | None = None


class Store:
    """Keeps what the receiver takes in; any number of writers and readers, any threads.

    Args:
        path: A file to keep it in, or `MEMORY`. A file is opened with what it holds.
        max_rows: Rows kept in each table.
        max_bytes: Request bytes whose rows are kept in each table.
        max_age_s: How long rows are kept after they came; none for as long as there is room.
        memory_limit: What DuckDB may use of the memory, in its words.

    Raises:
        StoreError: The file is not a store, is in use by another process, or was written by another version.
    """

    def __init__(
        self,
        path: str | Path = MEMORY,
        *,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
        max_age_s: float | None = None,
        memory_limit: str = MEMORY_LIMIT,
    ) -> None:
        age_ns = None if max_age_s is None else int(max_age_s * 1e9)
        self.limits = Limits(max_rows, max_bytes, age_ns)
        self._path = str(path)
        self._changed = threading.Condition()  # for who waits; held for a moment only
        self._writing = threading.Lock()  # held for a whole transaction
        self._waiting: deque[_Waiting] = deque()
        self._is_closed = False
        # Nothing is fetched from anywhere: what DuckDB needs here is built into it. Nor does a store in
        # memory leave files where somebody works.
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "threads": 2,
            "memory_limit": memory_limit,
        }
        if self._path == MEMORY:
            config["temp_directory"] = ""
        try:
            self._connection = duckdb.connect(self._path, config=config)
        except duckdb.Error as error:
            raise StoreError(f"cannot keep telemetry in {self._path}: {error}") from error
        try:
            self._tables = Tables(self._connection.cursor(), self.limits)
        except duckdb.Error as error:
            self._connection.close()
            raise StoreError(f"cannot keep telemetry in {self._path}: {error}") from error
        except ValueError as error:
            self._connection.close()
            raise StoreError(f"{self._path} was written by another version: {error}") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count.stored} {name}" for name, count in self.counts().items())
        return f"<Store {self._path} [{counts}]>"

    def insert(self, batch: Batch) -> None:
        """Store a batch and evict what it pushes out, both or neither; returns when it is committed.

        Raises:
            StoreError: The store was closed, or has no room.
            Unstorable: No table can hold what is in it.
        """
        mine = _Waiting(batch)
        self._waiting.append(mine)
        with self._writing:
            if not mine.is_done:
                group = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._store(group)
        if mine.error is not None:
            raise mine.error

    def expire(self) -> None:
        """Drop what is too old; for when nothing comes that would push it out."""
        with self._writing:
            if not self._is_closed:
                self._write([])

    def clear(self) -> None:
        """Drop all rows, without counting them as evicted.

        Raises:
            StoreError: The store was closed.
        """
        with self._writing:
            self._check_open()
            self._tables.clear()
        with self._changed:
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
                name: TableCounts(it.stored, it.received, it.evicted, it.rejected, it.expired)
                for name, it in self._tables.shelves.items()
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
        with self._writing, self._changed:
            if not self._is_closed:
                self._is_closed = True
                self._tables.close()
                self._connection.close()
                self._changed.notify_all()

    def _version(self) -> tuple[int, bool]:
        shelves = self._tables.shelves.values()
        return sum(shelf.received + shelf.rejected for shelf in shelves), self._is_closed

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError(f"the store {self._path} was closed")

    def _store(self, group: list[_Waiting]) -> None:
        """Store batches together; if that fails, each for itself, so that one cannot spoil the others."""
        try:
            self._check_open()
            self._write([it.batch for it in group])
        except Exception as error:
            if len(group) > 1:
                for it in group:
                    self._store([it])
                return
            group[0].error = error
        for it in group:
            it.is_done = True

    def _write(self, batches: Sequence[Batch]) -> None:
        try:
            self._tables.write(batches, time.time_ns(), self._changed)
        except _PASSING as error:
            raise StoreError(f"nothing can be kept in {self._path} now: {error}") from error
        except (duckdb.Error, ValueError, TypeError, OverflowError) as error:
            if len(batches) == 1:  # of several it is one; they are tried again, each for itself
                self._tables.shelves[batches[0].table.name].rejected += len(batches[0].rows)
            raise Unstorable(str(error)) from error
