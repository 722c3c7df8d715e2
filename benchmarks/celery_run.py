"""Measures a Celery task in this process and prints one line of JSON: ns of CPU time for each.

All that a task passes through but the broker and the result backend: the signals of sending and receiving it,
and Celery's own tracer, which runs an empty function.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from celery import Celery, signals
from celery.app.trace import build_tracer

TASKS_PER_READING = 2_000

APP = Celery("benchmark", broker="memory://", set_as_current=False)


@APP.task(name="benchmark.empty", ignore_result=True)
def empty() -> None:
    """Do nothing."""


def ours() -> None:
    """Ours, its metrics read by nobody while times are taken."""
    from otel_concurrency.instrumentors.celery import CeleryTaskInstrumentor

    CeleryTaskInstrumentor().instrument()


def upstream() -> None:
    """Upstream's instrumentor, its spans counted by nobody and its histogram read by nobody."""
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    CeleryInstrumentor().instrument(
        tracer_provider=TracerProvider(),
        meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]),
    )


VARIANTS: dict[str, Callable[[], object]] = {"bare": lambda: None, "ours": ours, "upstream": upstream}


def reading(trace: Callable[..., Any], first: int) -> float:
    """Return the CPU time of a task, ns."""
    began = time.thread_time_ns()
    for number in range(first, first + TASKS_PER_READING):
        task_id = f"3f1c7d1e-58a5-4d8c-9a53-{number:012}"
        headers: dict[str, Any] = {"task": empty.name, "id": task_id, "retries": 0, "eta": None}
        signals.before_task_publish.send(sender=empty.name, headers=headers, body=((), {}, {}))
        signals.after_task_publish.send(sender=empty.name, headers=headers, body=((), {}, {}))
        request = {**headers, "delivery_info": {"routing_key": "celery", "redelivered": False}}
        received = SimpleNamespace(id=task_id, request_dict=request)
        signals.task_received.send(sender=None, request=received)
        trace(task_id, (), {}, request)
    return (time.thread_time_ns() - began) / TASKS_PER_READING


def main() -> None:
    """Print the best of many readings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    VARIANTS[arguments.variant]()
    trace = build_tracer(empty.name, APP.tasks[empty.name], app=APP)  # not by its proxy
    readings = [reading(trace, 0)]
    until = time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        readings.append(reading(trace, len(readings) * TASKS_PER_READING))
    print(json.dumps(min(readings)))


if __name__ == "__main__":
    main()
