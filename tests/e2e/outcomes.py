"""What a program exported until its end: failures, and the spans that they belong to."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any

from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import COMMAND, clean_environ, environ_for


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program exported, and what it printed."""

    err: str
    spans: dict[str, Any]
    tasks: dict[bytes, Any]
    records: list[Any]
    failures: dict[tuple[str, str], int]


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def last_totals(metrics: Any) -> dict[tuple[str, str, str], int]:
    """The last total of each process, by the process, the kind of failure and the type of the exception."""
    totals = {}
    for metric in metrics:
        if metric.metric.name == "python.failures":
            process = attributes(metric.resource.attributes)["service.instance.id"]
            for point in metric.metric.sum.data_points:
                told = attributes(point.attributes)
                key = process, told["python.failure.kind"], told.get("error.type", "")
                totals[key] = point.as_int
    return totals


# Starting processes and interpreters holds the loop; that is told of, too, and tested elsewhere.
NO_STALLS = {"OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD": "0"}


def outcome(*command: str, env: dict[str, str] | None = None) -> Outcome:
    """Run a program to its end under `opentelemetry-instrument`."""
    with OtlpProtoTestServer() as receiver:
        ended = subprocess.run(
            [str(COMMAND), *command],
            env=clean_environ() | environ_for(receiver) | NO_STALLS | (env or {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        failures: dict[tuple[str, str], int] = {}
        for (_, *key), count in last_totals(receiver.drain_metrics()).items():
            kind, error = key
            failures[kind, error] = failures.get((kind, error), 0) + count
        spans = [each.span for each in receiver.drain_spans()]
        return Outcome(
            ended.stderr,
            {span.name: span for span in spans},
            {span.span_id: span for span in spans if span.name.startswith("asyncio.task ")},
            [each.log_record for each in receiver.drain_log_records()],
            failures,
        )


def about(of: Outcome, row: str) -> list[Any]:
    """The records that a row's failure made."""
    return [
        record
        for record in of.records
        if row in (record.body.string_value, attributes(record.attributes).get("exception.message"))
    ]


def created_in(of: Outcome, record: Any) -> tuple[bytes, bytes]:
    """The span that the work was created in: around its task, where that has a span of its own."""
    task = of.tasks.get(record.span_id)
    return record.trace_id, record.span_id if task is None else task.parent_span_id
