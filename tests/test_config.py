"""Settings: read once, from a mapping, with a warning and the default for what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, asdict, fields
from typing import get_type_hints

import pytest

from otel_concurrency import config as config_module
from otel_concurrency import environment_variables
from otel_concurrency.config import (
    PREFIX,
    SETTINGS,
    Config,
    FastAPIOptions,
    Options,
    TaskOptions,
)

DEFAULTS = {
    "enabled": True,
    "tasks": True,
    "task_spans": "lazy",
    "task_span_threshold": 0.1,
    "task_span_include": frozenset({"*"}),
    "task_span_exclude": frozenset(),
    "detach_after": 30.0,
    "request_times": True,
    "sync_waits": "types",
    "queue_links": False,
    "event_loops": True,
    "process_pools": True,
    "process_spans": "lazy",
    "process_metrics": True,
    "runtime_metrics": True,
    "gc_freeze": True,
    "stall_threshold": 0.1,
    "diagnosis": True,
    "diagnosis_window": 10.0,
    "failures": True,
    "threads": True,
    "celery": True,
    "connection_pools": True,
    "native": True,
    "max_coroutines": 200,
    "max_error_types": 50,
    "keep_upstream": frozenset(),
    "http_inner_spans": False,
    "http_clients": True,
    "http_servers": True,
    "subprocesses": True,
    "inherit_trace": True,
    "log_identity": True,
    "span_identity": True,
    "request_id": True,
    "request_id_header": "x-request-id",
    "request_id_baggage": False,
    "log_json": "none",
    "log_queue": 10_000,
    "exit_timeout": 3.0,
    "exit_signals": True,
    "http_port": None,
    "http_host": "127.0.0.1",
    "http_token": "",
    "http_health_limit": 10.0,
    "http_ready_limit": 1.0,
    "http_metrics": True,
}


@pytest.fixture(autouse=True)
def _forget_what_was_told() -> Iterator[None]:
    config_module._told.clear()
    yield
    config_module._told.clear()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_nothing_set_means_the_defaults() -> None:
    assert asdict(Config.from_environ({})) == DEFAULTS
    assert asdict(Config()) == DEFAULTS


def test_an_empty_variable_counts_as_unset(caplog: pytest.LogCaptureFixture) -> None:
    environ = {setting.variable: " " for setting in SETTINGS}
    assert asdict(Config.from_environ(environ)) == DEFAULTS
    assert warnings(caplog) == []


def test_every_variable_is_read() -> None:
    environ = {
        "OTEL_PYTHON_CONCURRENCY_ENABLED": "false",
        "OTEL_PYTHON_CONCURRENCY_TASKS": "0",
        "OTEL_PYTHON_CONCURRENCY_TASK_SPANS": "All",
        "OTEL_PYTHON_CONCURRENCY_TASK_SPAN_THRESHOLD": "0.5",
        "OTEL_PYTHON_CONCURRENCY_TASK_SPAN_INCLUDE": "shop.*, lib.load",
        "OTEL_PYTHON_CONCURRENCY_TASK_SPAN_EXCLUDE": "*.tick,",
        "OTEL_PYTHON_CONCURRENCY_DETACH_AFTER": "0.5",
        "OTEL_PYTHON_CONCURRENCY_REQUEST_TIMES": "no",
        "OTEL_PYTHON_CONCURRENCY_SYNC_WAITS": "NAMES",
        "OTEL_PYTHON_CONCURRENCY_QUEUE_LINKS": "yes",
        "OTEL_PYTHON_CONCURRENCY_EVENT_LOOPS": "no",
        "OTEL_PYTHON_CONCURRENCY_PROCESS_POOLS": "off",
        "OTEL_PYTHON_CONCURRENCY_PROCESS_SPANS": "All",
        "OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD": "0.25",
        "OTEL_PYTHON_CONCURRENCY_DIAGNOSIS": "no",
        "OTEL_PYTHON_CONCURRENCY_DIAGNOSIS_WINDOW": "5",
        "OTEL_PYTHON_CONCURRENCY_FAILURES": "off",
        "OTEL_PYTHON_CONCURRENCY_RUNTIME_METRICS": "no",
        "OTEL_PYTHON_CONCURRENCY_GC_FREEZE": "no",
        "OTEL_PYTHON_CONCURRENCY_PROCESS_METRICS": "no",
        "OTEL_PYTHON_CONCURRENCY_CELERY": "no",
        "OTEL_PYTHON_CONCURRENCY_THREADS": "0",
        "OTEL_PYTHON_CONCURRENCY_CONNECTION_POOLS": "no",
        "OTEL_PYTHON_CONCURRENCY_NATIVE": "No",
        "OTEL_PYTHON_CONCURRENCY_MAX_COROUTINES": " 17 ",
        "OTEL_PYTHON_CONCURRENCY_MAX_ERROR_TYPES": "1",
        "OTEL_PYTHON_CONCURRENCY_KEEP_UPSTREAM": "asyncio, Threading,,",
        "OTEL_PYTHON_CONCURRENCY_HTTP_INNER_SPANS": "ON",
        "OTEL_PYTHON_CONCURRENCY_HTTP_CLIENTS": "no",
        "OTEL_PYTHON_CONCURRENCY_HTTP_SERVERS": "no",
        "OTEL_PYTHON_CONCURRENCY_SUBPROCESSES": "no",
        "OTEL_PYTHON_CONCURRENCY_INHERIT_TRACE": "off",
        "OTEL_PYTHON_CONCURRENCY_LOG_IDENTITY": "off",
        "OTEL_PYTHON_CONCURRENCY_SPAN_IDENTITY": "off",
        "OTEL_PYTHON_CONCURRENCY_REQUEST_ID": "off",
        "OTEL_PYTHON_CONCURRENCY_REQUEST_ID_HEADER": "X-Correlation-ID",
        "OTEL_PYTHON_CONCURRENCY_REQUEST_ID_BAGGAGE": "on",
        "OTEL_PYTHON_CONCURRENCY_LOG_JSON": "StdOut",
        "OTEL_PYTHON_CONCURRENCY_LOG_QUEUE": "50",
        "OTEL_PYTHON_CONCURRENCY_EXIT_TIMEOUT": "0.5",
        "OTEL_PYTHON_CONCURRENCY_EXIT_SIGNALS": "no",
        "OTEL_PYTHON_CONCURRENCY_HTTP_PORT": "9464",
        "OTEL_PYTHON_CONCURRENCY_HTTP_HOST": "0.0.0.0",
        "OTEL_PYTHON_CONCURRENCY_HTTP_TOKEN": "sesame",
        "OTEL_PYTHON_CONCURRENCY_HTTP_HEALTH_LIMIT": "30",
        "OTEL_PYTHON_CONCURRENCY_HTTP_READY_LIMIT": "0.5",
        "OTEL_PYTHON_CONCURRENCY_HTTP_METRICS": "no",
    }
    assert set(environ) == {setting.variable for setting in SETTINGS}
    assert asdict(Config.from_environ(environ)) == {
        "enabled": False,
        "tasks": False,
        "task_spans": "all",
        "task_span_threshold": 0.5,
        "task_span_include": frozenset({"shop.*", "lib.load"}),
        "task_span_exclude": frozenset({"*.tick"}),
        "detach_after": 0.5,
        "request_times": False,
        "sync_waits": "names",
        "queue_links": True,
        "event_loops": False,
        "process_pools": False,
        "process_spans": "all",
        "process_metrics": False,
        "runtime_metrics": False,
        "gc_freeze": False,
        "stall_threshold": 0.25,
        "diagnosis": False,
        "diagnosis_window": 5.0,
        "failures": False,
        "threads": False,
        "celery": False,
        "connection_pools": False,
        "native": False,
        "max_coroutines": 17,
        "max_error_types": 1,
        "keep_upstream": frozenset({"asyncio", "threading"}),
        "http_inner_spans": True,
        "http_clients": False,
        "http_servers": False,
        "subprocesses": False,
        "inherit_trace": False,
        "log_identity": False,
        "span_identity": False,
        "request_id": False,
        "request_id_header": "x-correlation-id",
        "request_id_baggage": True,
        "log_json": "stdout",
        "log_queue": 50,
        "exit_timeout": 0.5,
        "exit_signals": False,
        "http_port": 9464,
        "http_host": "0.0.0.0",
        "http_token": "sesame",
        "http_health_limit": 30,
        "http_ready_limit": 0.5,
        "http_metrics": False,
    }


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "yes", "Yes", "on", " On "])
def test_what_means_true(word: str) -> None:
    assert Config.from_environ({PREFIX + "HTTP_INNER_SPANS": word}).http_inner_spans is True


@pytest.mark.parametrize("word", ["false", "False", "0", "no", "NO", "off"])
def test_what_means_false(word: str) -> None:
    assert Config.from_environ({PREFIX + "NATIVE": word}).native is False


@pytest.mark.parametrize(
    ("name", "value", "stands"),
    [
        ("ENABLED", "maybe", "true"),
        ("TASKS", "2", "true"),
        ("NATIVE", "tru", "true"),
        ("HTTP_INNER_SPANS", "-", "false"),
        ("LOG_IDENTITY", "none", "true"),
        ("LOG_JSON", "true", "none"),
        ("LOG_QUEUE", "0", "10000"),
        ("REQUEST_ID_HEADER", "two words", "x-request-id"),
        ("MAX_COROUTINES", "many", "200"),
        ("MAX_COROUTINES", "0", "200"),
        ("MAX_COROUTINES", "-3", "200"),
        ("MAX_COROUTINES", "1e3", "200"),
        ("MAX_COROUTINES", "100001", "200"),
        ("MAX_ERROR_TYPES", "9" * 5000, "50"),  # beyond what int() takes from text
        ("KEEP_UPSTREAM", "asyncio,grpc", "empty"),
        ("TASK_SPAN_INCLUDE", "[", "*"),
        ("TASK_SPAN_INCLUDE", "shop.*,lib.[a-", "*"),
        ("TASK_SPAN_EXCLUDE", "lib.[a-z].[]", "empty"),
        ("TASK_SPAN_EXCLUDE", "lib.[!]", "empty"),
        ("EXIT_TIMEOUT", "soon", "3.0"),
        ("EXIT_TIMEOUT", "-1", "3.0"),
        ("EXIT_TIMEOUT", "nan", "3.0"),
        ("EXIT_TIMEOUT", "inf", "3.0"),
    ],
)
def test_a_malformed_value_gives_one_warning_and_the_default(
    caplog: pytest.LogCaptureFixture, name: str, value: str, stands: str
) -> None:
    """The warning names the variable, the value and the default that stands; a second reader is silent."""
    assert asdict(Config.from_environ({PREFIX + name: value})) == DEFAULTS
    assert asdict(Config.from_environ({PREFIX + name: value})) == DEFAULTS
    told = warnings(caplog)
    assert len(told) == 1
    assert told[0].startswith(f"{PREFIX}{name}={value!r}"[:80])
    assert len(told[0]) < 300
    assert told[0].endswith(f"; the default, {stands}, stands")
    assert [record.name for record in caplog.records] == ["otel_concurrency.config"]


@pytest.mark.parametrize("glob", ["lib.[a-z]*", "[]]", "[!]]x", "a[[]b", "]", "?*"])
def test_a_glob_that_fnmatch_understands_is_taken(caplog: pytest.LogCaptureFixture, glob: str) -> None:
    assert Config.from_environ({PREFIX + "TASK_SPAN_INCLUDE": glob}).task_span_include == {glob}
    assert warnings(caplog) == []


def test_two_malformed_values_give_two_warnings(caplog: pytest.LogCaptureFixture) -> None:
    Config.from_environ({PREFIX + "NATIVE": "x", PREFIX + "TASKS": "x"})
    assert len(warnings(caplog)) == 2


def test_an_option_goes_before_the_variable_and_none_does_not() -> None:
    environ = {PREFIX + "MAX_COROUTINES": "7", PREFIX + "MAX_ERROR_TYPES": "8"}
    config = Config.from_options({"max_coroutines": 9, "max_error_types": None}, environ)
    assert (config.max_coroutines, config.max_error_types) == (9, 8)


def test_typed_options_are_read_as_typed() -> None:
    config = Config.from_options({"native": False, "max_coroutines": 9, "keep_upstream": ["asyncio"]})
    assert (config.native, config.max_coroutines) == (False, 9)
    assert config.keep_upstream == {"asyncio"}


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_coroutines", True), ("max_coroutines", 2.5), ("keep_upstream", 3), ("native", 2), ("native", [])],
)
def test_an_option_of_the_wrong_type_gives_one_warning_and_the_default(
    caplog: pytest.LogCaptureFixture, option: str, value: object
) -> None:
    assert asdict(Config.from_options({option: value})) == DEFAULTS
    assert [told.partition(" ")[0] for told in warnings(caplog)] == [f"{option}={value!r}"]


def test_an_option_that_no_setting_has_is_an_error() -> None:
    with pytest.raises(TypeError, match="max_coroutine: otel-concurrency has no such setting"):
        Config.from_options({"max_coroutine": 3})


def test_a_config_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().native = False  # type: ignore[misc]


def test_each_setting_is_a_constant_that_names_itself() -> None:
    """What `opentelemetry-instrument` makes its flags from, and one that keeps `--concurrency` free."""
    constants = {name for name in vars(environment_variables) if name.startswith("OTEL_")}
    assert constants == {setting.variable for setting in SETTINGS} | {"OTEL_PYTHON_CONCURRENCY"}
    assert all(vars(environment_variables)[name] == name for name in constants)


def test_options_of_instrumentors_and_of_code_are_settings() -> None:
    names = {setting.option for setting in SETTINGS}
    assert set(get_type_hints(Options)) == names
    assert {field.name for field in (*fields(TaskOptions), *fields(FastAPIOptions))} < names
