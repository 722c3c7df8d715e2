"""The tables in the database, for one writer: groups of batches go in, what has to make room goes out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

from otel_concurrency.console.schema import RESOURCES, SCOPES, TELEMETRY, Batch, Table
from otel_concurrency.console.shelf import LOT_NS, Limits, Shelf

MAX_IDLE_DESCRIPTIONS = 1_000
"""Resources, and scopes, beyond which those that no row points at are removed."""


class Tables:
    """What the store holds; one call at a time.

    Args:
        connection: The writer's own.
        limits: What each table keeps.

    Raises:
        ValueError: A table has other columns than ours.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, limits: Limits) -> None:
        self.shelves = {table.name: Shelf() for table in TELEMETRY}
        self._connection = connection
        self._limits = limits
        self._described: dict[str, set[int]] = {}
        self._description_limit = {RESOURCES.name: MAX_IDLE_DESCRIPTIONS, SCOPES.name: MAX_IDLE_DESCRIPTIONS}
        for table in (RESOURCES, SCOPES, *TELEMETRY):
            connection.execute(table.create_sql)
            found = connection.execute(f"SELECT * FROM {table.name} LIMIT 0").description
            if [column[0] for column in found] != list(table.columns):
                raise ValueError(f"its {table.name} table differs")
        self._read_back()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def write(self, batches: Sequence[Batch], now_ns: int, counting: threading.Condition) -> None:
        """Store batches, and drop what is over the limits, in one transaction.

        Args:
            batches: Of any tables.
            now_ns: The time, ns since the epoch.
            counting: Held while the counts change, and told.
        """
        by_table = {table.name: [it for it in batches if it.table is table] for table in TELEMETRY}
        cuts: dict[str, tuple[int, int]] = {}
        before = {name: shelf.next for name, shelf in self.shelves.items()}
        self._connection.begin()
        try:
            for batch in batches:
                self._describe(RESOURCES, batch.resources)
                self._describe(SCOPES, batch.scopes)
            for table in TELEMETRY:
                shelf = self.shelves[table.name]
                rows = list(self._numbered(by_table[table.name], shelf, now_ns))
                if rows:
                    self._insert(table, rows)
                first, _ = cut = shelf.keep_from(now_ns, self._limits)
                if first > shelf.first:
                    self._connection.execute(f"DELETE FROM {table.name} WHERE id < ?", [first])
                    cuts[table.name] = cut
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            self._read_back()
            raise
        with counting:
            for name, shelf in self.shelves.items():
                shelf.received += shelf.next - before[name]
                shelf.rejected += sum(batch.rejected_count for batch in by_table[name])
                if name in cuts:
                    shelf.drop(*cuts[name])
                shelf.stored = shelf.next - shelf.first
            counting.notify_all()

    def clear(self) -> None:
        """Drop all rows, and what describes them."""
        self._connection.begin()
        for table in (*TELEMETRY, RESOURCES, SCOPES):
            self._connection.execute(f"DELETE FROM {table.name}")
        self._connection.commit()
        with contextlib.suppress(duckdb.Error):  # somebody reads: the next one frees the file's space
            self._connection.execute("CHECKPOINT")
        for shelf in self.shelves.values():
            shelf.hold(shelf.next, shelf.next, ())
        self._described = {RESOURCES.name: set(), SCOPES.name: set()}

    def _numbered(self, batches: Sequence[Batch], shelf: Shelf, now_ns: int) -> Iterator[tuple[Any, ...]]:
        """Yield rows with their id, when they came, and what they weighed."""
        for batch in batches:
            count = len(batch.rows)
            if not count:
                continue
            each, rest = divmod(batch.size_bytes, count)
            start = shelf.next
            shelf.add(count, batch.size_bytes, now_ns, self._limits)
            for number, row in enumerate(batch.rows):
                yield (start + number, now_ns, each + rest if not number else each, *row)

    def _insert(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        open_appender = getattr(self._connection, "appender", None)
        if open_appender is None:  # before DuckDB 2
            columns = [list(column) for column in zip(*rows, strict=True)]
            self._connection.execute(table.insert_sql, columns)
            return
        appender = open_appender(table.name)
        try:
            appender.append_rows(rows)
            appender.flush()
        except BaseException:
            appender.clear()
            raise

    def _read_back(self) -> None:
        """Learn from the database what it holds: when it is opened, and after a transaction that failed."""
        for table in (RESOURCES, SCOPES):
            self._described[table.name] = self._described_keys(table)
        for table in TELEMETRY:
            bounds = f"SELECT coalesce(min(id), 0), coalesce(max(id) + 1, 0) FROM {table.name}"
            first, after = self._connection.execute(bounds).fetchall()[0]
            lots = (
                f"SELECT max(id) + 1, sum(size_bytes)::BIGINT, min(received_ns) FROM {table.name} "
                f"GROUP BY received_ns // {LOT_NS} ORDER BY 1"
            )
            shelf = self.shelves[table.name]
            if not after:  # what is gone from an emptied table had numbers, too
                first = after = shelf.next
            shelf.hold(first, after, self._connection.execute(lots).fetchall())

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
