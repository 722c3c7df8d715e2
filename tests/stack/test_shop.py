"""The main job, end to end: a real service under `opentelemetry-instrument`, seen in the real backend."""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from otel_concurrency.signals import names
from tests.stack.backend import Backend, Span, eventually
from tests.stack.dashboards import expressions, filled_in, log_queries, rules, source
from tests.stack.places import TREE
from tests.stack.shop import REQUESTS, ShopRun, run_shop

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]  # a run of the shop, on a busy machine

NOT_ON_UVLOOP = ("asyncio_eventloop_callback_queue_size", "asyncio_eventloop_timer_count")

NOBODY_WAITS = (
    "http_client_connection_limit_per_host",  # there is none
    "http_client_connection_idle_limit",
    "http_client_connection_wait_time",
    "http_client_connection_timeouts",
    "python_thread_sync_waiting",
)

NOT_IN_THE_SHOP = (
    "process_windows_",
    "python_executor_",
    *NOT_ON_UVLOOP,
    *NOBODY_WAITS,
    "asyncio_eventloop_stall",  # nobody watches
    "asyncio_queue_limit",  # no queue has one
    "asyncio_sync_hold_duration",  # only with names
    "asyncio_timeout_expired",  # nothing takes so long
    "concurrency_diagnosis_",  # nothing is wrong for long enough
    "concurrency_limit_",
    "python_function_duration",  # nothing is timed
    "celery_",
    "db_client_",
    "cpython_gil_probes",
    "cpython_gil_wait",
    "otel_concurrency_log_records",  # no lines of JSON are written
    "python_process_cpu_throttled",  # where a cgroup limits the CPU
)

EMPTY_WHERE_ALL_IS_WELL = (
    "traces_span_metrics_",  # there is no gateway
    "otelcol_processor_tail_sampling_",
    "db_client_",  # and no database,
    "celery_",  # no Celery,
    "python_executor_",  # no pool
    *NOT_ON_UVLOOP,
    "asyncio_eventloop_stall",
    "asyncio_timeout_expired",
    "asyncio_queue_",
    *NOBODY_WAITS,
    "asyncio_sync_hold_duration",  # only with names
    "concurrency_diagnosis_",  # nothing is wrong for long enough
    "concurrency_limit_",  # no limiter,
    "python_function_duration",  # and nothing is timed
    "otelcol_exporter_send_failed_",
    "otelcol_exporter_enqueue_failed_",
    "otelcol_receiver_refused_",
    "otel_concurrency_log_records",
    "process_shutdown_duration",  # told once, at the end
    'error_type!=""',
    'asyncio_task_outcome="cancelled"',
)
"""What queries ask for that have no answer."""


@pytest.fixture(scope="module")
def shop(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> ShopRun:
    """One run of the shop with both services, ended; every test here reads what it left behind."""
    logs: Path = tmp_path_factory.mktemp("shop")
    return run_shop(backend, logs)


def test_every_answer_is_the_one_that_the_traffic_expects(shop: ShopRun) -> None:
    """The counts below follow from the answers, so first the answers."""
    assert shop.traffic["requests"] == REQUESTS
    assert shop.traffic["answers"] == {
        "catalog": {"200": 12},
        "checkout": {"200": 30},
        "guest_checkout": {"200": 6},
        "slow_checkout": {"200": 6},
        "sold_out_checkout": {"409": 6},
    }


def test_prometheus_counts_every_task_of_the_named_coroutines(shop: ShopRun) -> None:
    """Not one more, not one less, and each failure under its coroutine."""
    ended = shop.ended
    assert {name: ended.created[name] for name in shop.created()} == shop.created()
    named = {key: count for key, count in ended.completed.items() if key[0] in shop.created()}
    assert named == shop.completed()


def test_while_the_services_run_created_is_completed_plus_live(shop: ShopRun) -> None:
    """What was created and is not done, coroutine by coroutine, is what asyncio itself says is alive."""
    live = Counter(shop.running.created)
    for (function, _), count in shop.running.completed.items():
        live[function] -= count
    assert {function: count for function, count in live.items() if count} == {
        "shop: storefront.refresh_prices": 1,
        "shop: uvicorn.lifespan.on.LifespanOn.main": 1,
        "shop: uvicorn.server.Server.serve": 1,
        "warehouse: uvicorn.lifespan.on.LifespanOn.main": 1,
        "warehouse: uvicorn.server.Server.serve": 1,
    }
    assert shop.running.live == {"shop": 3, "warehouse": 2}


def test_when_the_services_have_ended_every_task_is_done(shop: ShopRun) -> None:
    """The export at exit carries the last numbers: what was live is now finished or cancelled.

    But for the task in which uvicorn, when it has served what it had, ends by the signal that it was sent.
    """
    done: Counter[str] = Counter()
    for (function, _), count in shop.ended.completed.items():
        done[function] += count
    assert Counter(shop.ended.created) - done == {
        "shop: uvicorn.server.Server.serve": 1,
        "warehouse: uvicorn.server.Server.serve": 1,
    }
    assert shop.ended.completed["shop: storefront.refresh_prices", "cancelled"] == 1
    assert shop.status == {"shop": -signal.SIGTERM, "warehouse": -signal.SIGTERM}


def test_jaeger_has_one_server_span_for_each_request_and_one_client_span_for_each_call(
    shop: ShopRun, backend: Backend
) -> None:
    """Two server spans of one request would count it twice; a call without its server is a broken trace."""
    reserved = shop.traffic["tasks"]["storefront.reserve_item"]["created"]
    asked = shop.traffic["tasks"]["storefront.fetch_stock"]["created"]
    expected = {
        ("shop", "server"): REQUESTS,
        ("shop", "client"): reserved + asked,
        ("warehouse", "server"): reserved + asked,
    }

    def kinds() -> dict[tuple[str, str], int]:
        spans = [span for trace in backend.traces("shop") for span in trace if span.kind != "internal"]
        return dict(Counter((span.service, span.kind) for span in spans))

    assert eventually("all spans in Jaeger", kinds, lambda counts: counts == expected) == expected


def test_a_checkout_is_one_trace_through_both_services(shop: ShopRun, backend: Backend) -> None:
    """A server span, a client span for each item, the warehouse's server span under each, inner spans."""
    trace = _checkouts(backend)[0]
    by_id = {span.span_id: span for span in trace}
    assert [span.parent_id for span in trace if (span.service, span.kind) == ("shop", "server")] == [""]

    calls = [span for span in trace if span.kind == "client"]
    assert [span.service for span in calls] == ["shop"] * 3
    served = [span for span in trace if (span.service, span.kind) == ("warehouse", "server")]
    assert {span.name for span in served} == {"POST /reserve/{item}"}
    assert sorted(span.parent_id for span in served) == sorted(span.span_id for span in calls)

    inner = {span.service: by_id[span.parent_id].service for span in trace if span.kind == "internal"}
    assert inner == {"shop": "shop", "warehouse": "warehouse"}


def test_an_exemplar_leads_to_its_trace_and_to_its_log_lines(shop: ShopRun, backend: Backend) -> None:
    """From a number in Prometheus to the request in Jaeger that made it and the line that it logged."""
    selector = 'asyncio_task_duration_seconds{job="shop",code_function_name="storefront.charge"}'
    exemplars = backend.exemplars(selector)
    assert exemplars
    exemplar = max(exemplars, key=lambda one: one.value)
    assert exemplar.value >= 0.012  # what `charge` sleeps at least

    trace = backend.trace(exemplar.trace_id)
    assert ("shop", "POST /checkout", "server") in [(span.service, span.name, span.kind) for span in trace]
    assert exemplar.span_id in {span.span_id for span in trace}

    charged = eventually(
        "its line in Loki",
        lambda: [
            record
            for record in backend.records(exemplar.trace_id)
            if record.body.startswith("charged customer ")
        ],
    )
    assert [record.span_id for record in charged] == [exemplar.span_id]


def test_every_log_line_of_the_shop_is_in_a_trace_that_jaeger_has(shop: ShopRun, backend: Backend) -> None:
    """Each finished checkout logs its charge once, under its own trace id."""
    checkouts = {trace[0].trace_id for trace in _checkouts(backend)}
    charged = shop.traffic["tasks"]["storefront.charge"]["created"]
    charges = eventually(
        "every charge in Loki",
        lambda: backend.lines('{service_name="shop"} |= "charged customer "'),
        lambda found: len(found) >= charged,
    )
    assert len(charges) == charged
    assert {record.trace_id for record in charges} <= checkouts
    assert len({record.trace_id for record in charges}) == charged


def test_the_services_print_nothing_but_their_own_lines(shop: ShopRun) -> None:
    """A healthy run with telemetry looks like one without."""
    lines = [line for output in shop.output.values() for line in output.splitlines()]
    assert [line for line in lines if "Warning: " in line] == []
    logged = [match for line in lines if (match := re.match(r"\S+ \S+ [A-Z]+ ([\w.]+): ", line))]
    # asyncio's: the guests' `award_points`, which nobody awaits.
    assert {match[1] for match in logged} == {"shop.storefront", "shop.warehouse", "asyncio"}


def test_the_names_in_the_docs_are_those_in_prometheus(shop: ShopRun, backend: Backend) -> None:
    """`docs/metrics.md` lists every metric of ours under the name that Prometheus gives it."""
    text = (TREE / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z -]+) \|.*\| `(\w+)` \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == [instrument.name for instrument in names.INSTRUMENTS]

    ours = "(asyncio|celery|concurrency|cpython|db_client|otel_concurrency|python|process)_.*"
    others = "http_client_(open|connection)_.*|http_server_active_requests"
    found = backend.series(f'{{__name__=~"{ours}|{others}",job="shop"}}')
    seen = {one.labels["__name__"] for one in found}
    assert seen - {name for _, _, name in rows} == set()
    missing = {name for _, _, name in rows} - seen
    assert sorted(name for name in missing if not name.startswith(NOT_IN_THE_SHOP)) == []
    native = {one.labels["__name__"] for one in found if one.value is None}
    assert native == {name for _, kind, name in rows if kind == "histogram"} & seen


def test_every_query_in_the_docs_returns_data(shop: ShopRun, backend: Backend) -> None:
    """Whoever copies one of them into Grafana sees something."""
    text = (TREE / "docs" / "stack.md").read_text(encoding="utf-8")
    block = next(block for block in text.split("```") if "histogram_quantile(" in block)
    queries = [query.strip() for query in re.split(r"^#.*$", block, flags=re.MULTILINE) if query.strip()]
    assert len(queries) == 3
    assert [query for query in queries if not backend.series(query)] == []


def test_every_query_of_the_dashboards_and_rules_is_answered(shop: ShopRun, backend: Backend) -> None:
    """With data, or it asks for something that a shop that is well does not have."""
    eventually(
        "two exports of the collector's own",
        lambda: backend.series("rate(otelcol_exporter_sent_spans_total[5m])"),
    )
    empty = [
        (where, expression)
        for where, expression in expressions()
        if not backend.series(filled_in(expression))
    ]
    alerts = {rule["alert"]: rule["expr"] for rule in rules("alerts")}
    firing = {
        alert
        for alert, expression in alerts.items()
        for one in backend.series(expression)
        if one.labels.get("job") in ("shop", "warehouse")
    }
    busy_machine = {"EventLoopStalled", "EventLoopStalledLong", "GilContention"}
    assert firing - busy_machine == {"FailuresUnretrieved"}  # the guests' `award_points`
    unexplained = [
        (where, expression)
        for where, expression in empty
        if where not in alerts and not any(reason in expression for reason in EMPTY_WHERE_ALL_IS_WELL)
    ]
    assert not unexplained, "\n".join(f"{where}: {expression}" for where, expression in unexplained)


def test_every_query_of_logs_on_a_dashboard_finds_lines(shop: ShopRun, backend: Backend) -> None:
    """The shop warns of what nobody awaits; that of stalls is asked where there is one, in test_stall.py."""
    queries = {where: filled_in(query) for where, query in log_queries()}
    found = {where: len(backend.lines(query)) for where, query in queries.items()}
    assert {where for where, lines in found.items() if lines == 0} <= {"event-loop: Incidents"}
    assert found["service-overview: Log"] > 0


def test_grafanas_links_lead_from_each_signal_to_the_others(shop: ShopRun, backend: Backend) -> None:
    """As it builds them from its data sources: each is followed to a real trace, or to real lines."""
    charged = eventually("a charge", lambda: backend.lines('{service_name="shop"} |= "charged customer "'))
    trace_id = charged[0].trace_id
    [checkout] = [span for span in backend.trace(trace_id) if not span.parent_id]

    to_logs = source("jaeger")["tracesToLogsV2"]
    of_span = {"service.name": checkout.service}
    tags = ", ".join(f'{tag["value"]}="{of_span[tag["key"]]}"' for tag in to_logs["tags"])
    query = to_logs["query"].replace("$${__tags}", tags).replace("$${__trace.traceId}", trace_id)
    assert "$" not in query
    lines = eventually("trace to logs", lambda: backend.lines(query))
    assert {record.trace_id for record in lines} == {trace_id}
    assert {record.labels["service_name"] for record in lines} == {"shop"}

    [to_trace] = source("loki")["derivedFields"]
    assert (to_trace["matcherType"], to_trace["url"]) == ("label", "$${__value.raw}")
    assert backend.trace(lines[0].labels[to_trace["matcherRegex"]])

    [of_exemplar] = source("prometheus")["exemplarTraceIdDestinations"]
    [exemplar, *_] = backend.exemplars('asyncio_task_duration_seconds{job="shop"}')
    assert of_exemplar["name"] == "trace_id"  # what `Exemplar.trace_id` is read from
    assert backend.trace(exemplar.trace_id)

    to_metrics = source("jaeger")["tracesToMetrics"]
    assert to_metrics["tags"] == [{"key": "service.name", "value": "job"}]  # as `expressions` fills them in


def _checkouts(backend: Backend) -> list[list[Span]]:
    return [
        trace
        for trace in backend.traces("shop")
        if any(not span.parent_id and span.name == "POST /checkout" for span in trace)
    ]
