"""Every page, without a browser: over nothing, over telemetry of all kinds, and over hostile telemetry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from otel_concurrency.console import Store
from otel_concurrency.console.live import Live
from otel_concurrency.console.pages.address import Address
from otel_concurrency.console.pages.blocks import Block, Chart, Html, Links, Request
from otel_concurrency.console.pages.frame import bar, menu
from otel_concurrency.console.pages.routes import ROUTES, page_at
from otel_concurrency.console.queries.services import processes
from otel_concurrency.snapshot import Snapshot
from otel_concurrency.snapshot.live import (
    ConnectionHolder,
    LiveExecutor,
    LiveLock,
    LiveLoop,
    LivePool,
    LiveQueue,
    LiveThread,
)
from otel_concurrency.snapshot.live_tasks import Deadlock, Edge, FramePlace, LiveTask, Wait
from tests.console.telling import SECOND, T0, TRACE, Teller

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`${x}{{x}}\u202e\x00"
RANGE = f"from={T0 - SECOND}&to={T0 + 60 * SECOND}"
ADDRESSES = [
    *(f"{route.path}?{RANGE}" for route in ROUTES),
    f"/trace/{TRACE}?{RANGE}&span=1111111111111111",
    f"/trace/{TRACE}?{RANGE}&view=lanes",
    f"/traces?{RANGE}&q=alert&name=script&least=1&order=slowest",
    f"/tasks?{RANGE}&sort=p99&focus=FOCUS",
    f"/metrics?{RANGE}&metric=asyncio.task.duration&by=code.function.name",
    f"/metrics?{RANGE}&metric=asyncio.task.created&by=code.function.name",
    f"/metrics?{RANGE}&metric=marvin&by=marvin",
    f"/logs?{RANGE}&focus=0&severity=info",
    "/nowhere",
]


def page(store: Store, url: str, live: Sequence[Live] = ()) -> list[Block]:
    address = Address.parse(url)
    scope = address.scope(T0 + 60 * SECOND)
    links = Links("http://jaeger", "http://grafana/{trace_id}")
    request = Request(store, address, scope, links, "http://127.0.0.1:4318", lambda asked: list(live))
    return page_at(address.path)(request)


def alive(name: str) -> Live:
    """Return a program that says one of everything, each name in it the same text."""
    place = FramePlace(name, name, 3)
    wait = Wait("lock", target=5, target_name=name, for_s=1.5)
    tasks = (
        LiveTask(1, name, name, "waiting", wait=wait, frames=(place,), trace_id=TRACE, age_s=2.0),
        LiveTask(2, name, name, "running", is_orphan=True),
    )
    edges = (Edge(1, 2, "lock", 5), Edge(2, 1, "lock", 5))
    return Live(
        name,
        name,
        7,
        Snapshot(
            tasks=tasks,
            edges=edges,
            deadlocks=(Deadlock(edges, (name, name), (name, name), (name, name)),),
            loops=(LiveLoop(0, name, iteration_s=1.0, task=1, coroutine=name),),
            threads=(LiveThread(1, 2, name, state="lock_or_gil", waits_for=name, frames=(place,)),),
            executors=(LiveExecutor(name, "thread", 1, 1, 2, 3),),
            pools=(LivePool("db", name, 1, holders=(ConnectionHolder(name, 1.0),)),),
            locks=(LiveLock(5, "lock", name, waiting=(1,), holders=(2,)),),
            queues=(LiveQueue(6, name, 1, 2, 1),),
        ),
    )


def html(blocks: list[Block]) -> str:
    return "".join(block.content for block in blocks if isinstance(block, Html))


def tell_all(store: Store, name: str) -> None:
    """Tell of one of everything, each name and value in it the same text."""
    shop = Teller(store, name, name, **{"process.pid": 7, name: name})
    loop = {"asyncio.eventloop.id": name, "asyncio.eventloop.type": name}
    of = {"code.function.name": name}
    place = {"asyncio.task.name": name, "thread.name": name, name: name, **of}
    event = {"name": name, "time_ns": T0 + 5, "attributes": {name: name}}
    root = shop.span(
        name,
        span_id="1" * 16,
        kind="server",
        status="error",
        status_message=name,
        attributes=place,
        events=[event],
        links=[{"trace_id": TRACE, "span_id": "1" * 16, "attributes": {name: name}}],
    )
    shop.span(f"asyncio.task {name}", parent_span_id=root, attributes=place)
    for event_name in (name, "asyncio.eventloop.stall.ended", "concurrency.diagnosis.opened"):
        shop.log(
            name,
            event_name=event_name,
            severity=name,
            severity_number=17,
            trace_id=TRACE,
            span_id=root,
            attributes={**place, **loop, "asyncio.eventloop.stall.elapsed": 0.5, "code.file.path": name},
        )
    delta: dict[str, Any] = {"temporality": "delta"}
    for state in ("idle", "active"):
        shop.point(
            "asyncio.eventloop.time", 5, 1.0, attributes={**loop, "asyncio.eventloop.state": state}, **delta
        )
    for metric in ("cpu.time", "runqueue.time", "blocked.time"):
        shop.point(f"asyncio.eventloop.{metric}", 5, 0.3, attributes=loop, **delta)
    shop.histogram("asyncio.eventloop.delay", 5, [1, 2, 3, 4], attributes=loop, **delta)
    for metric in ("created", "busy.time", "steps"):
        shop.point(f"asyncio.task.{metric}", 5, 3.0, attributes=of, **delta)
    shop.point("asyncio.task.completed", 5, 1.0, attributes={**of, "asyncio.task.outcome": "failed"}, **delta)
    exemplar = {"time_ns": T0 + 5, "value": 0.2, "trace_id": TRACE, "span_id": "1" * 16, "attributes": {}}
    for metric in ("duration", "start.delay", "step.duration"):
        shop.histogram(
            f"asyncio.task.{metric}", 5, [1, 2, 3, 4], attributes=of, exemplars=[exemplar], **delta
        )
    shop.point(name, 5, 1.0, unit=name, description=name, attributes={name: name}, **delta)
    waits = {"asyncio.sync.type": "lock", "asyncio.sync.name": name}
    shop.point("asyncio.sync.waiting", 5, 1.0, monotonic=False, attributes=waits)
    shop.histogram("asyncio.sync.wait.duration", 5, [1, 2, 3, 4], attributes=waits, **delta)


class Tags(HTMLParser):
    """Collects the elements and attributes that a browser would make."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(key, value or "") for key, value in attrs]


def keys_of(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


@pytest.mark.parametrize("url", ADDRESSES)
def test_over_nothing_a_page_says_what_to_do(store: Store, url: str) -> None:
    assert 'class="empty"' in html(page(store, url))


@pytest.mark.parametrize("url", ADDRESSES)
def test_what_was_received_becomes_no_markup_and_no_script(store: Store, url: str) -> None:
    tell_all(store, HOSTILE)
    blocks = page(store, url.replace("FOCUS", "x"), [alive(HOSTILE), Live(HOSTILE, "", 8, None, HOSTILE)])
    address = Address.parse(url)
    frame = bar(address, "title", address.scope(T0), processes(store)) + menu(address)

    found = Tags()
    found.feed(html(blocks) + frame)
    assert found.tags.isdisjoint({"script", "img", "iframe", "object", "style", "base", "link"})
    assert not [key for key, _ in found.attributes if key.startswith("on")]
    hrefs = [value for key, value in found.attributes if key in ("href", "data-href", "action")]
    assert [href for href in hrefs if not href.startswith(("/", "http://jaeger/", "http://grafana/"))] == []
    assert [href for href in hrefs if href.startswith("//")] == []
    options = [block.options for block in blocks if isinstance(block, Chart)]
    assert HOSTILE not in set(keys_of(options))
    json.dumps(options, allow_nan=False)


@pytest.mark.parametrize("url", [url for url in ADDRESSES if url != "/nowhere" and "q=" not in url])
def test_with_telemetry_every_page_shows_some(store: Store, url: str) -> None:
    tell_all(store, "marvin")
    url = url.replace("FOCUS", "marvin:marvin")

    blocks = page(store, url, [alive("marvin")])
    assert "marvin" in html(blocks) + json.dumps([it.options for it in blocks if isinstance(it, Chart)])


def test_an_address_is_what_its_url_says() -> None:
    address = Address.parse("/traces?q=a%26b&service=x&service=y&range=5m")

    assert (address.get("q"), address.all("service")) == ("a&b", ("x", "y"))
    assert address.to("/tasks", focus="f") == "/tasks?service=x&service=y&range=5m&focus=f"
    assert address.with_(q=None) == "/traces?service=x&service=y&range=5m"
    assert str(Address.parse(str(address))) == str(address)


@pytest.mark.parametrize(
    ("query", "length"),
    [("", 1800), ("range=5m", 300), ("range=nonsense", 1800), ("from=5&to=x", 1800), ("from=9&to=9", 1e-9)],
)
def test_a_range_is_never_empty(query: str, length: float) -> None:
    assert Address.parse(f"/?{query}").scope(T0).length_s == pytest.approx(length)
