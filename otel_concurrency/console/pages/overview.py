"""The first page: verdicts, what each event loop does with its time, and where requests spend theirs."""

from __future__ import annotations

from otel_concurrency.console.pages.blocks import Block, Chart, Html, Request
from otel_concurrency.console.pages.charts import COLOURS, GREY, PART_COLOURS, graph, heat_map, lines
from otel_concurrency.console.pages.formats import amount, percent, seconds
from otel_concurrency.console.pages.markup import Markup, code, empty, link, number, row, table, tag
from otel_concurrency.console.pages.parts import panel, tile, tiles, trace_link
from otel_concurrency.console.queries.calls import calls
from otel_concurrency.console.queries.findings import Event, Found, findings, stall_marks
from otel_concurrency.console.queries.loops import PARTS, Loop, heat, loops, step_starts
from otel_concurrency.console.queries.requests import PARTS as REQUEST_PARTS
from otel_concurrency.console.queries.requests import Route, routes
from otel_concurrency.console.queries.series import fitting_steps, growth, levels, spreads
from otel_concurrency.console.queries.services import extent, processes
from otel_concurrency.signals import names

MAX_LOOP_CHARTS = 12


def overview(request: Request) -> list[Block]:
    """Return the page."""
    steps = fitting_steps(request.reader, request.scope, names.LOOP_TIME.name)
    ran = loops(request.reader, request.scope, steps)
    served = routes(request.reader, request.scope)
    found = findings(request.reader, request.scope)
    live = levels(request.reader, request.scope, names.TASK_COUNT.name, steps=1)
    if not (ran or served or found or live):
        return [nothing_yet(request)]
    starts = step_starts(request.scope, steps)
    stalls = stall_marks(request.reader, request.scope)
    blocks: list[Block] = [Html(_verdicts(request, ran, served, found, sum(value.value for value in live)))]
    shown = ran[:MAX_LOOP_CHARTS]
    for at, loop in enumerate(shown):
        is_alone = at == len(shown) - 1 and at % 2 == 0
        blocks.append(_loop_chart(request, loop, starts, stalls, width=12 if is_alone else 6))
    if len(ran) > MAX_LOOP_CHARTS:
        left = f"{len(ran) - MAX_LOOP_CHARTS} more event loops: choose a service or a process above."
        blocks.append(Html(tag("p", left, class_="note")))
    blocks += _heat(request, starts)
    blocks.append(_runtime(request, starts))
    blocks += _map(request, served)
    blocks.append(Html(_requests(request, served), 12))
    return blocks


def nothing_yet(request: Request) -> Html:
    """Return what stands where nothing was received, or nothing in the range."""
    known = extent(request.reader)
    if known.last_ns is None or known.first_ns is None:
        endpoint = request.endpoint or "http://127.0.0.1:4318"
        command = f"OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} opentelemetry-instrument python app.py"
        return Html(
            empty("Nothing was received yet", "Start a program that sends here: ", tag("pre", code(command)))
        )
    back = request.address.with_(from_=known.first_ns, to=known.last_ns + 1, range=None)
    return Html(
        empty(
            "Nothing in this range",
            "Choose a longer range above, take back the filter on services, or ",
            link(back, "show all that is stored"),
            ".",
        )
    )


def _verdicts(
    request: Request, ran: list[Loop], served: list[Route], found: list[Found], live: float
) -> Markup:
    to, reader, scope = request.address.to, request.reader, request.scope
    worst = {one.severity for one in found}
    tone = "bad" if "error" in worst else "warn" if "warn" in worst else "good"
    stalls = sum(it.value for it in growth(reader, scope, names.EVENTLOOP_STALLS.name, steps=1))
    stalled = sum(it.spread.sum for it in spreads(reader, scope, names.EVENTLOOP_STALL_DURATION.name))
    count = sum(route.count for route in served)
    errors = sum(route.errors for route in served)
    delays = [loop.delay.quantile(0.99) for loop in ran if loop.delay.count]
    busiest = max((loop.busy for loop in ran if loop.busy is not None), default=None)
    slowest = max(served, key=lambda route: route.p99_s, default=None)
    return tiles(
        [
            tile(
                "Findings",
                len(found),
                f"worst: {found[0].kind}" if found else "nothing found",
                href=to("/findings"),
                tone=tone,
            ),
            tile(
                "Stalls",
                amount(stalls),
                f"{seconds(stalled)} in all",
                href=to("/findings", kind=names.STALL_ENDED),
                tone="bad" if stalled > 1 else "warn" if stalls else "good",
            ),
            tile(
                "Requests",
                amount(count),
                f"{amount(count / request.scope.length_s)}/s, {percent(errors / max(1, count))} failed",
                href=to("/traces"),
                tone="bad" if errors > 0.01 * count else "good",
            ),
            tile(
                "p99, slowest route",
                seconds(slowest.p99_s) if slowest else "-",
                slowest.name if slowest else "no requests",
                href=to("/traces", order="slowest"),
            ),
            tile("Tasks alive", amount(live), "of all loops", href=to("/tasks")),
            tile("Busiest loop", percent(busiest), "of its time", tone=_above(busiest, 0.7, 0.9)),
            tile(
                "Loop delay p99",
                seconds(max(delays)) if delays else "-",
                "until a callback's turn",
                tone=_above(max(delays, default=None), 0.05, 0.25),
            ),
            tile("Processes", len(processes(request.reader)), "have sent something", href=to("/timeline")),
        ]
    )


def _above(value: float | None, warn: float, bad: float) -> str:
    return "" if value is None else "bad" if value >= bad else "warn" if value >= warn else "good"


def _loop_chart(
    request: Request,
    loop: Loop,
    starts: list[int],
    stalls: dict[tuple[str, str, str], list[Event]],
    *,
    width: int,
) -> Chart:
    marks = [
        (event.time_ns, f"{event.function} {seconds(_elapsed(event))}", _stall_href(request, event))
        for event in stalls.get((loop.service, loop.instance, loop.loop_id), ())
    ]
    delay = loop.delay.quantile(0.99) if loop.delay.count else None
    return Chart(
        f"{loop.service} · loop {loop.loop_id} ({loop.kind})",
        lines(
            starts,
            {part: loop.shares[part] for part in PARTS},
            unit="share",
            stacked=True,
            colours=PART_COLOURS,
            highest=1,
            marks=marks,
        ),
        width=width,
        note=f"busy {percent(loop.busy)} · delay p99 {seconds(delay)} · process {loop.instance[:8]}",
    )


def _stall_href(request: Request, event: Event) -> str:
    if event.trace_id:
        return request.address.to(f"/trace/{event.trace_id}", span=event.span_id)
    return request.address.to("/logs", focus=event.log_id)


def _elapsed(event: Event) -> float:
    value = event.attributes.get(names.STALL_ELAPSED)
    return float(value) if isinstance(value, int | float) else 0.0


def _heat(request: Request, starts: list[int]) -> list[Chart]:
    charts = []
    for title, metric in (
        ("Loop delay", names.LOOP_DELAY.name),
        ("Iterations by duration", names.LOOP_ITERATION_DURATION.name),
    ):
        told = heat(request.reader, request.scope, metric, steps=len(starts))
        if told.cells:
            options = heat_map(starts, told.bounds, told.cells, unit="s")
            charts.append(Chart(title, options, height=260, note=metric))
    return charts


def _runtime(request: Request, starts: list[int]) -> Chart:
    step = (starts[1] - starts[0]) / 1e9
    series: dict[str, list[float | None]] = {}
    for title, metric in (
        ("waiting for the GIL, per probe", names.GIL_WAIT_TIME.name),
        ("throttled", names.CPU_THROTTLED_TIME.name),
    ):
        for value in growth(request.reader, request.scope, metric, steps=len(starts)):
            told = series.setdefault(f"{value.service} {title}", [None] * len(starts))
            told[value.step] = (told[value.step] or 0.0) + value.value / step
    pauses = heat(request.reader, request.scope, names.GC_PAUSE_DURATION.name, steps=len(starts))
    if pauses.cells:
        series["longest gc pause (p99)"] = pauses.quantiles[0.99]
    return Chart(
        "GIL, garbage collection, throttling",
        lines(starts, series, unit="s"),
        width=12,
        height=190,
        note="Seconds per second; of gc the 99th percentile of its pauses.",
    )


def _map(request: Request, served: list[Route]) -> list[Block]:
    """Return who calls whom, where there are several."""
    told = calls(request.reader, request.scope)
    if not told:
        return []
    counts: dict[str, int] = {}
    for each in told:
        counts.setdefault(each.caller, 0)
        counts.setdefault(each.callee, 0)
    for route in served:
        if route.service in counts:
            counts[route.service] += route.count
    nodes = {
        name: (f"({amount(count)} requests)" if count else "", request.address.to("/traces", service=name))
        for name, count in counts.items()
    }
    edges = [
        (
            each.caller,
            each.callee,
            f"{amount(each.count)}, p95 {seconds(each.p95_s)}"
            + (f", {percent(each.errors / each.count)} failed" if each.errors else ""),
            COLOURS[3] if each.errors else GREY,
        )
        for each in told
    ]
    return [Chart("Services, and whom they call", graph(nodes, edges), width=12, height=200)]


def _requests(request: Request, served: list[Route]) -> Markup:
    if not served:
        return panel("Where requests spend their time", empty("No server spans in this range"))
    told = [at for at in range(len(REQUEST_PARTS)) if any(route.parts[at] for route in served)]
    parts = [f">{name}" for at, name in enumerate(REQUEST_PARTS) if at in told]
    heads = ["route", "service", ">requests", ">failed", ">p50", ">p99", *parts, "slowest"]
    rows = [
        row(
            link(request.address.to("/traces", name=route.name), route.name),
            route.service,
            number(amount(route.count)),
            number(percent(route.errors / route.count)),
            number(seconds(route.p50_s)),
            number(seconds(route.p99_s)),
            *(number(seconds(route.parts[at]) if route.parts[at] else "") for at in told),
            trace_link(request.address, route.slowest),
        )
        for route in served
    ]
    note = "Means per request; what tasks and waits of one request took at the same time adds up."
    return panel("Where requests spend their time", tag("p", note, class_="note"), table(heads, rows))
