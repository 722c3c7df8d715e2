"""*Telemetry health*: what we cost, and whether all that was recorded arrives."""

from __future__ import annotations

from _prometheus_names import prometheus_label
from grafana_foundation_sdk.builders.dashboard import Dashboard

from _dashboards.panels import THIRD, frame, graph, row, tile
from _dashboards.promql import EVERY, legend, quantile, rate, total
from otel_concurrency.signals import names

COMPONENT = (prometheus_label(names.COMPONENT),)
OUTCOME = (prometheus_label(names.LOG_OUTCOME),)
FAILED = 'error_type!=""'
WELL = 'error_type=""'
SIGNALS = {
    "traces": ("span", "spans"),
    "metrics": ("metric_data_point", "metric_points"),
    "logs": ("log", "log_records"),
}
"""A signal: what the SDK's metrics call it, and what the collector's do."""

EXPORTS = "otel_sdk_exporter_operation_duration_seconds"
EXPORTER = ("otel_component_type",)
SAMPLING = "otelcol_processor_tail_sampling"
QUEUE_FILLED = (
    "max by (job, exporter, data_type) (otelcol_exporter_queue_size)"
    " / max by (job, exporter, data_type) (otelcol_exporter_queue_capacity)"
)
DROPPED = "instance:telemetry_dropped:increase5m"


def board() -> Dashboard:
    """Return the dashboard."""
    health = frame(
        "otel-concurrency-telemetry",
        "Telemetry health",
        "What telemetry costs, and whether all that was recorded arrives: in the service and the collector.",
    )
    row(
        "All of it",
        health,
        (
            tile("Dropped in 5 minutes", "short", f"sum({DROPPED}) or vector(0)", bad_from=1),
            tile("Our own time", "percentunit", rate(names.OVERHEAD_TIME)),
            tile(
                "Collector took",
                "ops",
                f"sum({collector('receiver_accepted', 'spans')})",
                description="Spans.",
            ),
            tile(
                "Collector sent", "ops", f"sum({collector('exporter_sent', 'spans')})", description="Spans."
            ),
            tile(
                "Fullest queue",
                "percentunit",
                "max(otelcol_exporter_queue_size / otelcol_exporter_queue_capacity)",
                bad_from=0.5,
            ),
            tile(
                "Log lines lost",
                "ops",
                rate(names.LOG_RECORDS, where=f'{OUTCOME[0]}="dropped"'),
                bad_from=0.01,
            ),
        ),
    )
    row(
        "In the service: its SDK (OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=true)",
        health,
        (
            *(
                graph(
                    f"{signal.capitalize()}, exported",
                    "ops",
                    (rate(f"otel_sdk_exporter_{word}_exported_total", where=WELL), "well"),
                    (
                        rate(f"otel_sdk_exporter_{word}_exported_total", ("error_type",), FAILED),
                        "{{error_type}}",
                    ),
                    span=THIRD,
                )
                for signal, (word, _) in SIGNALS.items()
            ),
            graph(
                "Dropped",
                "ops",
                (
                    rate("otel_sdk_processor_span_processed_total", ("error_type",), FAILED),
                    "spans {{error_type}}",
                ),
                (
                    rate("otel_sdk_processor_log_processed_total", ("error_type",), FAILED),
                    "records {{error_type}}",
                ),
                span=THIRD,
            ),
            graph(
                "Queues",
                "short",
                (total("otel_sdk_processor_span_queue_size", ("instance",)), "spans {{instance}}"),
                (total("otel_sdk_processor_log_queue_size", ("instance",)), "records {{instance}}"),
                span=THIRD,
            ),
            graph(
                "An export takes",
                "s",
                (
                    f"{rate(f'{EXPORTS}_sum', EXPORTER)} / {rate(f'{EXPORTS}_count', EXPORTER)}",
                    legend(EXPORTER),
                ),
                span=THIRD,
                description="On average: the SDK's own bounds, of milliseconds, tell nothing of seconds.",
            ),
        ),
    )
    row(
        "In the service: ours",
        health,
        (
            graph(
                "Our own time",
                "percentunit",
                (rate(names.OVERHEAD_TIME, COMPONENT), legend(COMPONENT)),
                span=THIRD,
            ),
            graph("Lines of JSON", "ops", (rate(names.LOG_RECORDS, OUTCOME), legend(OUTCOME)), span=THIRD),
            graph(
                "The end takes, p99",
                "s",
                (
                    quantile(0.99, names.SHUTDOWN_DURATION, ("process_shutdown_reason",)),
                    "{{process_shutdown_reason}}",
                ),
                span=THIRD,
            ),
            graph(
                "Main thread alive",
                "short",
                (f"min by (instance) ({total(names.MAIN_THREAD_ALIVE, ('instance',))})", "{{instance}}"),
                span=THIRD,
            ),
            graph("GIL", "short", (total(names.GIL_ENABLED, ("instance",)), "on {{instance}}"), span=THIRD),
            graph(
                "What Python gave up on",
                "ops",
                (rate(names.FAILURES, (prometheus_label(names.FAILURE_KIND),)), "{{python_failure_kind}}"),
                span=THIRD,
            ),
        ),
    )
    row(
        "In the collector",
        health,
        (
            *(
                graph(
                    f"{signal.capitalize()} in and out",
                    "ops",
                    (f"sum by (job) ({collector('receiver_accepted', word)})", "{{job}} took"),
                    (f"sum by (job) ({collector('receiver_refused', word)})", "{{job}} refused"),
                    (
                        f"sum by (job, exporter) ({collector('exporter_sent', word)})",
                        "{{job}} sent, {{exporter}}",
                    ),
                    (
                        f"sum by (job, exporter) ({collector('exporter_send_failed', word)})",
                        "{{job}} lost, {{exporter}}",
                    ),
                    (
                        f"sum by (job, exporter) ({collector('exporter_enqueue_failed', word)})",
                        "{{job}} queue full, {{exporter}}",
                    ),
                    span=THIRD,
                )
                for signal, (_, word) in SIGNALS.items()
            ),
            graph(
                "Queues on disk",
                "percentunit",
                (
                    QUEUE_FILLED,
                    "{{job}} {{exporter}} {{data_type}}",
                ),
                top=1,
                span=THIRD,
            ),
            graph(
                "Traces, kept or not",
                "ops",
                (
                    f"sum by (sampled) (rate({SAMPLING}_global_count_traces_sampled_total{EVERY}))",
                    "kept: {{sampled}}",
                ),
                span=THIRD,
            ),
            graph(
                "Why traces are kept",
                "ops",
                (
                    f'sum by (policy) (rate({SAMPLING}_count_traces_sampled_total{{sampled="true"}}{EVERY}))',
                    "{{policy}}",
                ),
                span=THIRD,
            ),
        ),
    )
    return health


def collector(what: str, of: str) -> str:
    """Return the rate of one of the collector's counters; it knows nothing of `$job`."""
    return f"rate(otelcol_{what}_{of}_total{EVERY})"
