"""The live picture: what a process does now, its tasks, threads, locks and pools, seen from any thread."""

from __future__ import annotations

from otel_concurrency.snapshot.live import Snapshot
from otel_concurrency.snapshot.taking import take, take_levels

__all__ = ["Snapshot", "take", "take_levels"]
