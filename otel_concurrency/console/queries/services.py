"""Who sends: services and their processes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from otel_concurrency.console.queries.scope import Reader

MAX_PROCESSES = 500


@dataclass(frozen=True, slots=True)
class Process:
    """One process that has sent something.

    Attributes:
        service: Its `service.name`.
        instance: Its `service.instance.id`.
        pid: Its process id, where the resource tells.
        attributes: All that its resource tells.
    """

    service: str
    instance: str
    pid: int | None
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extent:
    """The times of what is stored, ns since the epoch; none where nothing is."""

    first_ns: int | None
    last_ns: int | None


def processes(reader: Reader) -> list[Process]:
    """Return who has sent something, by service; a process whose resource changed, once."""
    found: dict[tuple[str, str], Process] = {}
    for service, instance, told in reader.query(
        "SELECT service, instance, attributes FROM resources ORDER BY service, instance LIMIT ?",
        [MAX_PROCESSES],
    ):
        attributes = json.loads(told)
        pid = attributes.get("process.pid")
        found[service, instance] = Process(
            service, instance, pid if isinstance(pid, int) else None, attributes
        )
    return list(found.values())


def extent(reader: Reader) -> Extent:
    """Return from when to when there is something, of any signal."""
    rows = reader.query(
        """
        SELECT min(first_ns), max(last_ns) FROM (
            SELECT min(start_ns) AS first_ns, max(end_ns) AS last_ns FROM spans WHERE start_ns > 0
            UNION ALL SELECT min(time_ns), max(time_ns) FROM logs WHERE time_ns > 0
            UNION ALL SELECT min(time_ns), max(time_ns) FROM metric_points WHERE time_ns > 0)
        """
    )
    return Extent(*rows[0])
