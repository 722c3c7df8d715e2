"""One browser tab: its address, and the elements that show the blocks of the page that is there."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nicegui import events, run, ui

from otel_concurrency.console.pages import routes
from otel_concurrency.console.pages.address import Address
from otel_concurrency.console.pages.blocks import Block, Chart, Html, Links, Request
from otel_concurrency.console.pages.frame import bar, foot, menu
from otel_concurrency.console.pages.markup import empty, tag
from otel_concurrency.console.queries.services import processes
from otel_concurrency.console.store import Store, StoreError

STATIC_PATH = "/console-static"
REFRESH_S = 2.0
"""How often a page is made anew while something arrives."""

IDLE_REFRESH_S = 10.0
"""How often while nothing does: a range up to now moves on."""

REST = 4.0
"""A page that takes long to make is made less often: it may take one part in so many of a processor."""

_LOG = logging.getLogger(__name__)
_Drawn: TypeAlias = "ui.html | ui.echart"


@dataclass(frozen=True, slots=True)
class Source:
    """What all tabs show.

    Attributes:
        store: The store.
        links: Where else traces can be seen.
        endpoint: Where telemetry is received; empty if nowhere.
    """

    store: Store
    links: Links
    endpoint: str


class View:
    """One browser tab.

    Args:
        source: What it shows.
        address: Where it begins.
    """

    def __init__(self, source: Source, address: Address) -> None:
        self._source = source
        self._address = address
        self._asked = 0
        self._is_busy = False
        self._is_hidden = False
        self._version: tuple[int, ...] = ()
        self._next_at = 0.0
        self._blocks: list[Block] = []
        self._drawn: list[_Drawn] = []
        ui.add_head_html(_HEAD)
        ui.query(".nicegui-content").classes("console")
        with ui.element("div").classes("left"):
            self._menu = ui.html(menu(address), sanitize=False)
        with ui.element("main"):
            self._bar = ui.html("", sanitize=False)
            ui.html('<div class="progress" id="progress"><i></i></div>', sanitize=False)
            self._grid = ui.element("div").classes("grid")
            self._foot = ui.html("", sanitize=False)
        ui.on("console_go", self._go)
        ui.on("console_hidden", self._hide)
        self._timer = ui.timer(0.25, self._tick)

    async def _go(self, event: events.GenericEventArguments) -> None:
        """Show another page, or this one with other state."""
        if not isinstance(event.args, str):
            return
        self._address = Address.parse(event.args)
        self._asked += 1
        await self._show()

    def _hide(self, event: events.GenericEventArguments) -> None:
        self._is_hidden = bool(event.args)

    async def _tick(self) -> None:
        """Make the page anew where it is time to."""
        if self._is_busy or not ui.context.client.has_socket_connection:
            return
        now = time.monotonic()
        is_first = not self._blocks
        if not is_first and (self._is_hidden or self._address.is_paused or now < self._next_at):
            return
        version = self._read_version()
        is_live = routes.is_live(self._address.path)
        is_late = now >= self._next_at + IDLE_REFRESH_S - REFRESH_S and not self._address.is_fixed
        if not (is_first or is_live or is_late) and version == self._version:
            return
        self._version = version
        await self._show()

    def _read_version(self) -> tuple[int, ...]:
        return tuple(
            number
            for count in self._source.store.counts().values()
            for number in (count.received, count.stored)
        )

    async def _show(self) -> None:
        asked, address = self._asked, self._address
        self._is_busy = True
        began = time.monotonic()
        try:
            made = await run.io_bound(self._make, address)
        finally:
            self._is_busy = False
        took = time.monotonic() - began
        self._next_at = time.monotonic() + max(REFRESH_S, took * REST)
        if made is None or asked != self._asked:  # the server stops; or somebody went on meanwhile
            return
        blocks, top, now_ns = made
        self._menu.set_content(menu(address))
        self._bar.set_content(top)
        self._draw(blocks)
        counts = self._source.store.counts()
        self._foot.set_content(foot(counts, took, now_ns, is_paused=address.is_paused))
        ui.run_javascript(f"window.consoleShown && consoleShown({json.dumps(routes.title_at(address.path))})")

    def _make(self, address: Address) -> tuple[list[Block], str, int]:
        """Ask the store and make the blocks; in a thread, since it may take its time."""
        now_ns = time.time_ns()
        scope = address.scope(now_ns)
        source = self._source
        try:
            top = bar(address, routes.title_at(address.path), scope, processes(source.store))
            request = Request(source.store, address, scope, source.links, source.endpoint)
            return routes.page_at(address.path)(request), top, now_ns
        except StoreError:
            return [Html(empty("The store was closed"))], "", now_ns
        except Exception as error:
            _LOG.exception("the page %s failed", address.path)
            told = empty("This page failed", "The console's log tells more: ", tag("code", repr(error)[:500]))
            return [Html(told)], bar(address, routes.title_at(address.path), scope, ()), now_ns

    def _draw(self, blocks: Sequence[Block]) -> None:
        """Change what differs; build all anew where the page is made of other things than before."""
        if [_shape(block) for block in blocks] != [_shape(block) for block in self._blocks]:
            self._grid.clear()
            with self._grid:
                self._drawn = [_build(block) for block in blocks]
        else:
            for drawn, block, before in zip(self._drawn, blocks, self._blocks, strict=True):
                if block != before:
                    _change(drawn, block)
        self._blocks = list(blocks)


def _shape(block: Block) -> tuple[Any, ...]:
    if isinstance(block, Chart):
        return ("chart", block.title, block.note, block.width, block.height)
    return ("html", block.width)


def _build(block: Block) -> _Drawn:
    if isinstance(block, Html):
        return ui.html(block.content, sanitize=False).classes(f"w{block.width}")
    with ui.element("section").classes(f"panel chart w{block.width}"):
        note = tag("small", block.note) if block.note else None
        ui.html(tag("h3", block.title, " ", note), sanitize=False)
        chart = ui.echart(dict(block.options), on_point_click=_follow)
        return chart.style(f"height:{block.height}px")


def _change(drawn: _Drawn, block: Block) -> None:
    if isinstance(block, Html) and isinstance(drawn, ui.html):
        drawn.set_content(block.content)
    elif isinstance(block, Chart) and isinstance(drawn, ui.echart):
        drawn.options.clear()
        drawn.options.update(block.options)
        drawn.update()


def _follow(event: events.EChartPointClickEventArguments) -> None:
    """Go where a point of a chart leads; only to pages of ours."""
    href = event.data.get("href") if isinstance(event.data, dict) else None
    if isinstance(href, str) and href.startswith("/") and not href.startswith("//"):
        ui.run_javascript(f"consoleGo({json.dumps(href)})")


_HEAD = f"""
<link rel="stylesheet" href="{STATIC_PATH}/console.css">
<script src="{STATIC_PATH}/console.js" defer></script>
"""
