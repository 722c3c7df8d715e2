"""A window of time as swimlanes: processes, their threads and loops, their tasks; stalls above them."""

from __future__ import annotations

from collections import defaultdict

from otel_concurrency.console.pages.blocks import Block, Html, Request
from otel_concurrency.console.pages.formats import clock, seconds, span_of
from otel_concurrency.console.pages.lanes import Lane, Slice, draw_lanes
from otel_concurrency.console.pages.markup import Markup, empty, link, tag
from otel_concurrency.console.pages.overview import nothing_yet
from otel_concurrency.console.queries.findings import Event
from otel_concurrency.console.queries.services import extent, processes
from otel_concurrency.console.queries.timeline import MAX_LANES, Piece, Timeline, timeline
from otel_concurrency.signals import names

WIDEST_NS = 120 * 1_000_000_000
"""A longer range is shown from its end: beyond that, slices are no longer to be told apart."""

FIRST_NS = 5 * 1_000_000_000


def timeline_page(request: Request) -> list[Block]:
    """Return the page."""
    address, scope = request.address, request.scope
    if not address.is_fixed or scope.end_ns - scope.start_ns > WIDEST_NS:
        last = extent(request.reader).last_ns
        if last is None:
            return [nothing_yet(request)]
        end = min(scope.end_ns, max(last, scope.start_ns + 1))
        start = max(scope.start_ns, end - FIRST_NS)
        scope = type(scope)(start, max(end, start + 1), scope.services, scope.instances)
    found = timeline(request.reader, scope)
    zoom = _zoom(request, scope.start_ns, scope.end_ns)
    by_name = request.get("by") == "name"
    if not (found.pieces or found.stalls):
        return [
            Html(zoom),
            Html(empty("Nothing happened in this window", "Go back in time with \u2039, or zoom out.")),
        ]
    lanes = _lanes(request, found, by_name=by_name)
    notes = []
    if found.left_out:
        notes.append(
            f"The {len(found.pieces):,} longest spans; {found.left_out:,} shorter ones are left out."
        )
    if len(lanes) > MAX_LANES:
        notes.append(f"The {MAX_LANES} busiest lanes of {len(lanes)}.")
        busiest = sorted(lanes, key=lambda lane: -sum(it.end_ns - it.start_ns for it in lane.slices))[
            :MAX_LANES
        ]
        lanes = [lane for lane in lanes if lane in busiest]
    told = [tag("p", note, class_="note") for note in notes]
    return [Html(tag("div", zoom, told)), Html(draw_lanes(lanes, scope.start_ns, scope.end_ns))]


def _zoom(request: Request, start_ns: int, end_ns: int) -> Markup:
    length = end_ns - start_ns
    middle = start_ns + length // 2
    ways = []
    for title, new in (("zoom in", length // 2), ("zoom out", min(length * 2, WIDEST_NS))):
        half = max(500, new // 2)
        href = request.address.with_(range=None, from_=middle - half, to=middle + half)
        ways.append(link(href, title, class_="button"))
    for title, by in (("\u2039 half a window", -length // 2), ("half a window \u203a", length // 2)):
        href = request.address.with_(range=None, from_=start_ns + by, to=end_ns + by)
        ways.append(link(href, title, class_="button"))
    for kind, title in (("", "by task"), ("name", "by name")):
        is_on = request.get("by") == kind
        ways.append(link(request.address.with_(by=kind), title, class_="button on" if is_on else "button"))
    told = f"{clock(start_ns)} to {clock(end_ns)} UTC, {span_of(length)}"
    return tag("div", ways, tag("span", told, class_="note"), class_="filters")


def _lanes(request: Request, found: Timeline, *, by_name: bool) -> list[Lane]:
    pids = {(it.service, it.instance): it.pid for it in processes(request.reader)}
    lanes: list[Lane] = []
    stalls: defaultdict[tuple[str, str], list[Slice]] = defaultdict(list)
    for event in found.stalls:
        pid = pids.get((event.service, event.instance))
        loop = event.attributes.get(names.EVENTLOOP_ID, "")
        stalls[f"{event.service} {pid or ''}".strip(), f"loop {loop}"].append(_stall(request, event))
    rows: defaultdict[tuple[str, str, str], list[Piece]] = defaultdict(list)
    for piece in found.pieces:
        rows[
            f"{piece.service} {piece.pid}".strip(),
            piece.thread,
            _short(piece.name) if by_name else piece.task,
        ].append(piece)
    every = sorted({process for process, *_ in rows} | {process for process, _ in stalls})
    for process in every:
        lanes += [
            Lane(process, "", loop, held) for (of, loop), held in sorted(stalls.items()) if of == process
        ]
        own = [key for key in rows if key[0] == process]
        own.sort(key=lambda key: (key[1], min(piece.start_ns for piece in rows[key]), key[2]))
        lanes += [
            Lane(process, key[1], key[2] or "no task", [_slice(request, piece) for piece in rows[key]])
            for key in own
        ]
    return lanes


def _slice(request: Request, piece: Piece) -> Slice:
    tone = "bad" if piece.is_error else f"c{sum(piece.name.encode()) % 6}"
    href = request.address.to(f"/trace/{piece.trace_id}", span=piece.span_id)
    return Slice(piece.start_ns, piece.end_ns, _short(piece.name), href, tone)


def _short(name: str) -> str:
    return name.removeprefix(f"{names.TASK_SPAN} ")


def _stall(request: Request, event: Event) -> Slice:
    elapsed = event.attributes.get(names.STALL_ELAPSED)
    took = float(elapsed) if isinstance(elapsed, int | float) else 0.0
    label = f"{event.attributes.get(names.STALL_CAUSE, 'stall')}: {event.function} {seconds(took)}"
    href = request.address.to("/logs", focus=event.log_id)
    return Slice(event.time_ns - int(took * 1e9), event.time_ns, label, href, "stall")
