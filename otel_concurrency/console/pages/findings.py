"""What was found: a sentence, the evidence, the culprit, the traces it touched, and what to do."""

from __future__ import annotations

import json
from typing import Any

from otel_concurrency.console.pages.blocks import Block, Html, Request
from otel_concurrency.console.pages.formats import ago, amount, clock, seconds
from otel_concurrency.console.pages.markup import Content, Markup, empty, link, tag
from otel_concurrency.console.pages.overview import nothing_yet
from otel_concurrency.console.pages.parts import field, filters, function_link, pairs, trace_link
from otel_concurrency.console.queries.findings import DIAGNOSIS, Event, Found, findings
from otel_concurrency.console.queries.services import extent
from otel_concurrency.signals import names

ADVICE = {
    "blocked_call": "The call waits, and the loop with it: use what asyncio has, or asyncio.to_thread.",
    "cpu_python": "It computes on the loop: hand it to a process pool, or make it shorter.",
    "native_gil_held": "C code keeps the GIL: a thread does not help; hand it to a process.",
    "gil_contention": "Other threads keep the GIL: move their computing into processes.",
    "gc_pause": "Collections take long: fewer objects that live long, gc.freeze() after the start.",
    "cpu_starved": "The thread was ready and had no CPU: fewer workers, or more CPU.",
    "spin": "The loop turns without anything to do: look for sleep(0) and for polling.",
    "task_never_retrieved": "Await the task, or look at its result in a done callback.",
    "coroutine_never_awaited": "Await it, or make a task of it.",
    "task_destroyed_pending": "Keep a reference to the task until it is done.",
    "executor_future": "Look at the future's result, or at its exception.",
}


def findings_page(request: Request) -> list[Block]:
    """Return the page."""
    address = request.address
    every = findings(request.reader, request.scope)
    text, kind = address.get("q").lower(), address.get("kind")
    shown = [
        one
        for one in every
        if kind in ("", one.kind) and (text in one.key.lower() or text in one.last.text.lower())
    ]
    form = filters(address, field("q", address, "text, coroutine or file", size=30), _kinds(request, every))
    if not every:
        if extent(request.reader).last_ns is None:
            return [nothing_yet(request)]
        told = "Nothing held an event loop, and no failure went unnoticed, in this range."
        return [Html(empty("Nothing found", told))]
    if not shown:
        back = link(address.to("/findings"), "all of them")
        return [Html(form), Html(empty("No finding fits", "Take back the filter, or see ", back, "."))]
    return [Html(form), Html(tag("div", [_card(request, one) for one in shown], class_="cards"))]


def _kinds(request: Request, every: list[Found]) -> Markup:
    kinds = sorted({one.kind for one in every})
    chosen = request.get("kind")
    options = [tag("option", "all kinds", value="")]
    options += [tag("option", kind, value=kind, selected=kind == chosen) for kind in kinds]
    return tag("select", options, name="kind", aria_label="kind", data_submit=True)


def _card(request: Request, one: Found) -> Markup:
    address, last = request.address, one.last
    title: list[Content] = [tag("span", one.severity, class_=f"badge {one.severity}")]
    if one.is_open is not None:
        title.append(tag("span", "open" if one.is_open else "over", class_="badge"))
    title.append(tag("b", last.text or one.kind))
    facts: list[Content] = [
        last.service,
        f"{amount(one.count)} times" if one.count > 1 else "once",
        f"{seconds(one.elapsed_s)} in those that were told" if one.elapsed_s else None,
        f"last at {clock(last.time_ns)}, {ago(last.time_ns, request.scope.end_ns)}",
        one.kind,
    ]
    advice = _advice(last)
    ways: list[Content] = [link(address.to("/logs", focus=last.log_id), "log record")]
    moment = {"from_": last.time_ns - 1_000_000_000, "to": last.time_ns + 1_000_000_000, "range": None}
    ways += [" · ", link(address.to("/timeline", **moment), "timeline")]
    traces: list[Content] = [
        [trace_link(address, trace_id, span_id), " "] for trace_id, span_id in one.traces
    ]
    return tag(
        "section",
        tag("h3", title),
        tag("p", [[fact, " · "] for fact in facts[:-1] if fact], tag("code", facts[-1]), class_="note"),
        tag(
            "dl",
            _rows(request, one),
            tag("dt", "traces") if traces else None,
            tag("dd", traces) if traces else None,
        ),
        tag("p", tag("b", "What to do: "), advice, class_="advice") if advice else None,
        _evidence(last),
        tag("p", ways, class_="ways"),
        class_=f"panel finding {one.severity}",
        id=f"f{last.log_id}",
    )


def _rows(request: Request, one: Found) -> list[Content]:
    last = one.last
    rows: list[tuple[str, Content]] = []
    if last.function and last.function != names.UNKNOWN_FUNCTION:
        rows.append(("culprit", function_link(request.address, last.service, last.function)))
    elif culprit := last.attributes.get(f"{DIAGNOSIS}culprit"):
        rows.append(("culprit", str(culprit)))
    for title, key in (
        ("about", f"{DIAGNOSIS}subject"),
        ("call", names.STALL_CALL),
        ("cause", names.STALL_CAUSE),
        ("task", names.TASK_NAME),
        ("exception", names.EXCEPTION_TYPE),
    ):
        if last.attributes.get(key):
            rows.append((title, str(last.attributes[key])))
    if last.place:
        rows.append(("where", tag("code", last.place)))
    stack = last.attributes.get(names.CODE_STACKTRACE) or last.attributes.get(names.EXCEPTION_STACKTRACE)
    if stack:
        shown = tag("details", tag("summary", "frames"), tag("pre", str(stack)))
        rows.append(("stack", shown))
    return [(tag("dt", key), tag("dd", value)) for key, value in rows]


def _advice(event: Event) -> str:
    for key, value in event.attributes.items():
        if key.endswith("advice") and isinstance(value, str):
            return value
    cause = event.attributes.get(names.STALL_CAUSE) or event.attributes.get(names.FAILURE_KIND)
    return ADVICE.get(str(cause), "")


def _evidence(event: Event) -> Markup | None:
    """Return the numbers of a diagnosis; other events have theirs in their rows already."""
    if not event.name.startswith(DIAGNOSIS):
        return None
    told: dict[str, Any] = {}
    for key, value in event.attributes.items():
        short = key.removeprefix(DIAGNOSIS)
        if short.endswith("evidence") and isinstance(value, str):
            told |= _numbers(value)
        elif short in ("bottleneck", "confidence", "suppressed") and value:
            told[short] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return tag("details", tag("summary", "Evidence"), pairs(told), open=True) if told else None


def _numbers(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"evidence": text}
    if isinstance(found, dict):
        return found
    if not isinstance(found, list):
        return {"evidence": found}
    told = {}
    for each in found:
        if isinstance(each, dict) and isinstance(each.get("value"), int | float):
            limit = each.get("threshold")
            unit = str(each.get("unit") or "")
            counts = f" (counts from {amount(limit, unit)})" if isinstance(limit, int | float) else ""
            told[str(each.get("name"))] = amount(each["value"], unit) + counts
        else:
            told[f"evidence {len(told) + 1}"] = each
    return told
