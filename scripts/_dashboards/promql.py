"""PromQL over the instruments of `signals/names.py`: an expression names an instrument, never a string.

Every dashboard has the variables `job` (a service) and `instance` (a process), and every expression keeps to
them.
"""

from __future__ import annotations

from _prometheus_names import prometheus_label, prometheus_name

from otel_concurrency.signals import names
from otel_concurrency.signals.names import Instrument

LOOP = ("instance", prometheus_label(names.EVENTLOOP_ID))
FUNCTION = (prometheus_label(names.CODE_FUNCTION_NAME),)
EXECUTOR = (prometheus_label(names.EXECUTOR_TYPE), prometheus_label(names.EXECUTOR_NAME))
POOL = (prometheus_label(names.CONNECTION_POOL),)
SERVER = (prometheus_label(names.SERVER_ADDRESS),)
SYNC = (prometheus_label(names.SYNC_TYPE), prometheus_label(names.SYNC_NAME))

WHOSE = 'job=~"$job",instance=~"$instance"'
EVERY = "[$__rate_interval]"


def series(instrument: Instrument | str, where: str = "") -> str:
    """Return the selector of an instrument's series, or of a metric that is not ours."""
    name = instrument if isinstance(instrument, str) else prometheus_name(instrument)
    return f"{name}{{{WHOSE}{',' if where else ''}{where}}}"


def matches(key: str, value: str) -> str:
    """Return the part of a selector that asks for one value of an attribute."""
    return f'{prometheus_label(key)}="{value}"'


def total(instrument: Instrument | str, by: tuple[str, ...] = (), where: str = "") -> str:
    """Return the sum of what a gauge or an up-down counter says now."""
    return f"sum{_by(by)} ({series(instrument, where)})"


def rate(instrument: Instrument | str, by: tuple[str, ...] = (), where: str = "") -> str:
    """Return how fast a counter grows, each second; of a histogram, a histogram."""
    return f"sum{_by(by)} (rate({series(instrument, where)}{EVERY}))"


def quantile(q: float, instrument: Instrument | str, by: tuple[str, ...] = (), where: str = "") -> str:
    """Return a quantile of what a native histogram got in the interval."""
    return f"histogram_quantile({q}, {rate(instrument, by, where)})"


def seconds(instrument: Instrument | str, by: tuple[str, ...] = (), where: str = "") -> str:
    """Return how much a histogram of durations got each second: how many were at it on average."""
    return f"histogram_sum({rate(instrument, by, where)})"


def per_second(instrument: Instrument | str, by: tuple[str, ...] = (), where: str = "") -> str:
    """Return how many values a histogram got each second."""
    return f"histogram_count({rate(instrument, by, where)})"


def gil_wait() -> str:
    """Return what each process's threads wait for the GIL on average."""
    by = ("instance",)
    return f"{rate(names.GIL_WAIT_TIME, by)} / ({rate(names.GIL_PROBES, by)} > 0)"


def alive(by: tuple[str, ...]) -> str:
    """Return how many tasks are alive."""
    return f"{total(names.TASK_CREATED, by)} - {total(names.TASK_COMPLETED, by)}"


def legend(labels: tuple[str, ...]) -> str:
    """Return a legend of these labels' values."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
