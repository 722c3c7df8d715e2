"""Getting everything out of the process within one time limit, for all signals at once.

Upstream's providers flush one after another, each with a limit of its own or none; while the collector is
away, that takes them 14.6 s. Here the threads that export anyway are all woken at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from otel_concurrency.signals import pipelines
from otel_concurrency.signals.pipelines import Pipeline


def flush(timeout_s: float) -> bool:
    """Export what was recorded until now; the process goes on.

    Starts no thread at interpreter exit. Metrics are collected when spans and log records are out, or half of
    the time is over: so they tell of these, too.

    Args:
        timeout_s: Time for all signals together; whatever is not out by then stays where it is.

    Returns:
        Whether everything has been handed to the exporters, and these are done with it.
    """
    began = time.monotonic()
    first, then = [*pipelines.spans(), *pipelines.log_records()], pipelines.metrics()
    _begin(first)
    _wait(first, began + timeout_s / 2)
    _begin(then)
    is_done = _wait([*first, *then], began + timeout_s)
    for each in (*first, *then):
        each.end()
    return is_done


def shutdown(timeout_s: float) -> bool:
    """Export the rest and take nothing new; then the exporters are closed and their threads left behind.

    Args:
        timeout_s: Time for all signals together.

    Returns:
        Whether everything has been handed to the exporters, and these are done with it.
    """
    return flush(timeout_s)


def _begin(parts: Iterable[Pipeline]) -> None:
    for each in parts:
        each.begin()


def _wait(parts: Iterable[Pipeline], deadline: float) -> bool:
    return all(each.wait(deadline) for each in parts)
