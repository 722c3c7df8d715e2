"""Versions, components and flags stand in files that cannot read each other; here they are compared."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_concurrency.stack import pins
from otel_concurrency.stack.paths import CONFIGURATION, MANIFEST, binary_path, stack_folder
from otel_concurrency.stack.pins import RECIPES
from otel_concurrency.stack.programs import PROGRAMS

COLLECTORS = ("agent", "gateway", "balancer")
BUILDER = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
KINDS = ("receivers", "processors", "exporters", "connectors", "extensions")

# A module is named after its component; but some renamed their components and kept their modules.
RENAMED = {
    "otlp_grpc": "otlp",
    "otlp_http": "otlphttp",
    "health_check": "healthcheck",
}
NO_SUFFIX = {"filestorage"}

# Newer ones, or what they need, the module proxy of Go does not serve.
OLDER = {"tailsamplingprocessor": "v0.157.0", "loadbalancingexporter": "v0.157.0"}


def configuration(name: str) -> dict[str, Any]:
    """Return one of the collector's configuration files."""
    loaded: dict[str, Any] = yaml.safe_load((CONFIGURATION / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_the_collector_is_built_from_what_its_configurations_name(kind: str) -> None:
    """One component too few would not start; one too many would be carried along for ever."""
    named = {
        component.split("/")[0] for name in COLLECTORS for component in configuration(name).get(kind, {})
    }
    bare = {RENAMED.get(name, name).replace("_", "") for name in named}
    modules = {name if name in NO_SUFFIX else name + kind.removesuffix("s") for name in bare}
    assert {module["gomod"].split()[0].rpartition("/")[2] for module in BUILDER[kind]} == modules


def test_the_collector_has_one_version() -> None:
    """The builder, its manifest and every beta component move together, but for those that cannot."""
    versions = dict(module["gomod"].split() for kind in KINDS for module in BUILDER[kind])
    other = {
        module.rpartition("/")[2]: version
        for module, version in versions.items()
        if version != f"v{BUILDER['dist']['version']}"
    }
    assert other == OLDER
    assert BUILDER["dist"]["version"] == pins.COLLECTOR


@pytest.mark.parametrize("name", COLLECTORS)
def test_every_pipeline_limits_memory_first(name: str) -> None:
    """What comes before the limiter holds what the limiter is to refuse."""
    pipelines = configuration(name)["service"]["pipelines"]
    first = {key: line["processors"][0] for key, line in pipelines.items() if "otlp" in line["receivers"]}
    assert set(first.values()) == {"memory_limiter"}
    assert len(first) == {"agent": 3, "gateway": 4, "balancer": 1}[name]


@pytest.mark.parametrize("name", ["agent", "gateway"])
def test_what_is_accepted_is_on_disk_before_the_sender_hears_of_it(name: str) -> None:
    """A batch processor, or a queue in memory, would say yes and then lose the data with its process."""
    loaded = configuration(name)
    assert [key for key in loaded["processors"] if key.startswith("batch")] == []
    senders = {key: one for key, one in loaded["exporters"].items() if key.startswith("otlp")}
    assert len(senders) == 3
    assert {one["sending_queue"]["storage"] for one in senders.values()} == {"file_storage"}
    assert {one["retry_on_failure"]["max_elapsed_time"] for one in senders.values()} == {0}
    assert "file_storage" in loaded["service"]["extensions"]


@pytest.mark.parametrize("name", ["agent", "gateway"])
def test_the_queue_is_full_long_before_its_file_is(name: str) -> None:
    """A file that is full loses what was accepted; a queue that is full refuses."""
    text = (CONFIGURATION / f"{name}.yaml").read_text(encoding="utf-8")
    [disk] = set(re.findall(r"max_size: \$\{env:[A-Z]+_DISK_BYTES:-(\d+)\}", text))
    [queue] = set(re.findall(r"queue_size: \$\{env:[A-Z]+_QUEUE_BYTES:-(\d+)\}", text))
    assert int(disk) >= 2 * int(queue) + 64 * 2**20


@pytest.mark.parametrize("name", COLLECTORS)
def test_every_variable_is_told_of_with_its_default(name: str) -> None:
    """The comment at the top is where people look."""
    text = (CONFIGURATION / f"{name}.yaml").read_text(encoding="utf-8")
    head, _, body = text.partition("\nextensions:")
    used = set(re.findall(r"\$\{env:(\w+):-([^}]*)\}", body))
    told = dict(re.findall(r"^#   ([A-Z_]+) +\S.*?  +(\S+)", head, re.MULTILINE))
    assert {variable: told.get(variable, "").rstrip(";") for variable, _ in used} == dict(used)
    assert set(told) == {variable for variable, _ in used}


def test_prometheus_reads_the_rules_that_are_there() -> None:
    """The pattern is relative to the file, with Docker and without."""
    loaded = yaml.safe_load((CONFIGURATION / "prometheus.yaml").read_text(encoding="utf-8"))
    found = [path.name for pattern in loaded["rule_files"] for path in sorted(CONFIGURATION.glob(pattern))]
    assert found == ["alerts.yaml", "recording.yaml"]


@pytest.mark.stack
@pytest.mark.parametrize("name", COLLECTORS)
def test_the_collector_accepts_the_configuration(name: str, tmp_path: Path) -> None:
    """With its defaults, but for the queue's folder."""
    file = CONFIGURATION / f"{name}.yaml"
    queue = {"AGENT_QUEUE_FOLDER": str(tmp_path / "queue"), "GATEWAY_QUEUE_FOLDER": str(tmp_path / "queue")}
    ended = subprocess.run(
        [str(binary_path(RECIPES[0], stack_folder())), "validate", f"--config={file}"],
        env={**os.environ, **queue},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_prometheus_has_the_same_switches_with_and_without_docker() -> None:
    """Exemplars and OTLP are off by default; forgetting a flag in one place shows nothing but absence."""
    from tests.stack.test_compose import COMPOSE

    prometheus = next(program for program in PROGRAMS if program.name == "prometheus")
    tested = prometheus.arguments({"prometheus": 9090}, Path("/data"))
    addresses = ("--config.file=", "--storage.tsdb.path=", "--web.listen-address=")

    def switches(flags: list[str]) -> list[str]:
        return [flag for flag in flags if not flag.startswith(addresses)]

    assert switches(COMPOSE["services"]["prometheus"]["command"]) == switches(tested)
    assert len(switches(tested)) == 2
