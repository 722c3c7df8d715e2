"""The promise of the package is a list."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution

import otel_concurrency

FOUND_BY_OPENTELEMETRY = {
    ("opentelemetry_distro", "otel_concurrency"),
    ("opentelemetry_configurator", "otel_concurrency"),
    ("opentelemetry_environment_variables", "otel_concurrency"),
    ("opentelemetry_instrumentor", "concurrency_asyncio"),
    ("opentelemetry_instrumentor", "concurrency_anyio"),
    ("opentelemetry_instrumentor", "concurrency_connection_pools"),
    ("opentelemetry_instrumentor", "concurrency_celery"),
    ("opentelemetry_instrumentor", "concurrency_diagnosis"),
    ("opentelemetry_instrumentor", "concurrency_event_loops"),
    ("opentelemetry_instrumentor", "concurrency_failures"),
    ("opentelemetry_instrumentor", "concurrency_http_clients"),
    ("opentelemetry_instrumentor", "concurrency_http_servers"),
    ("opentelemetry_instrumentor", "concurrency_process"),
    ("opentelemetry_instrumentor", "concurrency_process_pools"),
    ("opentelemetry_instrumentor", "concurrency_threading"),
    ("opentelemetry_instrumentor", "concurrency_processes"),
    ("opentelemetry_instrumentor", "concurrency_queues"),
    ("opentelemetry_instrumentor", "concurrency_runtime"),
    ("opentelemetry_instrumentor", "concurrency_stalls"),
    ("opentelemetry_instrumentor", "concurrency_fastapi"),
    ("opentelemetry_instrumentor", "concurrency_timed"),
    ("opentelemetry_instrumentor", "concurrency_limits"),
    ("opentelemetry_post_instrument", "otel_concurrency"),
    ("otel_concurrency", "endpoints"),
    ("console_scripts", "otel-concurrency"),
    ("pytest11", "otel_concurrency"),
}

MODULES = ("opentelemetry_environment_variables", "pytest11")  # entry points that are no functions


def test_all_is_what_we_promise() -> None:
    assert otel_concurrency.__all__ == [
        "AdaptiveLimiter",
        "LimitReached",
        "__version__",
        "add_log_context",
        "get_request_id",
        "instrument",
        "set_request_id",
        "timed",
    ]
    assert all(hasattr(otel_concurrency, name) for name in otel_concurrency.__all__)


def test_the_entry_points_are_what_we_promise_and_load() -> None:
    points = distribution("otel-concurrency").entry_points
    assert {(point.group, point.name) for point in points} == FOUND_BY_OPENTELEMETRY
    assert all(callable(point.load()) for point in points if point.group not in MODULES)


def test_importing_the_package_is_cheap() -> None:
    """`opentelemetry-instrument` imports it in every start, before it knows whether we are wanted."""
    program = (
        "import sys, otel_concurrency; print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
