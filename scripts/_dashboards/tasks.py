"""*Tasks*: which coroutine functions there are, how long they take and are busy, and how they end."""

from __future__ import annotations

from _prometheus_names import prometheus_label
from grafana_foundation_sdk.builders.dashboard import Dashboard

from _dashboards.panels import HALF, THIRD, frame, graph, heat, row, rows
from _dashboards.promql import (
    FUNCTION,
    LOOP,
    alive,
    legend,
    matches,
    per_second,
    quantile,
    rate,
    seconds,
    series,
    total,
)
from otel_concurrency.signals import names

STATE = prometheus_label(names.TASK_STATE)
OUTCOME = prometheus_label(names.TASK_OUTCOME)
ERROR = prometheus_label(names.ERROR_TYPE)
KIND = prometheus_label(names.FAILURE_KIND)
CALL = prometheus_label(names.FUNCTION_OUTCOME)


def board() -> Dashboard:
    """Return the dashboard."""
    tasks = frame(
        "otel-concurrency-tasks",
        "Tasks",
        "Tasks by coroutine function: how many, how long, how busy, and how they end.",
    )
    created, completed = rate(names.TASK_CREATED, FUNCTION), rate(names.TASK_COMPLETED, FUNCTION)
    failed = rate(names.TASK_COMPLETED, FUNCTION, matches(names.TASK_OUTCOME, "failed"))
    errors = rate(names.TASK_COMPLETED, (*FUNCTION, ERROR), matches(names.TASK_OUTCOME, "failed"))
    busy, steps = rate(names.TASK_BUSY_TIME, FUNCTION), rate(names.TASK_STEPS, FUNCTION)
    row(
        "Coroutine functions",
        tasks,
        (
            rows(
                "By function",
                {
                    "live": (
                        "short",
                        alive(FUNCTION),
                    ),
                    "created": ("ops", created),
                    "failed": ("percentunit", f"{failed} / ({completed} > 0)"),
                    "p50": ("s", quantile(0.5, names.TASK_DURATION, FUNCTION)),
                    "p99": ("s", quantile(0.99, names.TASK_DURATION, FUNCTION)),
                    "busy": ("percentunit", busy),
                    "wait to start, p99": ("s", quantile(0.99, names.TASK_START_DELAY, FUNCTION)),
                    "steps": ("ops", steps),
                    "step, p99": ("s", quantile(0.99, names.TASK_STEP_DURATION, FUNCTION)),
                },
                FUNCTION,
                description="Busy: the share of one CPU core's time in which it held its loop.",
            ),
        ),
    )
    row(
        "How many",
        tasks,
        (
            graph(
                "Alive, by state",
                "short",
                (total(names.TASK_COUNT, (STATE,)), legend((STATE,))),
                stacked=True,
                span=THIRD,
            ),
            graph("Created", "ops", (f"topk(10, {created})", legend(FUNCTION)), span=THIRD),
            graph(
                "Alive, by function",
                "short",
                (
                    f"topk(10, {alive(FUNCTION)})",
                    legend(FUNCTION),
                ),
                span=THIRD,
                description="One that only grows is a leak.",
            ),
        ),
    )
    row(
        "How long",
        tasks,
        (
            heat("Duration", rate(names.TASK_DURATION)),
            heat("Steps", rate(names.TASK_STEP_DURATION), description="One run between two awaits."),
            graph("Busiest", "percentunit", (f"topk(10, {busy})", legend(FUNCTION)), stacked=True),
            graph(
                "Longest steps, p99",
                "s",
                (f"topk(10, {quantile(0.99, names.TASK_STEP_DURATION, FUNCTION)})", legend(FUNCTION)),
                description="The event loop serves nobody else during a step.",
            ),
            graph(
                "Wait to start",
                "short",
                (f"topk(10, {seconds(names.TASK_START_DELAY, FUNCTION)})", legend(FUNCTION)),
                description="Seconds in each second: how many tasks have not begun yet.",
            ),
            graph(
                "Oldest task",
                "s",
                (
                    f"max by ({', '.join((*LOOP, *FUNCTION))}) ({series(names.TASK_AGE_MAX)})",
                    legend(FUNCTION),
                ),
            ),
        ),
    )
    row(
        "How they end",
        tasks,
        (
            graph(
                "Outcomes", "ops", (rate(names.TASK_COMPLETED, (OUTCOME,)), legend((OUTCOME,))), span=THIRD
            ),
            graph(
                "Failed",
                "ops",
                (
                    f"topk(10, {errors})",
                    legend((*FUNCTION, ERROR)),
                ),
                span=THIRD,
            ),
            graph("Timeouts", "ops", (rate(names.TIMEOUTS_EXPIRED, FUNCTION), legend(FUNCTION)), span=THIRD),
            graph(
                "What Python gave up on",
                "ops",
                (rate(names.FAILURES, (KIND, ERROR)), legend((KIND, ERROR))),
                span=HALF,
            ),
            graph(
                "Made before we were there",
                "short",
                (total(names.TASKS_UNTRACKED, ("instance",)), "{{instance}}"),
                span=HALF,
            ),
        ),
    )
    row(
        "Functions that are timed",
        tasks,
        (
            graph(
                "Calls",
                "ops",
                (per_second(names.FUNCTION_DURATION, (*FUNCTION, CALL)), legend((*FUNCTION, CALL))),
                description="Of functions that are decorated with otel_concurrency.timed.",
            ),
            graph(
                "Calls, p99",
                "s",
                (quantile(0.99, names.FUNCTION_DURATION, FUNCTION), legend(FUNCTION)),
            ),
        ),
    )
    return tasks
