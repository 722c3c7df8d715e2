"""The start from inside a program, for people who cannot use the command."""

from __future__ import annotations

import textwrap

from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import SILENT, Run, environ_for
from tests.e2e.test_start import OURS, WHO_STARTED, created


def test_one_call_starts_what_the_command_starts(run: Run, receiver: OtlpProtoTestServer) -> None:
    program = """
        import otel_concurrency
        otel_concurrency.instrument()

        import asyncio

        async def work():
            pass

        async def main():
            await asyncio.gather(work(), work())

        asyncio.run(main())
    """
    ended = run(program, env=environ_for(receiver), bare=True)
    assert (ended.code, ended.err) == (0, "")
    counts = created(receiver)
    assert (counts["main"], counts["work"]) == (1, 2)


def test_it_may_be_called_in_a_running_loop(run: Run, receiver: OtlpProtoTestServer) -> None:
    """What was created before counts as untracked, what comes after is counted."""
    program = """
        import asyncio, otel_concurrency

        async def work():
            pass

        async def main():
            otel_concurrency.instrument()
            await asyncio.gather(work(), work())

        asyncio.run(main())
    """
    ended = run(program, env=environ_for(receiver), bare=True)
    assert (ended.code, ended.err) == (0, "")
    counts = created(receiver)
    assert counts["work"] == 2
    assert "main" not in counts


def test_options_go_before_the_environment(run: Run, receiver: OtlpProtoTestServer) -> None:
    program = """
        import asyncio, otel_concurrency
        otel_concurrency.instrument(max_coroutines=1)

        async def main():
            pass

        asyncio.run(main())
    """
    env = environ_for(receiver) | {"OTEL_PYTHON_CONCURRENCY_MAX_COROUTINES": "100"}
    assert run(program, env=env, bare=True).err == ""
    assert created(receiver) == {"main": 1, "_other": 2}


def test_what_was_counted_before_the_removal_arrives(run: Run, receiver: OtlpProtoTestServer) -> None:
    """Afterwards nobody asks us any more, and what runs then is none of ours."""
    program = """
        import asyncio, otel_concurrency
        handle = otel_concurrency.instrument()

        async def before():
            pass

        async def after():
            pass

        asyncio.run(before())
        handle.uninstrument()
        asyncio.run(after())
    """
    ended = run(program, env=environ_for(receiver), bare=True)
    assert (ended.code, ended.err) == (0, "")
    assert created(receiver) == {"before": 1, "shutdown_asyncgens": 1, "shutdown_default_executor": 1}


TWICE = """
    import asyncio, json, logging, os, otel_concurrency
    from opentelemetry._logs import get_logger_provider
    from otel_concurrency.signals.producer import default_producer

    def processors():
        chain = get_logger_provider()._multi_log_record_processor
        return [type(each).__name__ for each in chain._log_record_processors]

    before = (asyncio.BaseEventLoop.create_task, logging.Logger.handle, dict(os.environ))
    first = otel_concurrency.instrument()
    patched = asyncio.BaseEventLoop.create_task
    second = otel_concurrency.instrument()
    names = sorted(first._distro.loaded)
    is_idempotent = patched is asyncio.BaseEventLoop.create_task and repr(first) == repr(second)
    first.uninstrument()
    second.uninstrument()
    after = (asyncio.BaseEventLoop.create_task, logging.Logger.handle, dict(os.environ))
    is_restored = before == after
    is_detached = "detached" in repr(default_producer()) and processors() == []
    otel_concurrency.instrument()
    print(json.dumps({
        "is_idempotent": is_idempotent,
        "is_restored": is_restored,
        "is_detached": is_detached,
        "restarts": sorted(first._distro.loaded) == names,
        "handlers": sum(type(each).__module__.startswith("opentelemetry") for each in logging.root.handlers),
        "names": names,
        "processors": processors(),
    }))
"""


def test_it_is_idempotent_and_can_be_taken_back(run: Run) -> None:
    ended = run(TWICE, env=SILENT, bare=True)
    assert (ended.code, ended.err) == (0, "")
    said = ended.said()
    names = said.pop("names")
    assert {"aiohttp-client", "concurrency_asyncio", "concurrency_fastapi", "logging"} <= set(names)
    assert said == {
        "is_idempotent": True,
        "is_restored": True,
        "is_detached": True,
        "restarts": True,
        "handlers": 0,
        "processors": ["IdentityLogRecordProcessor"],
    }


def test_under_the_command_it_changes_nothing(run: Run) -> None:
    call = "import otel_concurrency; otel_concurrency.instrument()"
    ended = run(call + textwrap.dedent(WHO_STARTED), env=SILENT)
    assert (ended.code, ended.err) == (0, "")
    assert ended.said() == OURS


def test_providers_that_the_program_set_stay_and_ours_join_them(run: Run) -> None:
    program = """
        import asyncio, json, logging
        from opentelemetry import metrics, trace, _logs
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        reader, records = InMemoryMetricReader(), InMemoryLogRecordExporter()
        metrics.set_meter_provider(MeterProvider([reader]))
        _logs.set_logger_provider(LoggerProvider())
        _logs.get_logger_provider().add_log_record_processor(SimpleLogRecordProcessor(records))
        mine = metrics.get_meter_provider(), _logs.get_logger_provider()

        import otel_concurrency
        otel_concurrency.instrument()

        async def main():
            logging.getLogger("app").warning("hello")

        asyncio.run(main())
        data = reader.get_metrics_data()
        print(json.dumps({
            "stay": mine == (metrics.get_meter_provider(), _logs.get_logger_provider()),
            "metrics": "asyncio.task.created" in [
                metric.name
                for resource in data.resource_metrics for scope in resource.scope_metrics
                for metric in scope.metrics
            ],
            "identity": [
                "asyncio.task.name" in record.log_record.attributes
                for record in records.get_finished_logs()
            ],
        }))
    """
    ended = run(program, env=SILENT, bare=True)
    assert (ended.code, ended.err) == (0, "hello\n")
    assert ended.said() == {"stay": True, "metrics": True, "identity": [True]}


def test_an_option_that_does_not_exist_is_an_error(run: Run) -> None:
    ended = run("import otel_concurrency\notel_concurrency.instrument(max_coroutine=1)", bare=True)
    assert ended.code == 1
    assert ended.err.endswith("TypeError: max_coroutine: otel-concurrency has no such setting\n")
