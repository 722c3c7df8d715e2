"""The tables: one named tuple a row, its annotations are the column types.

Ids are lower-case hex, times are ns since the epoch, attributes are a JSON object. A resource or scope is
stored once, under a key made of its content, and rows point at it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, get_type_hints

Text = Annotated[str, "VARCHAR"]
OptionalText = Annotated["str | None", "VARCHAR"]
Json = Annotated[str, "JSON"]
OptionalJson = Annotated["str | None", "JSON"]
Int64 = Annotated[int, "BIGINT"]
OptionalInt64 = Annotated["int | None", "BIGINT"]
UInt32 = Annotated[int, "UINTEGER"]
OptionalCount = Annotated["int | None", "UBIGINT"]
OptionalDouble = Annotated["float | None", "DOUBLE"]
OptionalBool = Annotated["bool | None", "BOOLEAN"]


class ResourceRow(NamedTuple):
    """What sent telemetry: a process, as its resource describes it."""

    resource_key: Int64
    service: Text
    instance: Text
    attributes: Json
    schema_url: Text


class ScopeRow(NamedTuple):
    """Which library made it."""

    scope_key: Int64
    name: Text
    version: Text
    attributes: Json
    schema_url: Text


class SpanRow(NamedTuple):
    """A span; `parent_span_id` is null at a root, `events` and `links` are JSON arrays."""

    resource_key: Int64
    scope_key: Int64
    trace_id: Text
    span_id: Text
    parent_span_id: OptionalText
    trace_state: Text
    flags: UInt32
    name: Text
    kind: Text
    start_ns: Int64
    end_ns: Int64
    status: Text
    status_message: Text
    attributes: Json
    events: Json
    links: Json
    dropped_attributes: UInt32
    dropped_events: UInt32
    dropped_links: UInt32


class LogRow(NamedTuple):
    """A log record; `time_ns` is the observed time where it has no other, `body` is any JSON value."""

    resource_key: Int64
    scope_key: Int64
    time_ns: Int64
    observed_ns: Int64
    severity_number: UInt32
    severity: Text
    body: Json
    event_name: Text
    trace_id: OptionalText
    span_id: OptionalText
    flags: UInt32
    attributes: Json
    dropped_attributes: UInt32


class PointRow(NamedTuple):
    """One data point of a metric.

    `value` is a sum's or a gauge's, `int_value` the same where it was sent as an integer; none where it is no
    number, which `distribution` then names as `{"value": "NaN"}`. The others fill
    `value_count`, `value_sum`, `value_min`, `value_max` and `distribution`: `{"bounds", "counts"}` of a
    histogram; `{"scale", "zero_count", "zero_threshold", "positive", "negative"}` of an exponential one, the
    last two with `{"offset", "counts"}`; `{"quantiles"}` of a summary.
    """

    resource_key: Int64
    scope_key: Int64
    name: Text
    unit: Text
    description: Text
    kind: Text
    temporality: OptionalText
    monotonic: OptionalBool
    attributes: Json
    start_ns: Int64
    time_ns: Int64
    flags: UInt32
    value: OptionalDouble = None
    int_value: OptionalInt64 = None
    value_count: OptionalCount = None
    value_sum: OptionalDouble = None
    value_min: OptionalDouble = None
    value_max: OptionalDouble = None
    distribution: OptionalJson = None
    exemplars: Json = "[]"


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the statements for it.

    Attributes:
        name: Its name.
        columns: Column types by name, in the order of the row's fields.
        is_numbered: Whether rows carry, before the others, a growing `id`, when they came, and what each of
            their request weighed: to evict in order of arrival, also after a restart.
    """

    name: str
    columns: dict[str, str]
    is_numbered: bool

    @classmethod
    def of(cls, name: str, row: type[NamedTuple], *, is_numbered: bool) -> Table:
        """Read the columns off a row's annotations."""
        hints: dict[str, Any] = get_type_hints(row, include_extras=True)
        numbering = dict.fromkeys(("id", "received_ns", "size_bytes"), "BIGINT") if is_numbered else {}
        return cls(
            name,
            numbering | {column: hint.__metadata__[0] for column, hint in hints.items()},
            is_numbered,
        )

    @property
    def create_sql(self) -> str:
        """Return the statement that makes it, unless it is there."""
        columns = ", ".join(f'"{column}" {kind}' for column, kind in self.columns.items())
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns})"

    @property
    def insert_sql(self) -> str:
        """Return the statement that inserts many rows: one list a column, side by side.

        DuckDB takes 0.5 ms for each row of an `executemany`; this way some 15 µs, without pandas or Arrow.
        The appender of DuckDB 2 takes 10.
        """
        return f"INSERT INTO {self.name} SELECT " + ", ".join(
            f"unnest(?::{kind}[])" for kind in self.columns.values()
        )


RESOURCES = Table.of("resources", ResourceRow, is_numbered=False)
SCOPES = Table.of("scopes", ScopeRow, is_numbered=False)
SPANS = Table.of("spans", SpanRow, is_numbered=True)
LOGS = Table.of("logs", LogRow, is_numbered=True)
POINTS = Table.of("metric_points", PointRow, is_numbered=True)
TELEMETRY = (SPANS, LOGS, POINTS)


@dataclass(slots=True)
class Batch:
    """The rows of one export request, ready to store.

    Attributes:
        table: Where the rows go.
        rows: In the order they came.
        resources: The resources that the rows point at, by key.
        scopes: The scopes that the rows point at, by key.
        size_bytes: What the request weighed, decompressed.
        rejected: Reasons why items were left out, with how many each.
    """

    table: Table
    size_bytes: int = 0
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    resources: dict[int, ResourceRow] = field(default_factory=dict)
    scopes: dict[int, ScopeRow] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)

    def reject(self, reason: str, count: int = 1) -> None:
        """Count items that are not stored."""
        self.rejected[reason] = self.rejected.get(reason, 0) + count

    @property
    def rejected_count(self) -> int:
        """Count all the items that are not stored."""
        return sum(self.rejected.values())

    @property
    def rejection(self) -> str:
        """Say how many were left out and why; empty when none was."""
        return "; ".join(f"{count} with {reason}" for reason, count in self.rejected.items())
