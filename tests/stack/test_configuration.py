"""Versions, components and flags stand in files that cannot read each other; here they are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from _stack import pins
from _stack.paths import CONFIGURATION, MANIFEST, TREE
from _stack.programs import PROGRAMS

COMPOSE = yaml.safe_load((TREE / "docker-compose.yml").read_text(encoding="utf-8"))
AGENT = yaml.safe_load((CONFIGURATION / "agent.yaml").read_text(encoding="utf-8"))
BUILDER = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))

# A module is named after its component, but the two renamed their components and kept their modules.
RENAMED = {"otlp_grpc": "otlp", "otlp_http": "otlphttp", "health_check": "healthcheck"}


def test_the_images_are_the_versions_that_the_tests_run() -> None:
    """Whoever runs the compose file gets what was tested."""
    assert {name: service["image"] for name, service in COMPOSE["services"].items()} == {
        "collector": f"otel/opentelemetry-collector-contrib:{pins.COLLECTOR}",
        "jaeger": f"jaegertracing/jaeger:{pins.JAEGER}",
        "prometheus": f"prom/prometheus:v{pins.PROMETHEUS}",
        "grafana": f"grafana/grafana:{pins.GRAFANA}",
    }


def test_every_mounted_file_exists() -> None:
    """Docker would make an empty folder in place of a file that is missing."""
    mounts = [
        mount.split(":")[0]
        for service in COMPOSE["services"].values()
        for mount in service["volumes"]
        if mount.startswith("./")
    ]
    assert len(mounts) == len(COMPOSE["services"])
    assert [mount for mount in mounts if not (TREE / mount).is_file()] == []


def test_only_loopback_is_published() -> None:
    """A published port without an address listens on every interface, firewall or not."""
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("kind", ["receivers", "processors", "exporters", "extensions"])
def test_the_collector_is_built_from_what_its_configuration_names(kind: str) -> None:
    """One component too few would not start; one too many would be carried along for ever."""
    named = {component.split("/")[0] for component in AGENT[kind]}
    modules = {RENAMED.get(name, name).replace("_", "") + kind.removesuffix("s") for name in named}
    assert {module["gomod"].split()[0].rpartition("/")[2] for module in BUILDER[kind]} == modules


def test_the_collector_has_one_version() -> None:
    """The builder, its manifest and every beta component move together."""
    versions = {
        module["gomod"].split()[1]
        for kind in ("receivers", "processors", "exporters", "extensions")
        for module in BUILDER[kind]
    }
    assert versions == {f"v{BUILDER['dist']['version']}"}
    assert BUILDER["dist"]["version"] == pins.COLLECTOR


def test_every_pipeline_limits_memory_first() -> None:
    """Batching before the limiter would hold what the limiter is to refuse."""
    processors = {name: pipeline["processors"] for name, pipeline in AGENT["service"]["pipelines"].items()}
    limited = ["memory_limiter", "batch"]
    assert processors == {"traces": limited, "metrics": limited, "logs": limited}


def test_prometheus_has_the_same_switches_with_and_without_docker() -> None:
    """Exemplars and OTLP are off by default; forgetting a flag in one place shows nothing but absence."""
    prometheus = next(program for program in PROGRAMS if program.name == "prometheus")
    tested = prometheus.arguments({"prometheus": 9090}, Path("/data"))
    addresses = ("--config.file=", "--storage.tsdb.path=", "--web.listen-address=")

    def switches(flags: list[str]) -> list[str]:
        return [flag for flag in flags if not flag.startswith(addresses)]

    assert switches(COMPOSE["services"]["prometheus"]["command"]) == switches(tested)
    assert len(switches(tested)) == 2
