"""The distro, one decision at a time; `tests/e2e/test_start.py` has whole programs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any
from unittest import mock

import pytest
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency import distro as distro_module
from otel_concurrency.config import PREFIX
from otel_concurrency.defaults import default_variables, protocol_of
from otel_concurrency.distro import ConcurrencyDistro
from otel_concurrency.environment_variables import choose

LOADER = "opentelemetry.instrumentation.auto_instrumentation._load"


class Recorded(BaseInstrumentor):
    """Base of the instrumentors below: keeps what happened to each, in order."""

    happened: list[tuple[str, dict[str, Any]]] = []
    trouble: Exception | None = None

    def instrumentation_dependencies(self) -> tuple[str, ...]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.happened.append((f"+{type(self).__name__}", kwargs))

    def _uninstrument(self, **kwargs: Any) -> None:
        self.happened.append((f"-{type(self).__name__}", kwargs))
        if self.trouble is not None:
            raise self.trouble


class Upstream(Recorded):
    _instance = None


class Ours(Recorded):
    _instance = None


class Other(Recorded):
    _instance = None


class Point:
    """An entry point that loads a class of this file under somebody else's name."""

    def __init__(self, name: str, value: str, cls: type[Recorded]) -> None:
        self.name, self.value, self.cls = name, value, cls

    def load(self) -> type[Recorded]:
        return self.cls


UPSTREAM = Point("asyncio", "opentelemetry.instrumentation.asyncio:AsyncioInstrumentor", Upstream)
OURS = Point("concurrency_asyncio", "otel_concurrency.instrumentors.tasks:AsyncioTaskInstrumentor", Ours)
OTHER = Point("other", "elsewhere:Other", Other)
NO_ARGUMENTS: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def distro(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConcurrencyDistro]:
    """A distro as in a fresh process, which knows the three instrumentors of this file."""
    monkeypatch.setattr(ConcurrencyDistro, "_instance", None)
    monkeypatch.setattr(
        distro_module, "entry_points", lambda group, name: [OURS] if name == OURS.name else []
    )
    Recorded.happened.clear()
    for cls in (Upstream, Ours, Other):
        monkeypatch.setattr(cls, "_instance", None)
        monkeypatch.setattr(cls, "trouble", None)
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            del os.environ[name]
        distro = ConcurrencyDistro()
        yield distro
        distro.stop()


def start(distro: ConcurrencyDistro, *points: Point) -> list[str]:
    """Do what the loader does; return which instrumentors became active, in order."""
    distro.configure()
    for point in points:
        distro.load_instrumentor(point, skip_dep_check=True)
    return [what for what, _ in Recorded.happened]


@pytest.mark.parametrize("points", [(UPSTREAM, OURS, OTHER), (OURS, UPSTREAM, OTHER)])
def test_ours_stands_in_for_upstreams_in_either_order(
    distro: ConcurrencyDistro, points: tuple[Point, ...]
) -> None:
    assert start(distro, *points) == ["+Ours", "+Other"]


def test_upstreams_is_kept_beside_ours_on_request(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "KEEP_UPSTREAM", "asyncio")
    assert start(distro, UPSTREAM, OURS) == ["+Upstream", "+Ours"]


def test_upstreams_loads_where_ours_is_disabled(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader never offers ours then; we must not fetch it ourselves."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "flask , concurrency_asyncio")
    assert start(distro, UPSTREAM) == ["+Upstream"]


def test_upstreams_loads_where_ours_fails(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One record for ours, although its turn comes again."""
    monkeypatch.setattr(Ours, "trouble", RuntimeError("no luck today"))
    assert start(distro, UPSTREAM, OURS, OTHER) == ["+Upstream", "+Other"]
    assert [record.getMessage() for record in caplog.records] == [
        "Instrumentor concurrency_asyncio failed and is left out; the others go on"
    ]


def test_an_instrumentor_of_the_same_name_from_elsewhere_is_not_replaced(distro: ConcurrencyDistro) -> None:
    in_house = Point("asyncio", "in_house:AsyncioInstrumentor", Upstream)
    assert start(distro, in_house, OURS) == ["+Upstream", "+Ours"]


def test_what_is_active_already_is_not_started_again(
    distro: ConcurrencyDistro, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a configuration file, or a call in the program."""
    Other().instrument()
    assert start(distro, OTHER) == ["+Other"]
    assert caplog.records == []
    assert list(distro.loaded) == ["other"]


@pytest.mark.parametrize("trouble", [ImportError("x"), ModuleNotFoundError("x")])
def test_a_missing_library_is_the_loaders_affair(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """It says so at its own level, and goes on."""
    monkeypatch.setattr(Other, "trouble", trouble)
    with pytest.raises(type(trouble)):
        start(distro, OTHER)


def test_contribs_fastapi_instrumentor_gets_no_message_spans(distro: ConcurrencyDistro) -> None:
    contribs = Point("fastapi", "opentelemetry.instrumentation.fastapi:FastAPIInstrumentor", Upstream)
    start(distro, contribs)
    assert Recorded.happened == [("+Upstream", {"exclude_spans": ["receive", "send"]})]


def test_contribs_fastapi_instrumentor_keeps_message_spans_on_request(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "HTTP_INNER_SPANS", "true")
    contribs = Point("fastapi", "opentelemetry.instrumentation.fastapi:FastAPIInstrumentor", Upstream)
    start(distro, contribs)
    assert Recorded.happened == [("+Upstream", NO_ARGUMENTS)]


def test_a_disabled_sdk_loads_nothing_and_sets_nothing(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", " TRUE ")
    before = dict(os.environ)
    assert start(distro, UPSTREAM, OURS, OTHER) == []
    assert dict(os.environ) == before


def test_switched_off_ours_is_upstreams(distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its defaults, its instrumentors, none of ours; and one that raises ends the start, as it does there."""
    monkeypatch.setenv(PREFIX + "ENABLED", "false")
    assert start(distro, UPSTREAM, OURS, OTHER) == ["+Upstream", "+Other"]
    assert os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc"
    monkeypatch.setattr(Other, "_instance", None)
    monkeypatch.setattr(Other, "trouble", RuntimeError("no luck today"))
    with pytest.raises(RuntimeError):
        distro.load_instrumentor(OTHER)


def test_stopping_lets_go_of_everything_last_first(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails to let go keeps none of the others."""
    start(distro, OURS, OTHER)
    monkeypatch.setattr(Other, "trouble", RuntimeError("no luck today"))
    distro.stop()
    assert [what for what, _ in Recorded.happened] == ["+Ours", "+Other", "-Other", "-Ours"]
    assert [record.getMessage() for record in caplog.records] == ["Instrumentor other could not be removed"]
    assert not any(name.startswith("OTEL_") for name in os.environ)


def test_one_warning_of_the_loader_is_kept_back_and_no_other(
    distro: ConcurrencyDistro, caplog: pytest.LogCaptureFixture
) -> None:
    distro.configure()
    loader = logging.getLogger(LOADER)
    because = "Configuration of %s not loaded because %s is set by %s"
    loader.warning(because, "vendor", "otel_concurrency", "OTEL_PYTHON_CONFIGURATOR")
    loader.warning(because, "configurator", "otel_concurrency", "OTEL_PYTHON_CONFIGURATOR")
    loader.warning(because, "configurator", "otel_concurrency", "OTEL_PYTHON_CONFIGURATOR")
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == [
        "vendor",
        "configurator",
    ]


def test_the_loaders_warnings_are_no_longer_kept_back_once_it_loads(
    distro: ConcurrencyDistro, caplog: pytest.LogCaptureFixture
) -> None:
    start(distro, OTHER)
    logging.getLogger(LOADER).warning(
        "Configuration of %s not loaded, %s already loaded", "configurator", "x"
    )
    assert len(caplog.records) == 1


ALL_OTLP = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"}
GENERAL = "OTEL_EXPORTER_OTLP_PROTOCOL"
STABLE = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http"}


@pytest.mark.parametrize(
    ("environ", "protocols"),
    [
        ({}, {GENERAL: "http/protobuf"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, {GENERAL: "grpc"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, {GENERAL: "grpc"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:4317/"}, {GENERAL: "grpc"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://4317.example/otlp"}, {GENERAL: "http/protobuf"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:nonsense"}, {GENERAL: "http/protobuf"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", GENERAL: "http/protobuf"}, {}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", GENERAL: ""}, {GENERAL: "grpc"}),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"},
            {GENERAL: "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:4318/v1/logs",
            },
            {GENERAL: "grpc", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf"},
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4317",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            },
            {GENERAL: "http/protobuf"},
        ),
    ],
)
def test_the_protocol_follows_the_port(environ: dict[str, str], protocols: dict[str, str]) -> None:
    assert default_variables(environ) == ALL_OTLP | STABLE | protocols


def test_exporters_and_conventions_of_the_user_stand() -> None:
    environ = {
        "OTEL_TRACES_EXPORTER": "otlp_proto_grpc",
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup",
    }
    assert default_variables(environ) == {
        GENERAL: "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
    }


def test_a_configuration_file_finds_no_variables_of_ours(
    distro: ConcurrencyDistro, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `${VARIABLE:-default}` would take them for the user's."""
    monkeypatch.setenv("OTEL_CONFIG_FILE", "telemetry.yaml")
    distro.configure()
    assert [name for name in os.environ if name.startswith("OTEL_")] == ["OTEL_CONFIG_FILE"]


def test_a_port_of_grpc_is_4317_alone() -> None:
    assert [protocol_of(f"http://c:{port}") for port in (4316, 4317, 4318)] == [
        "http/protobuf",
        "grpc",
        "http/protobuf",
    ]


@pytest.mark.parametrize(
    ("argv", "environ", "chosen"),
    [
        (["program"], {}, ("otel_concurrency", "otel_concurrency")),
        (["program"], {"OTEL_PYTHON_DISTRO": ""}, ("otel_concurrency", "otel_concurrency")),
        (["program"], {"OTEL_PYTHON_DISTRO": "otel_concurrency"}, (None, "otel_concurrency")),
        (["program"], {"OTEL_PYTHON_DISTRO": "distro"}, (None, "configurator")),
        (["program"], {"OTEL_PYTHON_DISTRO": "unheard-of"}, (None, "otel_concurrency")),
        (["program"], {"OTEL_PYTHON_CONFIGURATOR": "configurator"}, ("distro", None)),
        (["--distro", "distro", "program"], {}, (None, "configurator")),
        (["--distro=distro", "--configurator=x", "program"], {}, (None, None)),
        (["--traces_exporter=none", "--dist", "distro", "program"], {}, (None, "configurator")),
        (["program", "--distro", "debian"], {}, ("otel_concurrency", "otel_concurrency")),
        (["--", "program", "--distro", "debian"], {}, ("otel_concurrency", "otel_concurrency")),
        (["--distro"], {}, ("otel_concurrency", "otel_concurrency")),
        ([], {}, ("otel_concurrency", "otel_concurrency")),
    ],
)
def test_who_is_chosen(
    argv: list[str], environ: dict[str, str], chosen: tuple[str | None, str | None]
) -> None:
    """None stands for a variable that is left as it is."""
    found = choose(environ, ["opentelemetry-instrument", *argv])
    assert (found.get("OTEL_PYTHON_DISTRO"), found.get("OTEL_PYTHON_CONFIGURATOR")) == chosen


def test_importing_the_names_changes_no_environment() -> None:
    """Only the command's own `run()` may: see `tests/e2e/test_start.py` for that."""
    assert "OTEL_PYTHON_DISTRO" not in os.environ
    assert EntryPoint("x", "otel_concurrency.environment_variables", "y").load().NAME == "otel_concurrency"
    assert "OTEL_PYTHON_DISTRO" not in os.environ
