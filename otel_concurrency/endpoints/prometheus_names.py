"""What Prometheus calls a metric and its labels: the same here as where it takes in OTLP itself.

Source: "OTLP Metric points to Prometheus" in the OpenTelemetry specification, Prometheus and OpenMetrics
Compatibility, and `prometheus/otlptranslator` (`metric_namer.go`, `unit_namer.go`, `label_namer.go`), by
which Prometheus names what comes by OTLP.
"""

from __future__ import annotations

import re
from functools import lru_cache

_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "1": "",
    "%": "percent",
}
_PER_UNITS = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "y": "year",
}
_NO_NAME = re.compile(r"[^a-zA-Z0-9:]+")
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")


@lru_cache(maxsize=4096)
def metric_name(name: str, unit: str, *, is_counter: bool = False, is_gauge: bool = False) -> str:
    """Return the name of a family; that of a counter ends in `_total`.

    Args:
        name: Of the instrument.
        unit: Of the instrument, in UCUM.
        is_counter: Whether it is a sum that only grows.
        is_gauge: Whether it is a gauge, and not a sum that goes up and down.
    """
    words = [word for word in _NO_NAME.split(name) if word]
    main, _, per = unit.partition("/")
    suffixes = [_unit(main, _UNITS)]
    if per and (word := _unit(per, _PER_UNITS)):
        suffixes.append(f"per_{word}")
    words.extend(suffix for suffix in suffixes if suffix and suffix not in words)
    if is_counter:
        words = [*(word for word in words if word != "total"), "total"]
    elif is_gauge and unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    told = "_".join(words)
    return f"_{told}" if told[:1].isdigit() else told


@lru_cache(maxsize=4096)
def label_name(key: str) -> str:
    """Return the label that an attribute becomes."""
    label = _NO_LABEL.sub("_", key)
    if label[:1].isdigit():
        return f"key_{label}"
    if label.startswith("_") and not label.startswith("__"):
        return f"key{label}"
    return label


def _unit(unit: str, known: dict[str, str]) -> str:
    bare = unit.strip()
    if "{" in bare or "}" in bare:  # an annotation: what is counted, and no unit
        return ""
    return known.get(bare, "_".join(word for word in _NO_NAME.split(bare) if word))
