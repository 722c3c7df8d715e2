"""Prometheus' rules: it takes them, each alert fires when it must, and each has its chapter."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from otel_concurrency.stack.paths import CONFIGURATION, binary_path, stack_folder
from otel_concurrency.stack.pins import RECIPES
from tests.stack.places import TREE

RULES = CONFIGURATION / "rules"
UNIT_TESTS = TREE / "tests" / "stack" / "alerts" / "alerts.yaml"


def groups(name: str) -> list[dict[str, str]]:
    """Return all rules of a file."""
    loaded = yaml.safe_load((RULES / f"{name}.yaml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def promtool(*arguments: str) -> str:
    """Run Prometheus' own judge of rules, and return what it says."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == "promtool")
    command = [str(binary_path(recipe, stack_folder())), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.stack
def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    said = promtool("check", "config", "--lint-fatal", str(CONFIGURATION / "prometheus.yaml"))
    assert f"{len(groups('alerts'))} rules found" in said
    assert f"{len(groups('recording'))} rules found" in said


@pytest.mark.stack
def test_every_alert_fires_when_it_must_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(UNIT_TESTS))


def test_every_alert_has_a_unit_test_in_which_it_fires() -> None:
    tests = yaml.safe_load(UNIT_TESTS.read_text(encoding="utf-8"))["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {rule["alert"] for rule in groups("alerts")}


def test_every_alert_has_its_chapter_in_the_docs() -> None:
    """The link of an alert is the one thing that somebody has at three in the morning."""
    text = (TREE / "docs" / "alerts.md").read_text(encoding="utf-8")
    chapters = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert chapters == [rule["alert"] for rule in groups("alerts")]
    links = [rule["annotations"]["runbook_url"] for rule in groups("alerts")]
    assert links == [f"docs/alerts.md#{chapter.lower()}" for chapter in chapters]


def test_every_alert_says_how_bad_it_is() -> None:
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in groups("alerts")}
    critical = {alert for alert, severity in severities.items() if severity == "critical"}
    assert critical == {"EventLoopStalledLong", "PoolTimeouts", "FindingCritical"}
    assert set(severities.values()) == {"critical", "warning"}
