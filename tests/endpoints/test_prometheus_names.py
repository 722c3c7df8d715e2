from __future__ import annotations

import pytest

from otel_concurrency.endpoints.prometheus_names import label_name, metric_name


@pytest.mark.parametrize(
    ("name", "unit", "kind", "told"),
    [
        ("http.server.request.duration", "s", "", "http_server_request_duration_seconds"),
        ("process.memory.usage", "By", "", "process_memory_usage_bytes"),
        ("asyncio.task.created", "{task}", "counter", "asyncio_task_created_total"),
        ("network.io", "By/s", "", "network_io_bytes_per_second"),
        ("requests", "{request}/min", "", "requests_per_min"),
        ("a.total.of", "1", "counter", "a_of_total"),
        ("cpu.utilization", "1", "gauge", "cpu_utilization_ratio"),
        ("fill.ratio", "1", "gauge", "fill_ratio"),
        ("level", "1", "", "level"),
        ("wait.seconds", "s", "", "wait_seconds"),
        ("disk__free  space", "GiBy", "", "disk_free_space_gibibytes"),
        ("3d.frames", "foo", "", "_3d_frames_foo"),
        ("hits", "%", "gauge", "hits_percent"),
        ("..", "", "", ""),
    ],
)
def test_a_metric_has_the_name_that_prometheus_gives_it(name: str, unit: str, kind: str, told: str) -> None:
    """As `prometheus/otlptranslator` 1.0 has it."""
    assert metric_name(name, unit, is_counter=kind == "counter", is_gauge=kind == "gauge") == told


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("http.request.method", "http_request_method"),
        ("1st", "key_1st"),
        ("_hidden", "key_hidden"),
        ("__name", "__name"),
        ("größe", "gr__e"),
    ],
)
def test_a_label_has_the_name_that_prometheus_gives_it(key: str, label: str) -> None:
    assert label_name(key) == label
