"""Swimlanes: rows of slices on one time line, any of which may lead somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otel_concurrency.console.pages.formats import span_of
from otel_concurrency.console.pages.markup import Markup, link, tag

MAX_LEVELS = 8
"""Slices of a lane that overlap stand below each other, in so many rows; others are drawn on top."""

_ROW = 20


@dataclass(frozen=True, slots=True)
class Slice:
    """Something that took time.

    Attributes:
        start_ns: Its start, ns since the epoch.
        end_ns: Its end.
        label: What it is.
        href: Where it leads.
        tone: A colour class.
    """

    start_ns: int
    end_ns: int
    label: str
    href: str = ""
    tone: str = "c0"


@dataclass(frozen=True, slots=True)
class Lane:
    """A row: what a task, a thread, a loop or a process did.

    Attributes:
        process: The process it is in; said once for all its lanes.
        thread: The thread; likewise.
        label: What it is.
        slices: What it did.
    """

    process: str
    thread: str
    label: str
    slices: Sequence[Slice]


def draw_lanes(lanes: Sequence[Lane], start_ns: int, end_ns: int) -> Markup:
    """Return the lanes between two instants."""
    length = max(1, end_ns - start_ns)
    drawn: list[Markup] = [_ruler(length)]
    before = ("", "")
    for lane in lanes:
        if lane.process != before[0]:
            drawn.append(tag("div", lane.process, class_="lane process"))
        if lane.thread and (lane.process, lane.thread) != before:
            drawn.append(tag("div", f"thread {lane.thread}", class_="lane thread"))
        before = (lane.process, lane.thread)
        drawn.append(_lane(lane, start_ns, length))
    return tag("div", drawn, class_="lanes")


def _lane(lane: Lane, start_ns: int, length: int) -> Markup:
    ends: list[int] = []
    inner: list[Markup] = []
    for each in sorted(lane.slices, key=lambda it: (it.start_ns, -it.end_ns)):
        level = next((at for at, end in enumerate(ends) if end <= each.start_ns), len(ends))
        if level >= MAX_LEVELS:
            level = MAX_LEVELS - 1
        if level == len(ends):
            ends.append(each.end_ns)
        else:
            ends[level] = max(ends[level], each.end_ns)
        inner.append(_slice(each, level, start_ns, length))
    height = _ROW * max(1, len(ends))
    return tag(
        "div",
        tag("span", lane.label, class_="name", title=lane.label),
        tag("span", inner, class_="track", style=f"height:{height}px"),
        class_="lane",
    )


def _slice(each: Slice, level: int, start_ns: int, length: int) -> Markup:
    first = min(max(0.0, (each.start_ns - start_ns) / length), 1.0)
    last = min(max(first, (each.end_ns - start_ns) / length), 1.0)
    style = f"left:{first * 100:.3f}%;width:{max(0.08, (last - first) * 100):.3f}%;top:{level * _ROW + 1}px"
    title = f"{each.label} · {span_of(max(0, each.end_ns - each.start_ns))}"
    shown = each.label if last - first > 0.03 else ""
    if each.href:
        return link(each.href, shown, class_=f"slice {each.tone}", style=style, title=title)
    return tag("span", shown, class_=f"slice {each.tone}", style=style, title=title)


def _ruler(length: int) -> Markup:
    marks = [tag("small", f"+{span_of(length * at // 8)}", style=f"left:{at * 12.5}%") for at in range(8)]
    return tag("div", tag("span", class_="name"), tag("span", marks, class_="track"), class_="lane ruler")
