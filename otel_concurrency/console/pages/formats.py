"""Numbers and times as people read them."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from otel_concurrency.console.text import duration


def span_of(ns: int) -> str:
    """Return a duration given in ns."""
    return duration(ns / 1e9) if ns else "0"


def seconds(value: float | None) -> str:
    """Return a duration given in seconds; a dash for none."""
    return "-" if value is None or math.isnan(value) else "0" if value == 0 else duration(value)


def percent(share: float | None) -> str:
    """Return a share as a percentage."""
    if share is None or math.isnan(share):
        return "-"
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"


def amount(value: float | None, unit: str = "") -> str:
    """Return a number, short; bytes as KiB, MiB, …, seconds as durations, shares as percentages."""
    if value is None or math.isnan(value):
        return "-"
    if unit == "s":
        return seconds(value) if value >= 0 else f"-{seconds(-value)}"
    if unit == "By":
        for power, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if abs(value) >= 2**power:
                return f"{value / 2**power:.1f} {name}"
        return f"{value:.0f} B"
    for scale, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= scale:
            return f"{value / (1e3 if name == 'k' else scale):.1f} {name}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}"


def clock(time_ns: int, *, with_date: bool = False) -> str:
    """Return a time of day in UTC, to the millisecond."""
    try:
        at = datetime.fromtimestamp(time_ns / 1e9, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return "-"
    day = f"{at:%Y-%m-%d} " if with_date else ""
    return f"{day}{at:%H:%M:%S}.{at.microsecond // 1000:03d}"


def ago(then_ns: int, now_ns: int) -> str:
    """Return how long ago something was."""
    gone = (now_ns - then_ns) / 1e9
    if gone < 1:
        return "now"
    for scale, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if gone >= scale:
            return f"{gone / scale:.0f} {name} ago"
    return "now"
