"""*Pools and locks*: who waits for connections, locks and queues, and for how long."""

from __future__ import annotations

from _prometheus_names import prometheus_label
from grafana_foundation_sdk.builders.dashboard import Dashboard

from _dashboards.panels import THIRD, frame, graph, heat, row, rows
from _dashboards.promql import POOL, SERVER, SYNC, legend, matches, quantile, rate, seconds, total
from otel_concurrency.signals import names

THREAD_SYNC = (prometheus_label(names.THREAD_SYNC_TYPE),)
QUEUE = (prometheus_label(names.QUEUE_NAME),)
HTTP_STATE = prometheus_label(names.HTTP_CONNECTION_STATE)
LIMITER = (prometheus_label(names.LIMITER_NAME),)
SESSION = (prometheus_label(names.HTTP_POOL_NAME),)


def board() -> Dashboard:
    """Return the dashboard."""
    waits = frame(
        "otel-concurrency-waits",
        "Pools and locks",
        "Who waits for connections of databases and HTTP clients, for locks and queues, and how long.",
    )
    used = matches(names.CONNECTION_STATE, "used")
    row(
        "Databases",
        waits,
        (
            rows(
                "By pool",
                {
                    "used": ("short", total(names.CONNECTION_COUNT, POOL, used)),
                    "limit": ("short", total(names.CONNECTION_MAX, POOL)),
                    "waiting": ("short", total(names.CONNECTION_PENDING, POOL)),
                    "wait, p95": ("s", quantile(0.95, names.CONNECTION_WAIT_TIME, POOL)),
                    "use, p95": ("s", quantile(0.95, names.CONNECTION_USE_TIME, POOL)),
                    "timeouts": ("ops", rate(names.CONNECTION_TIMEOUTS, POOL)),
                },
                POOL,
                description="Used for much longer than a query takes: held while something else goes on.",
            ),
            graph(
                "Connections",
                "short",
                (total(names.CONNECTION_COUNT, POOL, used), f"used {legend(POOL)}"),
                (
                    total(names.CONNECTION_COUNT, POOL, matches(names.CONNECTION_STATE, "idle")),
                    f"idle {legend(POOL)}",
                ),
                (total(names.CONNECTION_MAX, POOL), f"limit {legend(POOL)}"),
                (total(names.CONNECTION_IDLE_MIN, POOL), f"idle at least {legend(POOL)}"),
                (total(names.CONNECTION_IDLE_MAX, POOL), f"idle at most {legend(POOL)}"),
            ),
            graph("Waiting for one", "short", (total(names.CONNECTION_PENDING, POOL), legend(POOL))),
            heat("Wait for a connection", rate(names.CONNECTION_WAIT_TIME)),
            heat("Use of a connection", rate(names.CONNECTION_USE_TIME)),
            graph(
                "Opening one, p95", "s", (quantile(0.95, names.CONNECTION_CREATE_TIME, POOL), legend(POOL))
            ),
            graph("Waited in vain", "ops", (rate(names.CONNECTION_TIMEOUTS, POOL), legend(POOL))),
        ),
    )
    row(
        "HTTP clients",
        waits,
        (
            graph(
                "Connections",
                "short",
                (total(names.HTTP_OPEN_CONNECTIONS, (*SERVER, HTTP_STATE)), legend((*SERVER, HTTP_STATE))),
                (total(names.HTTP_CONNECTION_LIMIT, SESSION), f"limit {legend(SESSION)}"),
                (
                    total(names.HTTP_CONNECTION_LIMIT_PER_HOST, SESSION),
                    f"limit for one server {legend(SESSION)}",
                ),
                (total(names.HTTP_CONNECTION_IDLE_LIMIT, SESSION), f"idle at most {legend(SESSION)}"),
                span=THIRD,
            ),
            graph(
                "Requests that wait",
                "short",
                (total(names.HTTP_PENDING_REQUESTS, SERVER), legend(SERVER)),
                span=THIRD,
            ),
            graph(
                "Wait, p95",
                "s",
                (quantile(0.95, names.HTTP_CONNECTION_WAIT_TIME, SERVER), legend(SERVER)),
                (rate(names.HTTP_CONNECTION_TIMEOUTS, SERVER), f"in vain, each second, {legend(SERVER)}"),
                span=THIRD,
            ),
        ),
    )
    row(
        "Locks and queues",
        waits,
        (
            rows(
                "By kind",
                {
                    "waiting": ("short", total(names.SYNC_WAITING, SYNC)),
                    "had to wait": ("ops", rate(names.SYNC_CONTENTIONS, SYNC)),
                    "waiting on average": ("short", rate(names.SYNC_WAIT_TIME, SYNC)),
                    "wait, p95": ("s", quantile(0.95, names.SYNC_WAIT_DURATION, SYNC)),
                    "hold, p95": ("s", quantile(0.95, names.SYNC_HOLD_DURATION, SYNC)),
                },
                SYNC,
                description="Names and hold times: OTEL_PYTHON_CONCURRENCY_SYNC_WAITS=names. One for which "
                "somebody always waits limits the service.",
            ),
            heat("Wait", rate(names.SYNC_WAIT_DURATION)),
            graph(
                "Threads that wait",
                "short",
                (total(names.THREAD_SYNC_WAITING, THREAD_SYNC), legend(THREAD_SYNC)),
                stacked=True,
            ),
            graph(
                "Waiting",
                "short",
                (seconds(names.SYNC_WAIT_DURATION, SYNC), legend(SYNC)),
                stacked=True,
            ),
            graph(
                "Queues",
                "short",
                (total(names.QUEUE_SIZE, QUEUE), legend(QUEUE)),
                (total(names.QUEUE_LIMIT, QUEUE), f"limit {legend(QUEUE)}"),
                description="One that only grows: those who take are slower than those who put.",
            ),
        ),
    )
    row(
        "Limiters",
        waits,
        (
            graph(
                "Calls under way",
                "short",
                (total(names.LIMIT_IN_USE, LIMITER), legend(LIMITER)),
                (total(names.LIMIT_RECOMMENDED, LIMITER), f"limit {legend(LIMITER)}"),
                (total(names.LIMIT_WAITING, LIMITER), f"waiting {legend(LIMITER)}"),
                description="Of otel_concurrency.AdaptiveLimiter: how many it lets through, by itself.",
            ),
            graph("Calls, refused", "ops", (rate(names.LIMIT_REJECTED, LIMITER), legend(LIMITER))),
        ),
    )
    return waits
