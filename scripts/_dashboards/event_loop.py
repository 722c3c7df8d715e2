"""*Event loop*: what each loop does with its time, what holds it, and who waits meanwhile."""

from __future__ import annotations

from _prometheus_names import prometheus_label
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.builders.timeseries import Panel

from _dashboards.panels import HALF, THIRD, WIDE, frame, graph, heat, log_lines, row
from _dashboards.promql import LOOP, gil_wait, legend, matches, quantile, rate, seconds, total
from otel_concurrency.signals import names

CAUSE = prometheus_label(names.STALL_CAUSE)
FUNCTION = prometheus_label(names.CODE_FUNCTION_NAME)
KIND = prometheus_label(names.ITERATION_KIND)
CONTEXT = prometheus_label(names.LOOP_EXCEPTION_CONTEXT)


def time_of_loops(span: int = WIDE) -> Panel:
    """Return what all chosen loops did with their time, one share on the other."""
    whole = rate(names.LOOP_TIME)
    active = rate(names.LOOP_TIME, where=matches(names.LOOP_STATE, "active"))
    parts = (names.LOOP_CPU_TIME, names.LOOP_RUNQUEUE_TIME, names.LOOP_BLOCKED_TIME)
    known = " + ".join(f"({rate(part)} or vector(0))" for part in parts)
    return graph(
        "What the loops do with their time",
        "percentunit",
        (f"{rate(names.LOOP_CPU_TIME)} / {whole}", "on a CPU"),
        (f"{rate(names.LOOP_RUNQUEUE_TIME)} / {whole}", "waiting for a CPU"),
        (f"{rate(names.LOOP_BLOCKED_TIME)} / {whole}", "blocked inside a callback"),
        (f"clamp_min({active} - ({known}), 0) / {whole}", "active, not told apart"),
        (f"{rate(names.LOOP_TIME, where=matches(names.LOOP_STATE, 'idle'))} / {whole}", "idle"),
        span=span,
        stacked=True,
        top=1,
        description="Red marks are stalls. Blocked: a callback waits, for the GIL, a lock or the kernel; "
        "nobody is served meanwhile.",
    )


def board() -> Dashboard:
    """Return the dashboard."""
    loops = frame(
        "otel-concurrency-loop",
        "Event loop",
        "What each event loop does with its time, what holds it, and who waits for it meanwhile.",
    )
    row("Time", loops, (time_of_loops(),))
    row(
        "Stalls",
        loops,
        (
            graph(
                "Held, by cause",
                "percentunit",
                (seconds(names.EVENTLOOP_STALL_DURATION, (CAUSE,)), legend((CAUSE,))),
                stacked=True,
            ),
            graph(
                "Stalls, by culprit",
                "ops",
                (f"topk(10, {rate(names.EVENTLOOP_STALLS, (FUNCTION,))})", legend((FUNCTION,))),
            ),
            log_lines("Incidents", '{service_name=~"$job"} |~ `stall`'),
        ),
    )
    row(
        "Waiting for a turn",
        loops,
        (
            heat("Delay of callbacks", rate(names.LOOP_DELAY)),
            heat("Iterations", rate(names.LOOP_ITERATION_DURATION)),
            graph(
                "Delay",
                "s",
                (quantile(0.5, names.LOOP_DELAY, LOOP), f"p50 {legend(LOOP)}"),
                (quantile(0.99, names.LOOP_DELAY, LOOP), f"p99 {legend(LOOP)}"),
            ),
            graph(
                "Ready callbacks and timers",
                "short",
                (total(names.LOOP_QUEUE_SIZE, LOOP), f"ready {legend(LOOP)}"),
                (total(names.LOOP_TIMER_COUNT, LOOP), f"timers {legend(LOOP)}"),
                description="uvloop keeps these to itself.",
            ),
        ),
    )
    row(
        "Iterations",
        loops,
        (
            graph(
                "Iterations, by kind",
                "ops",
                (rate(names.LOOP_ITERATIONS, (KIND,)), legend((KIND,))),
                span=THIRD,
            ),
            graph("Events", "ops", (rate(names.LOOP_IO_EVENTS, LOOP), legend(LOOP)), span=THIRD),
            graph(
                "Reports to the exception handler",
                "ops",
                (rate(names.LOOP_EXCEPTIONS, (CONTEXT,)), legend((CONTEXT,))),
                span=THIRD,
            ),
        ),
    )
    row(
        "The GIL and the garbage collector",
        loops,
        (
            graph(
                "Mean wait for the GIL",
                "s",
                (gil_wait(), "{{instance}}"),
                span=THIRD,
            ),
            graph(
                "Longest wait for the GIL",
                "s",
                (total(names.GIL_WAIT_MAX, ("instance",)), "{{instance}}"),
                span=THIRD,
            ),
            graph(
                "Pauses of the garbage collector, p99",
                "s",
                (
                    quantile(0.99, names.GC_PAUSE_DURATION, (prometheus_label(names.GC_GENERATION),)),
                    f"generation {legend((prometheus_label(names.GC_GENERATION),))}",
                ),
                span=THIRD,
            ),
        ),
    )
    row(
        "Process $instance",
        loops,
        (time_of_loops(HALF), heat("Delay of callbacks", rate(names.LOOP_DELAY))),
        repeat="instance",
    )
    return loops
