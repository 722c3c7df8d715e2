"""`docker-compose.yml` is never run here, so everything that can be read from it is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_concurrency.stack import pins
from tests.stack.places import TREE

COMPOSE: dict[str, Any] = yaml.safe_load((TREE / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MORE = TREE / "collector-config" / "publish-otlp.yaml"

# Nothing in the image can ask (the collectors), or there is nothing to ask.
WITHOUT_HEALTH_CHECK = {"agent", "gateway", "queues", "traffic", "worker"}


def mounts() -> list[tuple[str, str]]:
    """Return what of this tree is mounted where."""
    found = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    return [(parts[0], parts[1]) for parts in found if parts[0].startswith("./")]


def conditions(service: dict[str, Any]) -> dict[str, str]:
    """Return what a service waits for, and until when."""
    waits = service.get("depends_on", {})
    if isinstance(waits, list):
        return dict.fromkeys(waits, "service_started")
    return {other: how["condition"] for other, how in waits.items()}


@pytest.mark.parametrize("file", [TREE / "docker-compose.yml", MORE], ids=lambda path: path.name)
def test_it_is_what_the_specification_of_compose_allows(file: Path) -> None:
    """A misspelt key would be an error at the first `up`, on the machine of whoever tries this first."""
    pytest.importorskip("check_jsonschema")
    jsonschema = pytest.importorskip("jsonschema")
    schemas = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text(encoding="utf-8"))
    loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(loaded)) == []
    spoilt = {**loaded, "services": {"x": {"imagine": "there is no such key"}}}
    assert len(list(jsonschema.Draft202012Validator(schema).iter_errors(spoilt))) == 1


def test_the_images_are_the_versions_that_the_tests_run() -> None:
    """Whoever runs the compose file gets what was tested; the last one runs nowhere here."""
    collector = f"otel/opentelemetry-collector-contrib:{pins.COLLECTOR}"
    assert {name: service["image"] for name, service in SERVICES.items() if "build" not in service} == {
        "queues": f"prom/prometheus:v{pins.PROMETHEUS}",
        "agent": collector,
        "gateway": collector,
        "jaeger": f"jaegertracing/jaeger:{pins.JAEGER}",
        "prometheus": f"prom/prometheus:v{pins.PROMETHEUS}",
        "loki": f"grafana/loki:{pins.LOKI}",
        "grafana": f"grafana/grafana:{pins.GRAFANA}",
        "redis": f"redis:{pins.REDIS}-alpine",
        "postgres": f"postgres:{pins.POSTGRES}-alpine",
    }


def test_redis_and_postgresql_are_of_the_line_that_the_tests_run() -> None:
    """Debian's patches move on their own."""
    redis, postgres = shutil.which("redis-server"), sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if redis is None or not postgres:
        pytest.skip("needs redis-server and PostgreSQL (Debian: apt-get install redis-server postgresql)")
    told = [
        subprocess.run([str(command), "--version"], capture_output=True, text=True, check=True).stdout
        for command in (redis, postgres[-1])
    ]
    if "Debian 15." in told[1]:
        assert f"v={pins.REDIS.rpartition('.')[0]}." in told[0]
        assert f"(PostgreSQL) {pins.POSTGRES.partition('.')[0]}." in told[1]


def test_everything_that_is_mounted_exists() -> None:
    """Docker would make an empty folder in place of what is missing."""
    assert len(mounts()) == 10
    assert [source for source, _ in mounts() if not (TREE / source).exists()] == []


def test_every_file_that_a_command_names_is_mounted() -> None:
    """The path in the container is written twice."""
    targets = {target for _, target in mounts()}
    named = {
        argument.rpartition("=")[2]
        for service in SERVICES.values()
        for argument in service.get("command", [])
        if argument.endswith(".yaml")
    }
    assert len(named) == 5
    assert named - targets == set()


def test_the_rules_are_where_prometheus_looks_for_them() -> None:
    """Beside its configuration, in the same folder as in the tree."""
    rules = {target for source, target in mounts() if "/rules/" in source}
    assert rules == {"/etc/prometheus/rules/recording.yaml", "/etc/prometheus/rules/alerts.yaml"}


def test_grafana_finds_the_dashboards_where_its_provider_says() -> None:
    """The folder stands in three places."""
    provider = yaml.safe_load(
        (TREE / "collector-config" / "grafana-dashboards.yaml").read_text(encoding="utf-8")
    )
    folder = provider["providers"][0]["options"]["path"]
    assert ("./collector-config/dashboards", folder) in mounts()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (TREE / "collector-config" / "dashboards" / Path(home).name).is_file()
    assert str(Path(home).parent) == folder


def test_only_grafana_and_jaeger_are_published_and_on_loopback() -> None:
    """A published port without an address listens on every interface, firewall or not."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"jaeger": ["127.0.0.1:16686:16686"], "grafana": ["127.0.0.1:3000:3000"]}
    more = yaml.safe_load(MORE.read_text(encoding="utf-8"))["services"]["agent"]["ports"]
    assert [port for port in more if not port.startswith("127.0.0.1:")] == []


def test_whoever_can_be_asked_for_its_health_is() -> None:
    """And what ends is started again."""
    assert {
        name for name, service in SERVICES.items() if "healthcheck" not in service
    } == WITHOUT_HEALTH_CHECK
    restarts = {name: service["restart"] for name, service in SERVICES.items()}
    assert restarts.pop("queues") == "no"
    assert set(restarts.values()) == {"unless-stopped"}


def test_nobody_waits_for_the_health_of_what_has_no_check() -> None:
    """`service_healthy` of such a service is an error at `up`."""
    waits = {
        (name, other)
        for name, service in SERVICES.items()
        for other, how in conditions(service).items()
        if how == "service_healthy"
    }
    assert {other for _, other in waits} & WITHOUT_HEALTH_CHECK == set()
    assert waits == {
        ("storefront", "redis"),
        ("storefront", "warehouse"),
        ("traffic", "storefront"),
        ("warehouse", "postgres"),
        ("worker", "redis"),
    }


def test_only_who_gives_folders_away_is_root() -> None:
    """And that one has no network, and one right."""
    assert {name for name, service in SERVICES.items() if service.get("user", "").startswith("0")} == {
        "queues"
    }
    assert SERVICES["queues"]["cap_add"] == ["CHOWN"]
    assert SERVICES["queues"]["network_mode"] == "none"
    assert {tuple(service["cap_drop"]) for service in SERVICES.values()} == {("ALL",)}
    assert {tuple(service["security_opt"]) for service in SERVICES.values()} == {("no-new-privileges:true",)}


def test_every_variable_of_a_collector_is_one_that_its_configuration_reads() -> None:
    """A misspelt variable is the default without a word."""
    for name in ("agent", "gateway", "jaeger", "loki"):
        text = (TREE / "collector-config" / f"{name}.yaml").read_text(encoding="utf-8")
        read = set(re.findall(r"\$\{(?:env:)?([A-Z_]+)", text))
        assert set(SERVICES[name]["environment"]) - read == set(), name


def test_the_shop_is_started_with_words_that_it_knows() -> None:
    """Its command line is read by the very parser."""
    text = (TREE / "examples" / "shop" / "__main__.py").read_text(encoding="utf-8")
    flags = {
        argument.partition("=")[0]
        for name in ("storefront", "warehouse", "worker", "traffic")
        for argument in SERVICES[name]["command"][1:]
    }
    assert {flag for flag in flags if f'"{flag}"' not in text} == set()
    assert len(flags) == 6


def test_the_shop_is_built_from_this_tree() -> None:
    """What the recipe copies exists."""
    recipe = TREE / SERVICES["storefront"]["build"]["dockerfile"]
    copies = [
        shlex.split(line)
        for line in recipe.read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY")
    ]
    sources = [words[1] for words in copies if not words[1].startswith("--")]
    assert sources == [".", "examples/shop"]
    assert [source for source in sources if not (TREE / source).exists()] == []
