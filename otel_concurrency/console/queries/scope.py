"""What a query looks at: a range of time, and the services and processes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SECOND_NS = 1_000_000_000


class Reader(Protocol):
    """Whatever runs a query: the store."""

    def query(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Return the rows."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at.

    Attributes:
        start_ns: From here on, ns since the epoch.
        end_ns: Up to here.
        services: Only these; all, if empty.
        instances: Only these processes, by `service.instance.id`; all, if empty.
    """

    start_ns: int
    end_ns: int
    services: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()

    @property
    def length_s(self) -> float:
        """Return how long the range is, in seconds, and never 0."""
        return max(1, self.end_ns - self.start_ns) / SECOND_NS

    @property
    def parameters(self) -> dict[str, object]:
        """Return what `IN_RESOURCES` and a time range need: `from`, `to`, `services`, `instances`."""
        named: dict[str, object] = {"from": self.start_ns, "to": self.end_ns}
        if self.services:
            named["services"] = list(self.services)
        if self.instances:
            named["instances"] = list(self.instances)
        return named

    @property
    def of_resource(self) -> str:
        """Return the SQL condition on a row's `resource_key`; `TRUE` where all resources are meant."""
        claims = []
        if self.services:
            claims.append("list_contains($services, service)")
        if self.instances:
            claims.append("list_contains($instances, instance)")
        if not claims:
            return "TRUE"
        return f"resource_key IN (SELECT resource_key FROM resources WHERE {' AND '.join(claims)})"


def pointer(key: str) -> str:
    """Return the JSON pointer of an attribute, whatever its name holds."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def literal(text: str) -> str:
    """Return text as an SQL literal; for names of our own, where a parameter would repeat in every row."""
    return "'" + text.replace("'", "''") + "'"


def attribute(key: str, column: str = "attributes") -> str:
    """Return the SQL expression of an attribute as text, null without it."""
    return f"({column}->>{literal(pointer(key))})"
