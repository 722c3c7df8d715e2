"""*Service overview*: is it well, what do its loops do, what do requests wait for."""

from __future__ import annotations

import functools

from _prometheus_names import prometheus_label
from grafana_foundation_sdk.builders.dashboard import Dashboard

from _dashboards.event_loop import time_of_loops
from _dashboards.panels import frame, graph, heat, log_lines, row
from _dashboards.panels import tile as any_tile
from _dashboards.promql import gil_wait, legend, matches, quantile, rate, seconds, series, total
from otel_concurrency.signals import names

CALLS = "traces_span_metrics_calls_total"
DURATION = "traces_span_metrics_duration_seconds"
SERVED = 'span_kind="SPAN_KIND_SERVER"'
FAILED = f'{SERVED},status_code="STATUS_CODE_ERROR"'

# Eight in a line.
tile = functools.partial(any_tile, span=3)

# Span metrics are the gateway's, which knows a service and not its processes.
OF_SERVICE = 'job=~"$job",'


def board() -> Dashboard:
    """Return the dashboard."""
    overview = frame(
        "otel-concurrency-service",
        "Service overview",
        "How a service is, what its event loops do with their time, and what its requests wait for.",
    )
    calls = f"rate({CALLS}{{{OF_SERVICE}{SERVED}}}[$__rate_interval])"
    failed = f"rate({CALLS}{{{OF_SERVICE}{FAILED}}}[$__rate_interval])"
    durations = f"rate({DURATION}{{{OF_SERVICE}{SERVED}}}[$__rate_interval])"
    critical = matches(names.DIAGNOSIS_SEVERITY, "crit")
    stalled = seconds(names.EVENTLOOP_STALL_DURATION)
    found = (prometheus_label(names.DIAGNOSIS_RULE), prometheus_label(names.DIAGNOSIS_SEVERITY))
    row(
        "How it is",
        overview,
        (
            tile(
                "Alerts",
                "short",
                'count(ALERTS{alertstate="firing",job=~"$job"}) or vector(0)',
                bad_from=1,
                description="What of collector-config/rules fires now; docs/alerts.md tells what it means.",
            ),
            tile(
                "Findings",
                "short",
                f"{total(names.DIAGNOSIS_ACTIVE)} or vector(0)",
                bad_from=1,
                description="What the diagnosis in the processes says is wrong now; docs/diagnosis.md.",
            ),
            tile(
                "Critical",
                "short",
                f"{total(names.DIAGNOSIS_ACTIVE, where=critical)} or vector(0)",
                bad_from=1,
                description="Of these, the ones that hold somebody up for long.",
            ),
            tile("Requests", "reqps", f"sum({calls})", description="From the gateway's span metrics."),
            tile("Failed", "percentunit", f"(sum({failed}) or vector(0)) / sum({calls})", bad_from=0.01),
            tile("p99", "s", f"histogram_quantile(0.99, sum({durations}))"),
            tile(
                "Busiest loop",
                "percentunit",
                f"max({series(names.LOOP_UTILIZATION)})",
                bad_from=0.9,
                description="Near 100 %, requests wait for each other: more processes, or less to do.",
            ),
            tile(
                "Held",
                "percentunit",
                f"{stalled} or vector(0)",
                bad_from=0.02,
                description="How much of the time some event loop stood still.",
            ),
        ),
    )
    row(
        "Findings",
        overview,
        (
            graph(
                "What is wrong",
                "short",
                (f"{total(names.DIAGNOSIS_ACTIVE, ('instance', *found))} > 0", legend((*found, "instance"))),
                stacked=True,
                description="By rule and severity; who is to blame, and the advice, are in the log.",
            ),
            graph(
                "Findings, opened",
                "ops",
                (rate(names.DIAGNOSIS_DETECTIONS, found[:1]), legend(found[:1])),
            ),
        ),
    )
    row("Event loops", overview, (time_of_loops(span=24),))
    row(
        "How long things wait for their turn",
        overview,
        (
            heat(
                "Delay",
                rate(names.LOOP_DELAY),
                description="What a callback that becomes due at any time waits for its turn.",
            ),
            heat(
                "Iterations",
                rate(names.LOOP_ITERATION_DURATION),
                description="From one wait for events to the next; whatever becomes due meanwhile waits.",
            ),
        ),
    )
    row(
        "What holds everything up",
        overview,
        (
            graph(
                "Wait for the GIL",
                "s",
                (gil_wait(), "{{instance}}"),
                (total(names.GIL_WAIT_MAX, ("instance",)), "longest, {{instance}}"),
                span=8,
                description="Above 2 ms on average, threads get in each other's way.",
            ),
            graph(
                "Garbage collection",
                "percentunit",
                (seconds(names.GC_PAUSE_DURATION, ("instance",)), "{{instance}}"),
                span=8,
                description="How much of the time the program waited for the garbage collector.",
            ),
            graph(
                "Throttled",
                "percentunit",
                (rate(names.CPU_THROTTLED_TIME, ("instance",)), "{{instance}}"),
                span=8,
                description="How much of the time the container had used up its CPU quota.",
            ),
        ),
    )
    waits = (
        (rate(names.TASK_BUSY_TIME), "busy"),
        (seconds(names.TASK_START_DELAY), "wait to start"),
        (seconds(names.WORK_QUEUE_DURATION), "wait for a worker"),
        (rate(names.SYNC_WAIT_TIME), "wait for locks and queues"),
        (seconds(names.CONNECTION_WAIT_TIME), "wait for a database connection"),
        (seconds(names.HTTP_CONNECTION_WAIT_TIME), "wait for an HTTP connection"),
    )
    row(
        "Requests",
        overview,
        (
            graph(
                "Latency",
                "s",
                (f"histogram_quantile(0.5, sum({durations}))", "p50"),
                (f"histogram_quantile(0.95, sum({durations}))", "p95"),
                (f"histogram_quantile(0.99, sum({durations}))", "p99"),
                description="Of all server spans, whatever sampling keeps. A dot leads to its trace.",
            ),
            graph(
                "p99 by route",
                "s",
                (f"histogram_quantile(0.99, sum by (job, span_name) ({durations}))", "{{job}} {{span_name}}"),
            ),
            graph(
                "Where the time of all work goes",
                "short",
                *waits,
                stacked=True,
                description="Seconds in each second: how many are at it at a time. A request tells the same "
                "of itself, in the attributes concurrency.* of its span.",
            ),
            graph(
                "Requests being answered",
                "short",
                (total(names.HTTP_ACTIVE_REQUESTS, ("instance",)), "{{instance}}"),
            ),
            graph(
                "Tasks",
                "ops",
                (rate(names.TASK_CREATED), "created"),
                (rate(names.TASK_COMPLETED, where=matches(names.TASK_OUTCOME, "failed")), "failed"),
                (rate(names.TASK_COMPLETED, where=matches(names.TASK_OUTCOME, "cancelled")), "cancelled"),
            ),
        ),
    )
    row(
        "Failures and stalls", overview, (log_lines("Log", '{service_name=~"$job"} | severity_number >= 13'),)
    )
    row(
        "Process $instance",
        overview,
        (
            graph(
                "Loops",
                "percentunit",
                (f"max by (instance) ({series(names.LOOP_UTILIZATION)})", "used"),
                span=8,
                top=1,
            ),
            graph(
                "Delay, p99",
                "s",
                (quantile(0.99, names.LOOP_DELAY), "p99"),
                span=8,
            ),
            graph("CPU", "percentunit", (rate(names.PROCESS_CPU_TIME), "of one CPU"), span=8),
        ),
        repeat="instance",
    )
    return overview
