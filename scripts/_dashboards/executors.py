"""*Executors and processes*: pools of threads and processes, what waits for them, and the processes."""

from __future__ import annotations

from _prometheus_names import prometheus_label
from grafana_foundation_sdk.builders.dashboard import Dashboard

from _dashboards.panels import THIRD, frame, graph, heat, row, rows
from _dashboards.promql import EXECUTOR, legend, matches, quantile, rate, total
from otel_concurrency.signals import names

WHO = ("instance",)
FUNCTION = prometheus_label(names.CODE_FUNCTION_NAME)
OUTCOME = prometheus_label(names.EXECUTOR_TASK_OUTCOME)
CELERY = (prometheus_label(names.CELERY_TASK_NAME),)
DESTINATION = (prometheus_label(names.MESSAGING_DESTINATION),)
REASON = prometheus_label(names.CRASH_REASON)
THREAD = prometheus_label(names.THREAD_NAME)
THREAD_STATE = prometheus_label(names.THREAD_STATE)
MODE = prometheus_label(names.CPU_MODE)
SWITCH = prometheus_label(names.CONTEXT_SWITCH_TYPE)
FAULT = prometheus_label(names.PAGING_FAULT_TYPE)
DIRECTION = prometheus_label(names.DISK_IO_DIRECTION)


def board() -> Dashboard:
    """Return the dashboard."""
    pools = frame(
        "otel-concurrency-executors",
        "Executors and processes",
        "Thread and process pools and what waits for them; processes, threads, memory and CPU time.",
    )
    active = matches(names.WORKER_STATE, "active")
    row(
        "Pools",
        pools,
        (
            rows(
                "By pool",
                {
                    "active": ("short", total(names.WORKER_COUNT, EXECUTOR, active)),
                    "limit": ("short", total(names.WORKER_LIMIT, EXECUTOR)),
                    "queue": ("short", total(names.EXECUTOR_QUEUE_SIZE, EXECUTOR)),
                    "submitted": ("ops", rate(names.WORK_SUBMITTED, EXECUTOR)),
                    "wait, p95": ("s", quantile(0.95, names.WORK_QUEUE_DURATION, EXECUTOR)),
                    "run, p50": ("s", quantile(0.5, names.WORK_DURATION, EXECUTOR)),
                    "run, p95": ("s", quantile(0.95, names.WORK_DURATION, EXECUTOR)),
                    "transfer, p95": ("s", quantile(0.95, names.WORK_TRANSFER_DURATION, EXECUTOR)),
                },
                EXECUTOR,
                description="A wait as long as a run: the pool is too small, or has too much to do.",
            ),
        ),
    )
    row(
        "Workers and queues",
        pools,
        (
            graph(
                "Workers",
                "short",
                (total(names.WORKER_COUNT, EXECUTOR, active), f"active {legend(EXECUTOR)}"),
                (total(names.WORKER_LIMIT, EXECUTOR), f"limit {legend(EXECUTOR)}"),
            ),
            graph("Queue", "short", (total(names.EXECUTOR_QUEUE_SIZE, EXECUTOR), legend(EXECUTOR))),
            heat("Wait for a worker", rate(names.WORK_QUEUE_DURATION)),
            graph(
                "Longest runs, p95",
                "s",
                (
                    f"topk(10, {quantile(0.95, names.WORK_DURATION, (*EXECUTOR, FUNCTION))})",
                    legend((*EXECUTOR, FUNCTION)),
                ),
            ),
            graph(
                "Transfer to another process and back, p95",
                "s",
                (quantile(0.95, names.WORK_TRANSFER_DURATION, EXECUTOR), legend(EXECUTOR)),
                description="Longer than the work itself: send more of it at once (chunksize).",
            ),
            graph(
                "Outcomes",
                "ops",
                (rate(names.WORK_COMPLETED, (*EXECUTOR, OUTCOME)), legend((*EXECUTOR, OUTCOME))),
            ),
            graph(
                "Lost",
                "ops",
                (rate(names.WORK_REJECTED, EXECUTOR), f"rejected {legend(EXECUTOR)}"),
                (rate(names.WORK_ABANDONED, EXECUTOR), f"abandoned {legend(EXECUTOR)}"),
                (rate(names.WORK_UNRETRIEVED, EXECUTOR), f"failed, nobody looked {legend(EXECUTOR)}"),
            ),
            graph(
                "Workers lost",
                "ops",
                (rate(names.WORKER_CRASHES, (*EXECUTOR, REASON)), legend((*EXECUTOR, REASON))),
            ),
        ),
    )
    row(
        "Celery",
        pools,
        (
            rows(
                "By task",
                {
                    "completed": ("ops", rate(names.CELERY_COMPLETED, CELERY)),
                    "failed": ("ops", rate(names.CELERY_COMPLETED, CELERY, 'error_type!=""')),
                    "in the queue, p95": ("s", quantile(0.95, names.CELERY_QUEUE_DURATION, CELERY)),
                    "prefetched, p95": ("s", quantile(0.95, names.CELERY_PREFETCH_DURATION, CELERY)),
                    "run, p50": ("s", quantile(0.5, names.CELERY_DURATION, CELERY)),
                    "run, p95": ("s", quantile(0.95, names.CELERY_DURATION, CELERY)),
                },
                CELERY,
                description="Prefetched: a worker has it and is busy with another; "
                "worker_prefetch_multiplier says how many.",
            ),
            graph(
                "Time in the queue, p95",
                "s",
                (quantile(0.95, names.CELERY_QUEUE_DURATION, DESTINATION), legend(DESTINATION)),
            ),
            graph(
                "More than once",
                "ops",
                (rate(names.CELERY_RETRIES, CELERY), f"retried {legend(CELERY)}"),
                (rate(names.CELERY_REDELIVERED, CELERY), f"redelivered {legend(CELERY)}"),
                (rate(names.CELERY_DUPLICATES, CELERY), f"run twice {legend(CELERY)}"),
            ),
        ),
    )
    row(
        "Threads",
        pools,
        (
            graph(
                "Threads, by state",
                "short",
                (total(names.THREAD_COUNT, (THREAD_STATE,)), legend((THREAD_STATE,))),
                stacked=True,
            ),
            graph(
                "CPU time, by thread",
                "percentunit",
                (f"topk(10, {rate(names.THREAD_CPU_TIME, (THREAD,))})", legend((THREAD,))),
                stacked=True,
            ),
        ),
    )
    row(
        "Processes",
        pools,
        (
            graph(
                "CPU time",
                "percentunit",
                (rate(names.PROCESS_CPU_TIME, (*WHO, MODE)), legend((*WHO, MODE))),
                span=THIRD,
            ),
            graph(
                "CPU, of those available",
                "percentunit",
                (total(names.PROCESS_CPU_UTILIZATION, WHO), "{{instance}}"),
                span=THIRD,
            ),
            graph(
                "Throttled", "percentunit", (rate(names.CPU_THROTTLED_TIME, WHO), "{{instance}}"), span=THIRD
            ),
            graph("Memory", "bytes", (total(names.PROCESS_MEMORY_USAGE, WHO), "{{instance}}"), span=THIRD),
            graph(
                "Address space",
                "bytes",
                (total(names.PROCESS_MEMORY_VIRTUAL, WHO), "{{instance}}"),
                span=THIRD,
            ),
            graph(
                "Page faults",
                "ops",
                (rate(names.PROCESS_PAGING_FAULTS, (FAULT,)), legend((FAULT,))),
                span=THIRD,
            ),
            graph(
                "Threads and children",
                "short",
                (total(names.PROCESS_THREAD_COUNT, WHO), "threads {{instance}}"),
                (total(names.PROCESS_CHILD_COUNT, WHO), "children {{instance}}"),
                span=THIRD,
            ),
            graph(
                "Open files",
                "short",
                (total(names.PROCESS_FILE_DESCRIPTOR_COUNT, WHO), "{{instance}}"),
                span=THIRD,
            ),
            graph(
                "Context switches",
                "ops",
                (rate(names.PROCESS_CONTEXT_SWITCHES, (SWITCH,)), legend((SWITCH,))),
                span=THIRD,
            ),
            graph(
                "Storage",
                "Bps",
                (rate(names.PROCESS_DISK_IO, (DIRECTION,)), legend((DIRECTION,))),
                span=THIRD,
            ),
            graph("Forks", "ops", (rate(names.PROCESS_FORKS, WHO), "{{instance}}"), span=THIRD),
            graph("Up since", "s", (total(names.PROCESS_UPTIME, WHO), "{{instance}}"), span=THIRD),
        ),
    )
    return pools
