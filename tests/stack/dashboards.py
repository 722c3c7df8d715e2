"""The committed dashboards and rules, read as Grafana and Prometheus read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from otel_concurrency.stack.paths import CONFIGURATION

DASHBOARDS = sorted((CONFIGURATION / "dashboards").glob("*.json"))


def recorded() -> set[str]:
    """Return the names that the recording rules give."""
    return {rule["record"] for rule in rules("recording")}


def rules(name: str) -> list[dict[str, Any]]:
    """Return the rules of a file."""
    loaded = yaml.safe_load((CONFIGURATION / "rules" / f"{name}.yaml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the panels of a dashboard, those inside of rows included."""
    for panel in board["panels"]:
        yield from panel.get("panels", [])
        yield panel


def log_queries() -> list[tuple[str, str]]:
    """Return where a query of Loki stands, and the query."""
    return [
        (f"{path.stem}: {panel['title']}", target["expr"])
        for path in DASHBOARDS
        for panel in panels(json.loads(path.read_text(encoding="utf-8")))
        for target in panel.get("targets", [])
        if panel["datasource"]["type"] == "loki"
    ]


def source(kind: str) -> dict[str, Any]:
    """Return the `jsonData` of a data source of Grafana's."""
    loaded = yaml.safe_load((CONFIGURATION / "grafana-datasources.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = next(one for one in loaded["datasources"] if one["type"] == kind)["jsonData"]
    return found


def expressions() -> list[tuple[str, str]]:
    """Return where an expression of PromQL stands, and the expression."""
    found = [
        (f"{path.stem}: {panel['title']}", target["expr"])
        for path in DASHBOARDS
        for panel in panels(json.loads(path.read_text(encoding="utf-8")))
        for target in panel.get("targets", [])
        if panel["datasource"]["type"] == "prometheus"
    ]
    for path in DASHBOARDS:
        board = json.loads(path.read_text(encoding="utf-8"))
        found += [
            (f"{path.stem}: {one['name']}", one["expr"])
            for one in board["annotations"]["list"]
            if "expr" in one
        ]
        found += [(f"{path.stem}: ${one['name']}", one["query"]) for one in board["templating"]["list"]]
    for name in ("recording", "alerts"):
        found += [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules(name)]
    found += [
        (one["name"], one["query"].replace("$$__tags", 'job="shop"'))
        for one in source("jaeger")["tracesToMetrics"]["queries"]
    ]
    return found


def filled_in(expression: str) -> str:
    """Return an expression as Grafana asks it, with all services and processes chosen."""
    if listed := re.fullmatch(r"label_values\((.*), \w+\)", expression):
        expression = listed[1]
    filled = expression.replace("$__rate_interval", "5m").replace("$job", ".+").replace("$instance", ".+")
    assert "$" not in filled, filled
    return filled
