"""The task table, from hand-made metrics: cumulative, delta, restarts, several processes, any histogram."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from otel_concurrency.console import Store
from otel_concurrency.console.point_rows import point_batch
from otel_concurrency.console.task_table import TaskLine, read_tasks
from otel_concurrency.console.task_view import NO_TASK_METRICS, draw_tasks
from otel_concurrency.console.text import WIDTH, Style
from tests.console.conftest import pairs

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
PLAIN = Style(is_unicode=True, has_colour=False)


class Process:
    """One process of a service that reports what we tell it to."""

    def __init__(self, store: Store, service: str = "shop", instance: str = "1", start_ns: int = 1) -> None:
        self.store = store
        self.service = service
        self.instance = instance
        self.start_ns = start_ns
        self.temporality = CUMULATIVE

    def report(self, time_ns: int, **functions: dict[str, Any]) -> None:
        """Send one export; each function's numbers by the last word of the metric's name."""
        request = ExportMetricsServiceRequest()
        of_resource = request.resource_metrics.add()
        of_resource.resource.attributes.extend(pairs(service_name=self.service))
        of_resource.resource.attributes.extend(pairs(service_instance_id=self.instance))
        metrics = of_resource.scope_metrics.add().metrics
        times = {"start_time_unix_nano": self.start_ns, "time_unix_nano": time_ns}
        for function, numbers in functions.items():
            named = pairs(code_function_name=function)
            for name in ("created", "steps"):
                if name in numbers:
                    point = self._sum(metrics, f"asyncio.task.{name}").add(as_int=numbers[name], **times)
                    point.attributes.extend(named)
            if "busy" in numbers:
                point = self._sum(metrics, "asyncio.task.busy.time").add(as_double=numbers["busy"], **times)
                point.attributes.extend(named)
            for outcome, count in numbers.get("completed", {}).items():
                outcome, _, error = outcome.partition(" ")
                point = self._sum(metrics, "asyncio.task.completed").add(as_int=count, **times)
                point.attributes.extend(named + pairs(asyncio_task_outcome=outcome))
                point.attributes.extend(pairs(error_type=error) if error else [])
            for outcome, histogram in numbers.get("duration", {}).items():
                metric = metrics.add(name="asyncio.task.duration", unit="s")
                point = self._add_histogram(metric, histogram, times)
                point.attributes.extend(named + pairs(asyncio_task_outcome=outcome))
        batch = point_batch(request, 0, 10_000)
        assert batch.rejection == ""
        self.store.insert(batch)

    def _sum(self, metrics: Any, name: str) -> Any:
        metric = metrics.add(name=name)
        metric.sum.aggregation_temporality = self.temporality
        metric.sum.is_monotonic = True
        return metric.sum.data_points

    def _add_histogram(self, metric: Metric, histogram: dict[str, Any], times: dict[str, int]) -> Any:
        if "bounds" in histogram:
            metric.histogram.aggregation_temporality = self.temporality
            return metric.histogram.data_points.add(
                count=sum(histogram["counts"]),
                explicit_bounds=histogram["bounds"],
                bucket_counts=histogram["counts"],
                **times,
            )
        metric.exponential_histogram.aggregation_temporality = self.temporality
        point = metric.exponential_histogram.data_points.add(count=sum(histogram["counts"]), scale=3, **times)
        point.positive.offset = histogram["offset"]
        point.positive.bucket_counts.extend(histogram["counts"])
        return point


@pytest.fixture
def process(store: Store) -> Process:
    return Process(store)


def told(line: TaskLine) -> tuple[Any, ...]:
    quantiles = [round(line.durations.quantile(q), 6) for q in (0.5, 0.99)]
    return line.live, line.created, line.failed, *quantiles, line.busy_s, line.steps


MS_1 = -80  # the bucket of scale 3 that ends at 2 ** -9.875 = 1.065 ms; its middle is 1.020 ms
MS_100 = -27  # ends at 2 ** -3.25 = 105.1 ms; its middle is 100.7 ms


def test_a_line_joins_all_the_metrics_of_a_coroutine(process: Process, store: Store) -> None:
    process.report(
        10,
        **{
            "app.work": {
                "created": 110,
                "completed": {"finished": 90, "failed ValueError": 6, "failed KeyError": 2, "cancelled": 1},
                "duration": {
                    "finished": {"offset": MS_1, "counts": [90]},
                    "failed": {"offset": MS_100, "counts": [8]},
                    "cancelled": {"offset": MS_1, "counts": [1]},
                },
                "busy": 0.75,
                "steps": 331,
            }
        },
    )
    (line,) = read_tasks(store)
    assert (line.service, line.function) == ("shop", "app.work")
    assert line.outcomes == {"finished": 90, "failed": 8, "cancelled": 1}
    assert told(line) == (11, 110, 8, 0.00102, 0.100656, 0.75, 331)


def test_of_a_cumulative_series_the_last_point_counts(process: Process, store: Store) -> None:
    """It is the last by its own time: exports that were retried may arrive in any order."""
    process.report(20, work={"created": 7, "completed": {"finished": 5}, "busy": 0.5, "steps": 9})
    process.report(30, work={"created": 9, "completed": {"finished": 9}, "busy": 0.75, "steps": 12})
    process.report(10, work={"created": 2, "busy": 0.25, "steps": 2})
    (line,) = read_tasks(store)
    assert told(line)[:3] == (0, 9, 0)
    assert (line.busy_s, line.steps) == (0.75, 12)


def test_of_a_delta_series_all_points_count(process: Process, store: Store) -> None:
    """Also of a sender that leaves the start out, as it may."""
    process.temporality, process.start_ns = DELTA, 0
    process.report(10, work={"created": 2, "duration": {"finished": {"offset": MS_1, "counts": [2]}}})
    process.report(20, work={"created": 3, "completed": {"finished": 4}, "busy": 0.25})
    process.report(30, work={"busy": 0.25, "duration": {"finished": {"offset": MS_100, "counts": [2]}}})
    (line,) = read_tasks(store)
    assert (line.created, line.live, line.busy_s, line.durations.count) == (5, 1, 0.5, 4)


def test_what_a_process_counted_before_its_restart_stands(process: Process, store: Store) -> None:
    process.report(10, work={"created": 5, "completed": {"finished": 5}})
    process.start_ns = 11
    process.report(20, work={"created": 2, "completed": {"finished": 1}})
    (line,) = read_tasks(store)
    assert (line.created, line.live) == (7, 1)


def test_processes_of_a_service_are_one_line_and_services_are_not(store: Store) -> None:
    for service, instance, created in (("shop", "1", 1), ("shop", "2", 2), ("warehouse", "1", 4)):
        Process(store, service, instance).report(10, work={"created": created, "busy": 0.1 * created})
    lines = {line.service: line for line in read_tasks(store)}
    assert {service: line.created for service, line in lines.items()} == {"shop": 3, "warehouse": 4}
    assert lines["shop"].busy_s == pytest.approx(0.3)


def test_explicit_buckets_serve_too(process: Process, store: Store) -> None:
    histogram = {"bounds": [0.001, 0.01, 0.1], "counts": [0, 99, 1, 0]}
    process.report(
        10, work={"created": 100, "completed": {"finished": 100}, "duration": {"finished": histogram}}
    )
    (line,) = read_tasks(store)
    assert told(line)[3:5] == (0.003162, 0.003162)
    assert line.durations.quantile(1.0) == pytest.approx(0.031623, abs=1e-6)


def test_a_probe_that_sees_no_steps_leaves_them_open(process: Process, store: Store) -> None:
    process.report(10, work={"created": 3, "completed": {"finished": 3}})
    (line,) = read_tasks(store)
    assert (line.busy_s, line.steps) == (None, None)
    assert draw_tasks([line], PLAIN).splitlines()[1].split() == ["work", "shop", "0", "3", "0", *"----"]


def test_metrics_of_others_are_no_tasks(process: Process, store: Store) -> None:
    """A metric of that name without our attribute is not ours, and breaks nothing."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="asyncio.task.created")
    metric.sum.aggregation_temporality = CUMULATIVE
    metric.sum.data_points.add(as_int=3)
    store.insert(point_batch(request, 0, 10))
    process.report(10, work={"busy": 0.5})
    assert read_tasks(store) == []
    assert draw_tasks([], PLAIN) == NO_TASK_METRICS


DRAWN = """\
coroutine                            service        live  created   failed      p50      p99     busy    steps
…dule.SomeClass.a_coroutine_function shop              1   12,345      344  1.02 ms  1.02 ms   61.5 s   40,000
app.idle                             shop              1        1        0        -        -  12.0 µs        1
p50 and p99: from creation to end. busy: inside steps. live: created and not yet done.
"""


def test_the_table_is_drawn(process: Process, store: Store) -> None:
    name = "a.very.long.package.name.of.a.module.SomeClass.a_coroutine_function"
    process.report(
        10,
        **{
            "app.idle": {"created": 1, "busy": 0.000_012, "steps": 1},
            name: {
                "created": 12_345,
                "completed": {"finished": 12_000, "failed OSError": 344},
                "duration": {"finished": {"offset": MS_1, "counts": [12_000]}},
                "busy": 61.5,
                "steps": 40_000,
            },
        },
    )
    assert draw_tasks(read_tasks(store), PLAIN) + "\n" == DRAWN
    assert max(map(len, DRAWN.splitlines())) <= WIDTH


def test_a_long_table_ends_with_a_count() -> None:
    lines = [TaskLine("shop", f"work_{number}", created=1) for number in range(10)]
    drawn = draw_tasks(lines, PLAIN, max_lines=3).splitlines()
    assert len(drawn) == 6
    assert drawn[4] == "and 7 more coroutines"
