"""The attributes by which every metric and event names an event loop."""

from __future__ import annotations

from otel_concurrency.probes.tasks import OTHER
from otel_concurrency.signals import names


def loop_labels(loop_id: int | None, loop_type: str) -> dict[str, str]:
    """Return a loop's id, `_other` for all loops beyond the limit, and its type."""
    return {names.EVENTLOOP_ID: OTHER if loop_id is None else str(loop_id), names.EVENTLOOP_TYPE: loop_type}
