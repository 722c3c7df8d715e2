"""Threads, right now: what each does, whose event loop it runs, and where it stands."""

from __future__ import annotations

from otel_concurrency.console.pages.blocks import Block, Html, Request
from otel_concurrency.console.pages.formats import seconds
from otel_concurrency.console.pages.graph import nobody_answers
from otel_concurrency.console.pages.markup import Content, Markup, empty, number, row, table, tag
from otel_concurrency.console.pages.parts import panel
from otel_concurrency.snapshot import Snapshot
from otel_concurrency.snapshot.live import LiveThread

BAD = {"lock_or_gil": "warn"}


def threads_page(request: Request) -> list[Block]:
    """Return the page."""
    answers = request.live(request.scope)
    if not answers:
        return [nobody_answers()]
    blocks: list[Block] = []
    for answer in answers:
        if answer.snapshot is None:
            blocks.append(Html(panel(answer.title, empty("It did not answer", answer.problem))))
        else:
            blocks.append(Html(panel(answer.title, _loops(answer.snapshot), _threads(answer.snapshot))))
    return blocks


def _loops(seen: Snapshot) -> Content:
    names = {task.id: task.name for task in seen.tasks}
    told = []
    for loop in seen.loops:
        held = f"in one iteration for {seconds(loop.iteration_s)}" if loop.iteration_s else "waits for events"
        runs = f", runs {names.get(loop.task or 0, '')} {loop.coroutine}".rstrip() if loop.coroutine else ""
        told.append(
            tag("p", tag("b", f"loop {loop.id} ({loop.type})"), f": {loop.tasks} tasks, {held}{runs}")
        )
    return told


def _threads(seen: Snapshot) -> Markup:
    rows = [
        row(
            each.name,
            tag("td", each.state.replace("_", " "), class_=BAD.get(each.state)),
            each.waits_for,
            "" if each.loop is None else f"loop {each.loop}",
            number(seconds(each.cpu_s) if each.cpu_s is not None else ""),
            "daemon" if each.daemon else "",
            _frames(each),
            number(each.native_id),
        )
        for each in seen.threads
    ]
    heads = ["thread", "state", "waits for", "runs", ">CPU time", "", "stands in", ">native id"]
    return table(heads, rows)


def _frames(each: LiveThread) -> Content:
    if not each.frames:
        return ""
    return tag(
        "details",
        tag("summary", tag("code", each.frames[0].function)),
        tag("pre", "\n".join(str(frame) for frame in each.frames)),
    )
