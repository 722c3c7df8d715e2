"""Who waits for whom, right now: deadlocks, the tree of tasks, and who waits at which lock or queue."""

from __future__ import annotations

from otel_concurrency.console.live import Live
from otel_concurrency.console.pages.address import Address
from otel_concurrency.console.pages.blocks import Block, Html, Request
from otel_concurrency.console.pages.formats import amount, seconds
from otel_concurrency.console.pages.markup import Content, Markup, code, empty, number, row, table, tag
from otel_concurrency.console.pages.parts import field, filters, function_link, panel, trace_link
from otel_concurrency.snapshot import Snapshot
from otel_concurrency.snapshot.live_tasks import Deadlock, LiveTask

MAX_LINES = 400
SETTING = "OTEL_PYTHON_CONCURRENCY_HTTP_PORT"


def graph_page(request: Request) -> list[Block]:
    """Return the page."""
    answers = request.live(request.scope)
    if not answers:
        return [nobody_answers()]
    search = field("q", request.address, "task, coroutine or lock")
    blocks: list[Block] = [Html(filters(request.address, search))]
    for answer in answers:
        if answer.snapshot is None:
            blocks.append(Html(panel(answer.title, empty("It did not answer", answer.problem))))
            continue
        blocks += _program(request, answer, answer.snapshot)
    return blocks


def nobody_answers() -> Html:
    """Return what stands where no program can be asked."""
    return Html(
        empty(
            "No program offers a look inside",
            "Start it with ",
            code(f"{SETTING}=0"),
            " (any free port, on loopback), as the user who runs this console. What it does now is asked of "
            "it directly; it is in no telemetry.",
        )
    )


def task_line(task: LiveTask, service: str, address: Address, *, note: Content = None) -> list[Content]:
    """Return what a live task is, where it stands, and what it waits for."""
    wait = task.wait
    told: list[Content] = [
        tag("b", task.name),
        " ",
        function_link(address, service, task.coroutine),
        " ",
        tag("span", task.state if wait is None else wait.kind, class_=f"badge {task.state}"),
    ]
    if wait is not None and wait.target_name:
        told.append(tag("code", wait.target_name))
    if wait is not None and wait.for_s is not None:
        told += [" for ", "" if wait.is_exact else "at least ", seconds(wait.for_s)]
    place = task.at or (task.frames[0] if task.frames else None)
    if place is not None:
        told += [" ", tag("small", f"{place.file.rpartition('/')[2]}:{place.line}", title=str(place))]
    if task.age_s is not None:
        told += [" ", tag("small", f"age {seconds(task.age_s)}")]
    if task.trace_id:
        told += [" ", trace_link(address, task.trace_id, task.span_id)]
    return [*told, " ", note]


def _program(request: Request, answer: Live, seen: Snapshot) -> list[Block]:
    told = f"{seen.task_count} tasks, looked at in {seconds(seen.took_s)}"
    blocks: list[Block] = [
        Html(tag("header", tag("h2", answer.title), tag("p", told, _left_out(seen)), class_="head"))
    ]
    if seen.deadlocks:
        stuck = [_deadlock(each) for each in seen.deadlocks]
        blocks.append(
            Html(panel("Deadlock: these wait for each other, for good", stuck, class_="finding error"))
        )
    by_id = {task.id: task for task in seen.tasks}
    blocks.append(Html(panel("Tasks, each above what it waits for", _tree(request, answer, seen, by_id))))
    blocks.append(Html(_places(request, answer, seen, by_id)))
    return blocks


def _left_out(seen: Snapshot) -> str:
    return f", {seen.left_out} more are not shown" if seen.left_out else ""


def _deadlock(each: Deadlock) -> Markup:
    parts = []
    for at, name in enumerate(each.names):
        lock = each.locks[at] if at < len(each.locks) and each.locks[at] else "its end"
        parts.append(tag("li", tag("b", name), f" {each.coroutines[at]} waits for {lock}"))
    return tag("ul", parts)


def _tree(request: Request, answer: Live, seen: Snapshot, by_id: dict[int, LiveTask]) -> Markup:
    below: dict[int, list[int]] = {}
    waited_for: set[int] = set()
    for edge in seen.edges:
        if edge.waiter in by_id and edge.on in by_id:
            below.setdefault(edge.waiter, []).append(edge.on)
            waited_for.add(edge.on)
    in_circle = {edge.waiter for deadlock in seen.deadlocks for edge in deadlock.edges}
    part = request.get("q").lower()
    lines: list[Markup] = []
    shown: set[int] = set()
    roots = [task.id for task in seen.tasks if task.id not in waited_for]
    # What no root leads to goes in a circle; each circle begins anywhere.
    pending = [(task_id, 0) for task_id in reversed([*roots, *(task.id for task in seen.tasks)])]
    while pending and len(lines) < MAX_LINES:
        task_id, depth = pending.pop()
        task = by_id[task_id]
        if task_id in shown:
            if depth:
                lines.append(
                    tag("div", f"\u21b3 {task.name}, see above", class_="twig", style=_indent(depth))
                )
            continue
        shown.add(task_id)
        if _fits(task, part):
            tone = "bad" if task_id in in_circle else "warn" if task.is_orphan else ""
            note = tag("span", "nobody can wake it", class_="badge warn") if task.is_orphan else None
            line = task_line(task, answer.service, request.address, note=note)
            lines.append(tag("div", line, class_=f"twig {tone}".strip(), style=_indent(depth)))
        pending.extend((child, depth + 1) for child in reversed(below.get(task_id, ())))
    return tag("div", lines) if lines else empty("No task fits")


def _places(request: Request, answer: Live, seen: Snapshot, by_id: dict[int, LiveTask]) -> Markup:
    part = request.get("q").lower()
    rows = []
    for lock in seen.locks:
        waiting = [by_id[it].name for it in lock.waiting if it in by_id]
        holders = [by_id[it].name for it in lock.holders if it in by_id]
        if part in f"{lock.name} {lock.kind} {' '.join(waiting)}".lower():
            held = f"{', '.join(holders)} {seconds(lock.held_s) if lock.held_s is not None else ''}"
            rows.append(
                row(lock.kind, lock.name, held.strip(), number(len(lock.waiting)), ", ".join(waiting))
            )
    for queue in seen.queues:
        if part in f"{queue.name} queue".lower():
            full = f"{queue.size} of {amount(queue.limit) if queue.limit else 'any'}"
            waits = queue.getters + queue.putters
            told = f"{queue.getters} for an item, {queue.putters} for room" if waits else ""
            rows.append(row("queue", queue.name, full, number(waits), told))
    for pool in seen.pools:
        if part in f"{pool.name} pool".lower():
            holders = [f"{it.who} {seconds(it.held_s)}" for it in pool.holders]
            full = f"{pool.used} of {amount(pool.limit) if pool.limit else 'any'}"
            rows.append(row(f"{pool.kind} pool", pool.name, full, number(pool.pending), ", ".join(holders)))
    for executor in seen.executors:
        if part in f"{executor.name} executor".lower():
            full = f"{amount(executor.active)} of {amount(executor.limit)}"
            rows.append(row("executor", executor.name, full, number(amount(executor.queued)), ""))
    if not rows:
        return panel("Locks, queues and pools", empty("Nobody waits at any"))
    heads = ["kind", "name", "held", ">waiting", "who"]
    return panel("Locks, queues and pools", table(heads, rows))


def _fits(task: LiveTask, part: str) -> bool:
    target = task.wait.target_name if task.wait else ""
    return part in f"{task.name} {task.coroutine} {target} {task.wait.kind if task.wait else ''}".lower()


def _indent(depth: int) -> str:
    return f"padding-left:{8 + 20 * min(depth, 20)}px"
