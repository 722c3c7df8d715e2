"""What tasks wait for of each other, as metrics: only what somebody had to wait for."""

from __future__ import annotations

from collections.abc import Iterable

from otel_concurrency.probes.waits import WaitRow
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading, Labels, Reading, SumReading


def wait_readings(rows: Iterable[WaitRow]) -> list[Reading]:
    """Return the metrics of all kinds of waits that there were."""
    seen: list[tuple[Labels, WaitRow]] = [
        ({names.SYNC_TYPE: row.kind}, row) for row in rows if row.contentions
    ]
    return [
        SumReading(names.SYNC_CONTENTIONS, [(kind, row.contentions) for kind, row in seen]),
        SumReading(names.SYNC_WAITING, [(kind, row.waiting) for kind, row in seen]),
        SumReading(names.SYNC_WAIT_TIME, [(kind, row.wait_ns) for kind, row in seen]),
        HistogramReading(names.SYNC_WAIT_DURATION, [(kind, row.durations) for kind, row in seen]),
    ]
