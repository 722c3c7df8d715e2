"""Tasks by coroutine, as a list; one coroutine unfolded: its distributions, spans, stalls and live tasks."""

from __future__ import annotations

from collections.abc import Callable

from otel_concurrency.console.distribution import Distribution
from otel_concurrency.console.pages.blocks import Block, Chart, Html, Request
from otel_concurrency.console.pages.charts import bars
from otel_concurrency.console.pages.formats import amount, clock, percent, seconds
from otel_concurrency.console.pages.graph import task_line
from otel_concurrency.console.pages.markup import Content, Markup, empty, link, number, row, table, tag
from otel_concurrency.console.pages.overview import nothing_yet
from otel_concurrency.console.pages.parts import field, filters, panel, short, trace_link
from otel_concurrency.console.queries.findings import events
from otel_concurrency.console.queries.tasks import Coroutine, coroutines
from otel_concurrency.console.queries.traces import TraceFilter, traces
from otel_concurrency.signals import names

Sort = Callable[[Coroutine], "float | str"]
COLUMNS: dict[str, tuple[str, Sort]] = {
    "live": ("live", lambda each: -each.live),
    "created": ("created", lambda each: -each.created),
    "failed": ("failed", lambda each: -each.outcomes.get("failed", 0)),
    "cancelled": ("cancelled", lambda each: -each.outcomes.get("cancelled", 0)),
    "p50": ("p50", lambda each: -_quantile(each.durations, 0.5)),
    "p99": ("p99", lambda each: -_quantile(each.durations, 0.99)),
    "busy": ("busy", lambda each: -each.busy_s),
    "share": ("busy share", lambda each: -_busy_share(each)),
    "start": ("start p99", lambda each: -_quantile(each.start_delays, 0.99)),
    "steps": ("steps", lambda each: -each.step_count),
    "longest": ("step p99", lambda each: -_quantile(each.steps, 0.99)),
}
OUTCOMES = (("failed", "bad"), ("cancelled", ""))
"""Columns that are left out where nothing ended so."""

MAX_ALIVE = 100
SLOW_STEP_S = 0.1
LONG_START_S = 0.1
MANY_FAILED = 0.05


def tasks_page(request: Request) -> list[Block]:
    """Return the page."""
    address = request.address
    every = coroutines(request.reader, request.scope)
    part = address.get("q").lower()
    shown = [each for each in every if part in each.function.lower()]
    sort = address.get("sort", "busy")
    if sort in COLUMNS:
        shown.sort(key=COLUMNS[sort][1])
    blocks: list[Block] = [Html(filters(address, field("q", address, "coroutine", size=30)))]
    if not every:
        blocks.append(nothing_yet(request))
    elif not shown:
        blocks.append(Html(empty("No coroutine fits", link(address.to("/tasks"), "All of them"), ".")))
    else:
        blocks.append(Html(_list(request, shown)))
    chosen = _chosen(every, address.get("focus"))
    if chosen:
        blocks += _detail(request, chosen)
    elif address.get("focus"):
        blocks.append(Html(empty("No tasks of this coroutine in this range", address.get("focus"))))
    return blocks


def warnings(each: Coroutine) -> list[str]:
    """Return what looks wrong about a coroutine's tasks, a few words each."""
    found = []
    if _quantile(each.steps, 1.0) >= SLOW_STEP_S:
        found.append(f"a step held the loop for {seconds(_quantile(each.steps, 1.0))}")
    if each.completed and each.failed_share >= MANY_FAILED:
        found.append(f"{percent(each.failed_share)} failed")
    if _quantile(each.start_delays, 0.99) >= LONG_START_S:
        found.append(f"waited up to {seconds(_quantile(each.start_delays, 0.99))} to start")
    if each.outcomes.get("destroyed"):
        found.append(f"{each.outcomes['destroyed']} destroyed while pending")
    return found


def _list(request: Request, shown: list[Coroutine]) -> Markup:
    address = request.address
    sort = address.get("sort", "busy")
    ended = {outcome for each in shown for outcome, count in each.outcomes.items() if count}
    columns = set(COLUMNS) - ({outcome for outcome, _ in OUTCOMES} - ended)
    heads: list[Content] = [
        tag("th", "!"),
        "coroutine",
        "service",
        *(
            tag("th", link(address.with_(sort=key), title, class_="on" if key == sort else None), class_="n")
            for key, (title, _) in COLUMNS.items()
            if key in columns
        ),
    ]
    rows = []
    for each in shown:
        focus = f"{each.service}:{each.function}"
        told = warnings(each)
        rows.append(
            row(
                tag("td", "⚠" if told else "", title="; ".join(told), class_="warn"),
                tag("td", _name(address.with_(focus=focus), each.function), class_="fn"),
                each.service,
                number(amount(each.live) if each.live else ""),
                number(amount(each.created)),
                *(
                    number(_of(each, outcome), class_=tone)
                    for outcome, tone in OUTCOMES
                    if outcome in columns
                ),
                number(_told(each.durations, 0.5)),
                number(_told(each.durations, 0.99)),
                number(seconds(each.busy_s)),
                tag("td", tag("i", style=f"width:{min(100, _busy_share(each) * 100):.0f}%"), class_="bar"),
                number(_told(each.start_delays, 0.99)),
                number(amount(each.step_count)),
                number(_told(each.steps, 0.99)),
                href=address.with_(focus=focus),
                class_="chosen" if focus == address.get("focus") else None,
            )
        )
    note = f"{len(shown)} coroutines; numbers are of the range above. Busy share: of the life of their tasks."
    return tag("div", table(heads, rows, class_="list"), tag("p", note, class_="note"))


def _name(href: str, function: str) -> Markup:
    return link(href, short(function, 2), title=function)


def _of(each: Coroutine, outcome: str) -> str:
    count = each.outcomes.get(outcome, 0)
    return f"{count} ({percent(count / max(1, each.completed))})" if count else ""


def _detail(request: Request, each: Coroutine) -> list[Block]:
    address = request.address
    told = warnings(each)
    head = tag(
        "header",
        tag(
            "h2",
            each.function,
            link(address.with_(focus=None), "\u00d7", class_="close", title="close (Esc)"),
        ),
        tag("p", f"{each.service} · ", ", ".join(told) if told else "nothing looks wrong"),
        tag(
            "nav",
            link(address.to("/traces", q=each.function), "traces"),
            link(address.to("/logs", q=each.function), "logs"),
            link(address.to("/findings", q=each.function), "findings"),
            link(
                address.to("/metrics", metric=names.TASK_DURATION.name, by=names.CODE_FUNCTION_NAME),
                "metrics",
            ),
            class_="tabs",
        ),
        class_="head",
        id="focus",
    )
    blocks: list[Block] = [Html(head)]
    for title, spread in (
        ("Duration", each.durations),
        ("Start delay", each.start_delays),
        ("Steps by duration", each.steps),
    ):
        blocks.append(_histogram(title, spread))
    alive = _alive(request, each)
    if alive:
        blocks.append(Html(alive))
    blocks.append(Html(_spans(request, each), 6))
    blocks.append(Html(_events(request, each), 6))
    return blocks


def _alive(request: Request, each: Coroutine) -> Markup | None:
    """Return the tasks that are alive now, as the programs themselves tell."""
    told = [
        tag("div", task_line(task, answer.service, request.address), class_="twig")
        for answer in request.live(request.scope)
        if answer.service == each.service and answer.snapshot is not None
        for task in answer.snapshot.tasks
        if task.coroutine == each.function
    ]
    if not told:
        return None
    title = [
        f"Alive now: {len(told)} ",
        link(request.address.to("/graph", q=each.function), "in the await graph"),
    ]
    return panel(title, told[:MAX_ALIVE])


def _histogram(title: str, spread: Distribution) -> Chart:
    rows = sorted((high, held) for (_, high), held in spread.buckets.items())
    note = f"{amount(spread.count)} · p50 {_told(spread, 0.5)} · p99 {_told(spread, 0.99)}"
    options = bars([seconds(high) for high, _ in rows], [held for _, held in rows])
    return Chart(title, options, width=4, height=170, note=note)


def _spans(request: Request, each: Coroutine) -> Markup:
    wanted = TraceFilter(name=f"{names.TASK_SPAN} {each.function}", order="slowest")
    found = traces(request.reader, request.scope, wanted, 15)
    if not found:
        advice = "A task inside a traced request gets a span if it was slow, failed, or has spans of its own."
        return panel("Slowest traces", empty("No spans of this coroutine in this range", advice))
    rows = [
        row(
            clock(it.start_ns),
            trace_link(request.address, it.trace_id, label=it.name),
            number(seconds(it.duration_ns / 1e9)),
            href=request.address.to(f"/trace/{it.trace_id}"),
        )
        for it in found
    ]
    return panel("Slowest traces", table(["began", "root", ">duration"], rows, class_="list"))


def _events(request: Request, each: Coroutine) -> Markup:
    found = events(request.reader, request.scope, limit=15, function=each.function)
    if not found:
        return panel("Stalls and failures", empty("None of this coroutine in this range"))
    rows = [
        row(
            clock(it.time_ns),
            link(request.address.to("/logs", focus=it.log_id), it.name),
            it.text,
            trace_link(request.address, it.trace_id, it.span_id or "") if it.trace_id else "",
        )
        for it in found
    ]
    return panel("Stalls and failures", table(["when", "event", "what", "trace"], rows))


def _chosen(every: list[Coroutine], focus: str) -> Coroutine | None:
    return next((each for each in every if f"{each.service}:{each.function}" == focus), None)


def _busy_share(each: Coroutine) -> float:
    return each.busy_s / each.durations.sum if each.durations.sum > 0 else 0.0


def _quantile(spread: Distribution, q: float) -> float:
    return spread.quantile(q) if spread.count else 0.0


def _told(spread: Distribution, q: float) -> str:
    return seconds(spread.quantile(q)) if spread.count else ""
