"""Dashboards and rules ask for what there is: a misspelt name would be an empty panel, or a silent alert."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from _prometheus_names import prometheus_label, prometheus_name
from opentelemetry.semconv._incubating.metrics import otel_metrics

from otel_concurrency.signals import names
from otel_concurrency.stack.paths import CONFIGURATION
from tests.stack.dashboards import DASHBOARDS, expressions, panels, recorded
from tests.stack.places import TREE

# Prometheus' own: what fires now.
OF_PROMETHEUS = {"ALERTS"}

# The gateway's, of all spans.
OF_SPANS = {"traces_span_metrics_calls_total", "traces_span_metrics_duration_seconds"}

# The collector's own; documentation.md of its receiverhelper, exporterhelper and tail sampling processor.
OF_COLLECTOR = {
    f"otelcol_{what}_{of}_total"
    for what in (
        "receiver_accepted",
        "receiver_refused",
        "exporter_sent",
        "exporter_send_failed",
        "exporter_enqueue_failed",
    )
    for of in ("spans", "metric_points", "log_records")
} | {
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    "otelcol_processor_tail_sampling_global_count_traces_sampled_total",
    "otelcol_processor_tail_sampling_count_traces_sampled_total",
}

# With OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=true; the names are the semantic conventions'.
OF_SDK = {
    f"{value.replace('.', '_')}{suffix}"
    for name, value in vars(otel_metrics).items()
    if name.startswith("OTEL_SDK_")
    for suffix in (
        ["_total"]
        if value.endswith(("exported", "processed"))
        else ["_seconds_sum", "_seconds_count"]
        if value.endswith("duration")
        else [""]
    )
}

OURS = {prometheus_name(instrument) for instrument in names.INSTRUMENTS}

LABELS = {
    *{prometheus_label(key) for instrument in names.INSTRUMENTS for key in instrument.attributes},
    *("job", "instance", "alertstate", "exporter", "data_type", "sampled", "policy"),
    *("otel_component_type", "span_kind", "span_name", "status_code", "service_name", "signal", "by"),
    "process_shutdown_reason",
}

WORDS = {
    *("sum", "max", "min", "count", "by", "on", "and", "or", "unless", "offset", "topk", "rate", "increase"),
    *("histogram_quantile", "histogram_sum", "histogram_count", "clamp_min", "vector", "label_values"),
}


def unknown(expression: str) -> set[str]:
    """Return what an expression names that is neither a metric, nor a label, nor a word of PromQL."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\boffset \w+", "", bare)
    words = set(re.findall(r"(?<![\w$:.])[a-zA-Z_][\w:]*", bare))
    return (
        words
        - OURS
        - OF_SDK
        - OF_COLLECTOR
        - OF_SPANS
        - OF_PROMETHEUS
        - recorded()
        - LABELS
        - WORDS
        - {"error_type"}
    )


def test_there_are_six_dashboards() -> None:
    assert [path.stem for path in DASHBOARDS] == [
        "event-loop",
        "executors-and-processes",
        "pools-and-locks",
        "service-overview",
        "tasks",
        "telemetry-health",
    ]


def test_the_dashboards_are_what_the_script_writes() -> None:
    """`make dashboards` brings them up to date."""
    pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11")
    ended = subprocess.run(
        [sys.executable, str(TREE / "scripts" / "dashboards")],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_every_expression_names_only_what_there_is() -> None:
    found = expressions()
    assert len(found) > 150
    assert {where: unknown(expression) for where, expression in found if unknown(expression)} == {}


def test_a_misspelt_metric_would_be_seen() -> None:
    assert unknown('sum(rate(asyncio_task_create_total{job="x"}[5m])) by (job)') == {
        "asyncio_task_create_total"
    }


def test_a_histogram_is_asked_as_one_and_a_counter_by_its_rate() -> None:
    """`rate` of a gauge and a bare counter both draw something, and both are wrong."""
    kinds = {prometheus_name(one): one.kind for one in names.INSTRUMENTS}
    wrong = [
        (where, name)
        for where, expression in expressions()
        for name in set(re.findall(r"[a-z_]+", expression)) & set(kinds)
        if kinds[name] in ("gauge", "updowncounter") and re.search(rf"(rate|increase)\({name}\b", expression)
    ]
    assert wrong == []


def test_every_metric_of_ours_is_on_a_dashboard() -> None:
    """What nobody can see need not be measured."""
    text = "\n".join(expression for where, expression in expressions() if ": " in where)
    missing = {name for name in OURS if not re.search(rf"\b{name}\b", text)}
    assert missing == {"process_windows_handle_count"}  # on Windows only


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_hangs_together(path: Path) -> None:
    """Its sources are provisioned, no panel lies on another, and it has the variables that are asked for."""
    board = json.loads(path.read_text(encoding="utf-8"))
    sources = yaml.safe_load((CONFIGURATION / "grafana-datasources.yaml").read_text(encoding="utf-8"))
    uids = {one["uid"] for one in sources["datasources"]}
    drawn = [panel for panel in panels(board) if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in drawn} - uids == set()
    numbers = [panel["id"] for panel in panels(board)]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in drawn]
    assert len(set(places)) == len(places)
    assert max(panel["gridPos"]["x"] + panel["gridPos"]["w"] for panel in drawn) == 24
    assert {variable["name"] for variable in board["templating"]["list"]} == {"job", "instance"}


def test_every_way_from_one_signal_to_another_leads_to_a_source_that_there_is() -> None:
    sources = yaml.safe_load((CONFIGURATION / "grafana-datasources.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    by_type = {one["type"]: one["jsonData"] for one in sources}
    ways = {
        "exemplar to trace": by_type["prometheus"]["exemplarTraceIdDestinations"][0]["datasourceUid"],
        "trace to logs": by_type["jaeger"]["tracesToLogsV2"]["datasourceUid"],
        "trace to metrics": by_type["jaeger"]["tracesToMetrics"]["datasourceUid"],
        "log to trace": by_type["loki"]["derivedFields"][0]["datasourceUid"],
    }
    assert ways == {
        "exemplar to trace": "jaeger",
        "trace to logs": "loki",
        "trace to metrics": "prometheus",
        "log to trace": "jaeger",
    }
    assert {one["uid"] for one in sources} == {"prometheus", "jaeger", "loki"}
