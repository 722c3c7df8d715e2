"""What happens when a person types `opentelemetry-instrument python program.py`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import COMMAND, SILENT, Run, clean_environ, environ_for, fake_package, put_first

WHO_STARTED = """
    import json, os
    from otel_concurrency.distro import ConcurrencyDistro
    from otel_concurrency.signals.producer import default_producer
    print(json.dumps({
        "distro": ConcurrencyDistro().started,
        "configurator": "attached" in repr(default_producer()),
        "variables": [os.environ.get("OTEL_PYTHON_DISTRO"), os.environ.get("OTEL_PYTHON_CONFIGURATOR")],
    }))
"""
OURS = {"distro": True, "configurator": True, "variables": ["otel_concurrency", "otel_concurrency"]}
UPSTREAMS = {"distro": False, "configurator": False, "variables": ["distro", "configurator"]}


@pytest.mark.parametrize("first", ["otel-concurrency", "opentelemetry-distro"])
def test_ours_is_chosen_in_either_file_system_order_and_says_nothing(
    run: Run, tmp_path: Path, first: str
) -> None:
    """No variable is set, both distros are installed."""
    ended = run(WHO_STARTED, env=SILENT | put_first(tmp_path / "site", first))
    assert (ended.code, ended.err) == (0, "")
    assert ended.said() == OURS


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        ((), {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"}),
        ((), {"OTEL_PYTHON_DISTRO": "distro"}),
        ((), {"OTEL_PYTHON_CONFIGURATOR": "configurator"}),
        (("--distro", "distro"), {}),
        (("--configurator=configurator",), {}),
        (("--traces_exporter", "none", "--distr", "distro"), {"OTEL_PYTHON_DISTRO": "otel_concurrency"}),
    ],
)
def test_the_choice_of_the_user_stands_and_its_other_half_follows(
    run: Run, flags: tuple[str, ...], env: dict[str, str]
) -> None:
    """By variable or by flag, both or one of the two."""
    ended = run(WHO_STARTED, *flags, env=SILENT | env)
    assert ended.code == 0
    assert ended.said() == UPSTREAMS


def test_a_distro_that_has_no_configurator_gets_ours(run: Run, tmp_path: Path) -> None:
    in_house = fake_package(
        tmp_path / "site",
        "in_house",
        """
        [opentelemetry_distro]
        in_house = in_house:InHouse
        """,
        """
        from opentelemetry.instrumentation.distro import BaseDistro

        class InHouse(BaseDistro):
            def _configure(self, **kwargs):
                pass
        """,
    )
    ended = run(WHO_STARTED, env=SILENT | in_house | {"OTEL_PYTHON_DISTRO": "in_house"})
    assert ended.said() == {
        "distro": False,
        "configurator": True,
        "variables": ["in_house", "otel_concurrency"],
    }


FROZEN = """
    import gc, json
    print(json.dumps([gc.get_freeze_count(), len(gc.get_objects())]))
"""


def test_the_collector_goes_through_what_is_the_programs_alone(run: Run) -> None:
    frozen, scanned = run(FROZEN, env=SILENT).said()
    assert frozen > 20_000
    assert scanned < 1_000


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (("--concurrency_gc_freeze", "false"), {}),
        ((), {"OTEL_PYTHON_CONCURRENCY_ENABLED": "false"}),
        ((), {"OTEL_SDK_DISABLED": "true"}),
        (("--distro", "distro"), {}),
    ],
    ids=["asked not to", "ours off", "SDK off", "another distro"],
)
def test_where_we_are_not_wanted_nothing_is_frozen(
    run: Run, flags: tuple[str, ...], env: dict[str, str]
) -> None:
    assert run(FROZEN, *flags, env=SILENT | env).said()[0] == 0


def test_every_setting_is_a_flag_of_the_command(run: Run) -> None:
    program = """
        import dataclasses, json, os
        from otel_concurrency.config import Config
        config = dataclasses.asdict(Config.from_environ(os.environ))
        print(json.dumps(config, default=sorted))
    """
    flags = {
        "enabled": "no",
        "tasks": "off",
        "task_spans": "ALL",
        "task_span_threshold": "0.5",
        "task_span_include": "shop.*,stock.*",
        "task_span_exclude": "*.tick",
        "detach_after": "60",
        "request_times": "no",
        "sync_waits": "Names",
        "queue_links": "on",
        "connection_pools": "no",
        "celery": "off",
        "http_clients": "0",
        "http_servers": "no",
        "event_loops": "off",
        "process_pools": "0",
        "process_spans": "none",
        "process_metrics": "off",
        "runtime_metrics": "off",
        "gc_freeze": "off",
        "stall_threshold": "0.25",
        "diagnosis": "no",
        "diagnosis_window": "2.5",
        "failures": "false",
        "threads": "off",
        "native": "0",
        "max_coroutines": "7",
        "max_error_types": "5",
        "keep_upstream": "threading,asyncio",
        "http_inner_spans": "TRUE",
        "subprocesses": "no",
        "inherit_trace": "no",
        "log_identity": "False",
        "span_identity": "no",
        "request_id": "no",
        "request_id_header": "X-Trace",
        "request_id_baggage": "yes",
        "log_json": "/tmp/log.jsonl",
        "log_queue": "100",
        "exit_timeout": "1.5",
        "exit_signals": "off",
        "http_port": "9464",
        "http_host": "0.0.0.0",
        "http_token": "sesame",
        "http_health_limit": "30",
        "http_ready_limit": "0.5",
        "http_metrics": "no",
    }
    typed = [part for name, value in flags.items() for part in (f"--concurrency_{name}", value)]
    ended = run(program, *typed, env=SILENT)
    assert ended.said() == {
        "enabled": False,
        "tasks": False,
        "task_spans": "all",
        "task_span_threshold": 0.5,
        "task_span_include": ["shop.*", "stock.*"],
        "task_span_exclude": ["*.tick"],
        "detach_after": 60,
        "request_times": False,
        "sync_waits": "names",
        "queue_links": True,
        "connection_pools": False,
        "celery": False,
        "http_clients": False,
        "http_servers": False,
        "event_loops": False,
        "process_pools": False,
        "process_spans": "none",
        "process_metrics": False,
        "runtime_metrics": False,
        "gc_freeze": False,
        "stall_threshold": 0.25,
        "diagnosis": False,
        "diagnosis_window": 2.5,
        "failures": False,
        "threads": False,
        "native": False,
        "max_coroutines": 7,
        "max_error_types": 5,
        "keep_upstream": ["asyncio", "threading"],
        "http_inner_spans": True,
        "subprocesses": False,
        "inherit_trace": False,
        "log_identity": False,
        "span_identity": False,
        "request_id": False,
        "request_id_header": "x-trace",
        "request_id_baggage": True,
        "log_json": "/tmp/log.jsonl",
        "log_queue": 100,
        "exit_timeout": 1.5,
        "exit_signals": False,
        "http_port": 9464,
        "http_host": "0.0.0.0",
        "http_token": "sesame",
        "http_health_limit": 30,
        "http_ready_limit": 0.5,
        "http_metrics": False,
    }


def test_a_malformed_value_gives_one_warning_and_the_program_runs(run: Run) -> None:
    """Several parts of ours read the settings; the person is told once."""
    env = {"OTEL_PYTHON_CONCURRENCY_MAX_COROUTINES": "many"}
    ended = run(WHO_STARTED, env=SILENT | env)
    assert ended.said() == OURS
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("OTEL_PYTHON_CONCURRENCY_MAX_COROUTINES='many' is not understood")
    assert ended.err.endswith("the default, 200, stands\n")


WHAT_IS_PATCHED = """
    import asyncio, json, logging, os, sys, threading
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

    def subclasses(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from subclasses(sub)

    def home(function):
        return getattr(function, "__code__", None) and os.path.basename(function.__code__.co_filename)

    print(json.dumps({
        "instrumented": sorted(
            cls.__name__ for cls in subclasses(BaseInstrumentor)
            if cls._instance is not None and cls._instance.is_instrumented_by_opentelemetry
        ),
        "handlers": len(logging.getLogger().handlers),
        "create_task": home(asyncio.BaseEventLoop.create_task),
        "asyncio.create_task": home(asyncio.create_task),
        "Thread.start": home(threading.Thread.start),
        "ours": sorted(name for name in sys.modules if name.startswith("otel_concurrency.instrumentors.")),
    }))
"""


def test_a_disabled_sdk_patches_nothing(run: Run) -> None:
    """Neither ours nor upstream's: a patch would pay for spans that nobody makes."""
    ended = run(WHAT_IS_PATCHED, env={"OTEL_SDK_DISABLED": "True"})
    assert (ended.code, ended.err) == (0, "")
    assert ended.said() == {
        "instrumented": [],
        "handlers": 0,
        "create_task": "base_events.py",
        "asyncio.create_task": "tasks.py",
        "Thread.start": "threading.py",
        "ours": [],
    }


@pytest.mark.parametrize(("env", "imported"), [(SILENT, []), ({}, ["google.protobuf"])])
def test_the_start_imports_only_what_the_exporters_need(
    run: Run, env: dict[str, str], imported: list[str]
) -> None:
    """A process without an exporter has no use for protobuf, one that exports over HTTP none for gRPC."""
    ended = run(
        """
        import json, sys
        dear = ("concurrent.futures.process", "google.protobuf", "grpc", "multiprocessing.pool")
        print(json.dumps([name for name in dear if name in sys.modules]))
        """,
        env={"OTEL_PYTHON_CONCURRENCY_EXIT_TIMEOUT": "0.1", **env},
    )
    assert ended.said() == imported


def test_switched_off_ours_behaves_as_the_upstream_distro(run: Run) -> None:
    env = SILENT | {"OTEL_PYTHON_CONCURRENCY_ENABLED": "false"}
    ended = run(WHAT_IS_PATCHED, env=env)
    upstreams = run(WHAT_IS_PATCHED, env=SILENT | {"OTEL_PYTHON_DISTRO": "distro"} | OFF_WITH_OURS)
    # Under CPython 3.12 upstream's log handler ends a process with a traceback (see hooks/logs/log_flush.py).
    assert (ended.code, bool(ended.err)) == (0, sys.version_info[:2] == (3, 12))
    assert ended.said() == upstreams.said()
    assert "FastAPIInstrumentor" in ended.said()["instrumented"]


OFF_WITH_OURS = {
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(
        each.name
        for each in entry_points(group="opentelemetry_instrumentor")
        if each.name.startswith("concurrency_")
    )
}
BROKEN = """
    [opentelemetry_instrumentor]
    broken = broken:Broken
    """
BROKEN_CODE = """
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

    class Broken(BaseInstrumentor):
        def instrumentation_dependencies(self):
            return ()
        def _instrument(self, **kwargs):
            raise RuntimeError("no luck today")
        def _uninstrument(self, **kwargs):
            pass
    """


def test_an_instrumentor_that_raises_stops_neither_the_others_nor_the_program(
    run: Run, tmp_path: Path
) -> None:
    """It comes first, since its package does; upstream's loader would load nothing after it."""
    broken = fake_package(tmp_path / "site", "broken", BROKEN, BROKEN_CODE)
    ended = run(WHAT_IS_PATCHED, env=SILENT | broken)
    assert ended.code == 0
    assert {"AioHttpClientInstrumentor", "LoggingInstrumentor"} <= set(ended.said()["instrumented"])
    told = [line for line in ended.err.splitlines() if "nstrument" in line and not line.startswith(" ")]
    assert told == ["Instrumentor broken failed and is left out; the others go on"]
    assert ended.err.splitlines()[-1] == "RuntimeError: no luck today"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("logging_setup", ["", "logging.basicConfig()"])
def test_an_unreachable_collector_is_told_once(
    run: Run, unused_port: int, protocol: str, logging_setup: str
) -> None:
    """Every signal fails several times; the program ends as it would, and the person reads one line."""
    program = f"""
        import logging
        {logging_setup}
        from opentelemetry import metrics, trace
        from opentelemetry._logs import get_logger_provider
        from otel_concurrency.distro import ConcurrencyDistro

        failures = ConcurrencyDistro()._export_failures
        tracer = trace.get_tracer("test")
        metrics.get_meter("test").create_counter("count").add(1)
        while failures._suppressed < 5:
            with tracer.start_as_current_span("span"):
                logging.getLogger("app").warning("in the span")
            trace.get_tracer_provider().force_flush()
            get_logger_provider().force_flush()
            metrics.get_meter_provider().force_flush()
        for _ in range(100):
            tracer.start_span("more than the queue takes").end()
        print("0")
    """
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{unused_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_MAX_QUEUE_SIZE": "8",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
    }
    ended = run(program, env=env)
    assert (ended.code, ended.said()) == (0, 0)
    told = [line for line in ended.err.splitlines() if "in the span" not in line]
    assert len(told) == 1, ended.err
    assert (
        f"(OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{unused_port}); the application runs on." in told[0]
    )


COUNTED = """
    import asyncio, logging

    async def first():
        await asyncio.sleep(0)
        logging.getLogger("app").warning("from a task")

    async def second():
        await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*(first() for _ in range(3)), *(second() for _ in range(4)))

    asyncio.run(main())
"""
WARNED = "from a task\n" * 3  # as Python prints it where logging was not set up


# The last two are `asyncio.run`'s own.
ALL_TASKS = {"main": 1, "first": 3, "second": 4, "shutdown_asyncgens": 1, "shutdown_default_executor": 1}


def created(receiver: OtlpProtoTestServer) -> dict[str, int]:
    """Tasks by coroutine function, as the metric says it at the end of the program."""
    points = [
        point
        for each in receiver.drain_metrics()
        if each.metric.name == "asyncio.task.created"
        for point in each.metric.sum.data_points
    ]
    return {point.attributes[0].value.string_value.rpartition(".")[2]: point.as_int for point in points}


def test_tasks_and_the_identity_of_log_records_arrive(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(COUNTED, env=environ_for(receiver))
    assert (ended.code, ended.err) == (0, WARNED)
    assert created(receiver) == ALL_TASKS
    records = receiver.drain_log_records()
    attributes = [{pair.key for pair in each.log_record.attributes} for each in records]
    assert len(attributes) == 3
    assert all({"process.pid", "thread.name", "asyncio.task.name"} <= keys for keys in attributes)


CONFIGURATION = """
    file_format: "1.0"
    tracer_provider:
      processors:
        - batch: {{exporter: {{otlp_http: {{endpoint: "{base}/v1/traces"}}}}}}
    meter_provider:
      readers:
        - periodic: {{exporter: {{otlp_http: {{endpoint: "{base}/v1/metrics"}}}}}}
    logger_provider:
      processors:
        - {log_processor}: {{exporter: {{otlp_http: {{endpoint: "{base}/v1/logs"}}}}}}
    instrumentation/development:
      python:
        logging: {{}}
        concurrency_asyncio: {asyncio}
        concurrency_fastapi: {{http_inner_spans: true}}
        aiohttp-client: {{enabled: false}}
"""


def configuration_file(tmp_path: Path, receiver: OtlpProtoTestServer, **parts: str) -> dict[str, str]:
    values = {"base": f"http://127.0.0.1:{receiver.port}", "log_processor": "simple", "asyncio": "{}"}
    path = tmp_path / "telemetry.yaml"
    path.write_text(textwrap.dedent(CONFIGURATION.format(**(values | parts))))
    return {"OTEL_CONFIG_FILE": str(path)}


def test_a_configuration_file_gives_typed_options_to_our_instrumentors(
    run: Run, tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    """Started by the file and met again by the loader: once, and without a word."""
    env = configuration_file(tmp_path, receiver, asyncio="{max_coroutines: 2}")
    ended = run(COUNTED, env=env)
    assert (ended.code, ended.err) == (0, WARNED)
    assert created(receiver) == {"main": 1, "first": 3, "_other": 6}
    records = receiver.drain_log_records()
    attributes = [{pair.key for pair in each.log_record.attributes} for each in records]
    assert len(attributes) == 3
    assert all({"process.pid", "thread.name", "asyncio.task.name"} <= keys for keys in attributes)


def test_what_the_configuration_file_turns_off_stays_off(
    run: Run, tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    env = configuration_file(tmp_path, receiver, asyncio="{enabled: false}")
    instrumented = run(WHAT_IS_PATCHED, env=env).said()["instrumented"]
    assert "FastAPITelemetryInstrumentor" in instrumented
    assert not {"AsyncioTaskInstrumentor", "AioHttpClientInstrumentor"} & set(instrumented)


def test_a_wrong_option_in_the_configuration_file_gives_one_warning(
    run: Run, tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    env = configuration_file(tmp_path, receiver, asyncio="{max_coroutines: plenty}")
    assert run(COUNTED, env=env).code == 0
    assert created(receiver) == ALL_TASKS
    told = [each.log_record.body.string_value for each in receiver.drain_log_records()]
    assert len([line for line in told if line.startswith("max_coroutines='plenty' is not understood")]) == 1


def test_an_option_that_an_instrumentor_has_not_is_told_of_and_the_rest_stands(
    run: Run, tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    env = configuration_file(tmp_path, receiver, asyncio="{max_coroutines: 2, max_coroutine: 3}")
    ended = run(COUNTED, env=env)
    (line, *rest) = ended.err.splitlines()
    begins = (
        "The configuration file gives concurrency_asyncio an option that it has not, and that does nothing"
    )
    assert line.startswith(f"{begins}: max_coroutine; it has detach_after, max_coroutines, ")
    assert (ended.code, "Traceback" in ended.err, rest) == (0, False, WARNED.splitlines())
    assert created(receiver) == {"main": 1, "first": 3, "_other": 6}


def test_a_misspelled_variable_is_told_of(run: Run) -> None:
    ended = run("", env={**SILENT, "OTEL_PYTHON_CONCURRENCY_TASK_SPAN": "all"})
    told = "OTEL_PYTHON_CONCURRENCY_TASK_SPAN is no setting, and does nothing; "
    meant = "did you mean OTEL_PYTHON_CONCURRENCY_TASK_SPANS?\n"
    assert (ended.code, ended.err) == (0, told + meant)


def test_a_configuration_file_that_disables_all_patches_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "telemetry.yaml"
    path.write_text('file_format: "1.0"\ndisabled: true\n')
    ended = run(WHAT_IS_PATCHED, env={"OTEL_CONFIG_FILE": str(path)})
    assert ended.code == 0
    assert ended.said()["instrumented"] == []


@pytest.mark.parametrize(
    ("env", "starts"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, set()),
        ({"OTEL_PYTHON_CONCURRENCY_ENABLED": "false"}, {"LoggingInstrumentor"}),
        ({"OTEL_PYTHON_CONCURRENCY_TASKS": "false"}, {"LoggingInstrumentor", "FastAPITelemetryInstrumentor"}),
    ],
)
def test_what_a_variable_turns_off_stays_off_though_the_file_names_it(
    run: Run, tmp_path: Path, receiver: OtlpProtoTestServer, env: dict[str, str], starts: set[str]
) -> None:
    ended = run(WHAT_IS_PATCHED, env=configuration_file(tmp_path, receiver) | env)
    assert (ended.code, "ignoring configurator kwargs" in ended.err) == (0, False)
    named = {"LoggingInstrumentor", "AsyncioTaskInstrumentor", "FastAPITelemetryInstrumentor"}
    assert set(ended.said()["instrumented"]) & named == starts


def test_ours_stands_in_for_upstreams_asyncio_instrumentor(run: Run) -> None:
    assert "AsyncioInstrumentor" not in run(WHAT_IS_PATCHED, env=SILENT).said()["instrumented"]


@pytest.mark.parametrize(
    ("env", "ours_too"),
    [
        ({"OTEL_PYTHON_CONCURRENCY_KEEP_UPSTREAM": "asyncio"}, True),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "concurrency_asyncio"}, False),
        ({"OTEL_PYTHON_CONCURRENCY_TASKS": "false"}, False),
    ],
)
def test_upstreams_loads_where_it_is_kept_or_ours_is_off(
    run: Run, env: dict[str, str], ours_too: bool
) -> None:
    """Replaced only while ours is really there."""
    instrumented = run(WHAT_IS_PATCHED, env=SILENT | env).said()["instrumented"]
    assert "AsyncioInstrumentor" in instrumented
    assert ("AsyncioTaskInstrumentor" in instrumented) == ours_too


def test_a_programs_own_concurrency_flag_reaches_the_program() -> None:
    """Celery's, for one: an ambiguous abbreviation of our flags would end the command."""
    program = "import sys; print(sys.argv[1:])"
    for argument in ("--concurrency=2", "--concurrency 2"):
        ended = subprocess.run(
            [str(COMMAND), sys.executable, "-c", program, *argument.split()],
            env=clean_environ() | SILENT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{argument.split()}\n", "")


def test_an_interpreter_beside_the_main_one_ends_in_peace(run: Run, tmp_path: Path) -> None:
    """CPython aborts the process if a thread is left there, kept for the end of a strange exporter, say."""
    pytest.importorskip("_testcapi")
    entry_points = "[opentelemetry_metrics_exporter]\nin_house = in_house:Exporter\n"
    code = """
        from opentelemetry.sdk.metrics.export import MetricExporter

        class Exporter(MetricExporter):
            def export(self, metrics_data, timeout_millis=10_000, **kwargs): pass
            def force_flush(self, timeout_millis=10_000): return True
            def shutdown(self, timeout_millis=30_000, **kwargs): pass
    """
    env = fake_package(tmp_path / "site", "in_house", entry_points, code)
    program = "import _testcapi; print(_testcapi.run_in_subinterp('pass'))"
    ended = run(program, env=SILENT | env | {"OTEL_METRICS_EXPORTER": "in_house"})
    assert (ended.code, ended.out) == (0, "0\n")
