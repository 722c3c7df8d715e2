"""The real Prometheus scrapes `/metrics`: it finds there what came to it by OTLP, and exemplars beside it."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_concurrency.stack.paths import binary_path, stack_folder
from otel_concurrency.stack.pins import RECIPES
from tests.e2e.conftest import COMMAND, clean_environ
from tests.stack.backend import Backend, Series, eventually

pytestmark = pytest.mark.stack

PROGRAM = """
    import asyncio, json, sys
    from opentelemetry import metrics, trace

    tracer = trace.get_tracer("shop")
    meter = metrics.get_meter("shop", "1.2")
    orders = meter.create_counter("orders", "{order}", 'Done "orders"')
    waiting = meter.create_up_down_counter("orders.waiting", "{order}")
    fill = meter.create_gauge("store.fill", "1")
    times = meter.create_histogram("order.time", "s", explicit_bucket_boundaries_advisory=[0.1, 1.0])

    async def prepare() -> None:
        await asyncio.sleep(0.001)

    async def main() -> None:
        told = []
        for number in range(10):
            with tracer.start_as_current_span("order") as span:
                orders.add(1, {"kind": "even" if number % 2 == 0 else "o\\\\d\\"d"})
                waiting.add(2 - number % 3)
                times.record(number / 4)
                await asyncio.create_task(prepare())
                told.append(f"{span.get_span_context().trace_id:032x}")
        fill.set(0.25)
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


@pytest.fixture
def scraper(backend: Backend, tmp_path: Path) -> Iterator[tuple[Backend, int]]:
    """A Prometheus that scrapes one port; nothing else goes to it."""
    ports = []
    for _ in range(2):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            ports.append(found.getsockname()[1])
    own, target = ports
    (tmp_path / "prometheus.yaml").write_text(
        textwrap.dedent(
            f"""
            global: {{scrape_interval: 1s}}
            scrape_configs:
              - job_name: scraped
                static_configs: [{{targets: ["127.0.0.1:{target}"]}}]
            """
        )
    )
    [recipe] = [each for each in RECIPES if each.name == "prometheus"]
    with (tmp_path / "prometheus.log").open("w+") as log:
        process = subprocess.Popen(
            [
                str(binary_path(recipe, stack_folder())),
                f"--config.file={tmp_path / 'prometheus.yaml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        found = Backend(backend.state)
        found.endpoints = {"prometheus": f"http://127.0.0.1:{own}"}
        try:
            yield found, target
        finally:
            process.terminate()
            process.wait(30)
            log.seek(0)
            print(log.read()[-4000:])


def values(found: list[Series], *labels: str) -> dict[tuple[str, ...], float | None]:
    return {tuple(series.labels.get(label, "") for label in labels): series.value for series in found}


def test_what_is_scraped_is_what_otlp_delivers(backend: Backend, scraper: tuple[Backend, int]) -> None:
    prometheus, port = scraper
    service = f"scraped-{secrets.token_hex(4)}"
    program = subprocess.Popen(
        [str(COMMAND), sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env=clean_environ()
        | {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoints["otlp_http"],
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_PYTHON_CONCURRENCY_HTTP_PORT": str(port),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        trace_ids = set(json.loads(program.stdout.readline()))
        by_otlp, scraped = f'job="{service}"', 'job="scraped"'

        def both(name: str, *labels: str) -> tuple[object, object]:
            one = values(backend.series(f"{name}{{{by_otlp}}}"), *labels)
            other = values(prometheus.series(f"{name}{{{scraped}}}"), *labels)
            return one, other

        for name, labels, expected in (
            ("orders_total", ("kind",), {("even",): 5, ('o\\d"d',): 5}),
            ("orders_waiting", (), {(): 11}),
            ("store_fill_ratio", (), {(): 0.25}),
            ("order_time_seconds_count", (), {(): 10}),
            ("order_time_seconds_sum", (), {(): 11.25}),
        ):
            found = eventually(name, lambda n=name, k=labels: both(n, *k), lambda pair: all(pair))
            assert found == (expected, expected), name

        # Ours are exponential by OTLP, native histograms to Prometheus; scraped, they have buckets.
        of_tasks = 'code_function_name="__main__.prepare"'
        name = "asyncio_task_duration_seconds"
        [native] = eventually("ours by OTLP", lambda: backend.series(f"{name}{{{by_otlp},{of_tasks}}}"))
        [count] = eventually("ours", lambda: prometheus.series(f"{name}_count{{{scraped},{of_tasks}}}"))
        [total] = prometheus.series(f"{name}_sum{{{scraped},{of_tasks}}}")
        assert (native.count, native.sum) == (count.value, pytest.approx(total.value))
        assert native.count == 10

        # Whatever has a name there has one here.
        taken = f'{{{by_otlp},__name__!~"target_info|.*:.*"}}'  # with a colon: what rules have recorded
        names = {series.labels["__name__"] for series in backend.series(taken)}
        here = {series.labels["__name__"] for series in prometheus.series(f"{{{scraped}}}")}
        assert {name for name in names if not {name, f"{name}_count"} & here} == set()
        assert "otel_concurrency_endpoint_series_left_out" not in here

        [info] = prometheus.series("target_info")
        assert info.labels["service_name"] == service
        assert info.labels["otel_concurrency_endpoint_url"] == f"http://127.0.0.1:{port}"

        for each in ("orders_total", "order_time_seconds_bucket", f"{name}_bucket"):
            exemplars = eventually(
                f"exemplars of {each}", lambda n=each: prometheus.exemplars(f"{n}{{{scraped}}}")
            )
            assert {exemplar.trace_id for exemplar in exemplars} <= trace_ids
        assert all(series.value == 1 for series in prometheus.series("up"))
    finally:
        program.communicate(timeout=60)
    assert program.returncode == 0
