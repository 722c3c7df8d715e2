"""A trace as a tree, and drawn: its shape, its logs, and the traces that would break a naive reader."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_concurrency.console import Store
from otel_concurrency.console.log_rows import log_batch
from otel_concurrency.console.span_rows import span_batch
from otel_concurrency.console.text import WIDTH, Style, columns
from otel_concurrency.console.trace_tree import SpanNode, Trace, read_trace, slowest_trace_id
from otel_concurrency.console.trace_view import draw_trace
from tests.console.conftest import TRACE_ID, pairs, trace_request

MS = 1_000_000
PLAIN = Style(is_unicode=True, has_colour=False)
ASCII = Style(is_unicode=False, has_colour=False)


def add_spans(store: Store, *spans: dict[str, Any], service: str = "shop") -> None:
    batch = span_batch(trace_request(*spans, service=service), 0, 10_000)
    assert batch.rejection == ""
    store.insert(batch)


def span(number: int, parent: int, start_ms: float, end_ms: float, **fields: Any) -> dict[str, Any]:
    ids = {
        "span_id": number.to_bytes(8, "big"),
        "parent_span_id": parent.to_bytes(8, "big") if parent else b"",
    }
    times = {"start_time_unix_nano": int(start_ms * MS), "end_time_unix_nano": int(end_ms * MS)}
    return ids | times | {"name": f"span {number}"} | fields


def add_log(store: Store, at_ms: float, text: str, *, span_number: int, severity: str = "INFO") -> None:
    request = ExportLogsServiceRequest()
    record = (
        request.resource_logs.add()
        .scope_logs.add()
        .log_records.add(
            time_unix_nano=int(at_ms * MS),
            severity_text=severity,
            trace_id=TRACE_ID,
            span_id=span_number.to_bytes(8, "big"),
        )
    )
    record.body.string_value = text
    store.insert(log_batch(request, 0, 10))


def the_trace(store: Store) -> Trace:
    return read_trace(store, TRACE_ID.hex())


def shape(nodes: list[SpanNode]) -> list[Any]:
    return [(node.name, shape(node.children)) for node in nodes]


def test_spans_hang_under_their_parents_in_order_of_start(store: Store) -> None:
    add_spans(store, span(3, 1, 30, 40), span(2, 1, 10, 20), service="shop")
    add_spans(store, span(4, 2, 12, 15), service="warehouse")
    add_spans(store, span(1, 0, 0, 100))
    trace = the_trace(store)
    assert shape(trace.roots) == [("span 1", [("span 2", [("span 4", [])]), ("span 3", [])])]
    assert trace.services == ["shop", "warehouse"]
    assert [node.duration_ns for node in trace.roots] == [100 * MS]


def test_spans_whose_parent_was_lost_are_roots(store: Store) -> None:
    add_spans(store, span(2, 9, 0, 5), span(3, 8, 0, 50))
    assert shape(the_trace(store).roots) == [("span 3", []), ("span 2", [])]


def test_a_span_sent_twice_is_one(store: Store) -> None:
    add_spans(store, span(1, 0, 0, 5), span(2, 1, 1, 2))
    add_spans(store, span(1, 0, 0, 5), span(2, 1, 1, 2))
    assert shape(the_trace(store).roots) == [("span 1", [("span 2", [])])]


@pytest.mark.parametrize("extra", [False, True])
def test_spans_in_a_circle_are_still_shown(extra: bool, store: Store) -> None:
    """Nobody should send them, anybody can: each is drawn once, and the drawing ends."""
    add_spans(store, span(1, 2, 0, 5), span(2, 3, 1, 4), span(3, 1, 2, 3), span(7, 7, 0, 1))
    if extra:
        add_spans(store, span(5, 0, 0, 1))
    trace = the_trace(store)
    drawn = draw_trace(trace, PLAIN)
    numbers = [1, 2, 3, 7] + ([5] if extra else [])
    assert [drawn.count(f"span {number} ") for number in numbers] == [
        1 if number != 1 else 2 for number in numbers
    ]
    assert len(trace.spans) == len(numbers)


def test_a_trace_deeper_than_the_stack_is_drawn(store: Store) -> None:
    add_spans(store, *[span(number, number - 1, number, 5000 - number) for number in range(1, 2000)])
    drawn = draw_trace(the_trace(store), PLAIN, max_lines=3000).splitlines()
    assert sum("└─ span" in line for line in drawn) == 1998
    assert max(map(len, drawn)) <= WIDTH


def test_the_slowest_trace_is_that_of_the_longest_root(store: Store) -> None:
    assert slowest_trace_id(store) is None
    add_spans(store, span(1, 9, 0, 900, trace_id=b"\1" * 16))
    assert slowest_trace_id(store) == "01" * 16
    add_spans(store, span(1, 0, 0, 10, trace_id=b"\2" * 16), span(2, 0, 0, 20, trace_id=b"\3" * 16))
    assert slowest_trace_id(store) == "03" * 16


def test_logs_lie_under_their_spans(store: Store) -> None:
    add_spans(store, span(1, 0, 0, 100), span(2, 1, 10, 20))
    add_log(store, 15, "inside", span_number=2)
    add_log(store, 50, "after", span_number=1, severity="ERROR")
    add_log(store, 60, "of a lost span", span_number=77)
    trace = the_trace(store)
    assert [log.text for log in trace.roots[0].logs] == ["after"]
    assert [log.text for log in trace.roots[0].children[0].logs] == ["inside"]
    assert [log.text for log in trace.unplaced_logs] == ["of a lost span"]
    assert trace.log_count == 3


def test_a_client_shows_what_it_asked_for(store: Store) -> None:
    asked = pairs(http_url="http://127.0.0.1:1/reserve/13?x=1")
    add_spans(store, span(1, 0, 0, 1, name="POST", kind=Span.SPAN_KIND_CLIENT, attributes=asked))
    add_spans(
        store, span(2, 1, 0, 1, name="POST /reserve/{item}", kind=Span.SPAN_KIND_SERVER, attributes=asked)
    )
    (root,) = the_trace(store).roots
    assert (root.target, root.children[0].target) == ("/reserve/13", "")


def test_a_problem_is_told(store: Store) -> None:
    event = Span.Event(
        name="exception", attributes=pairs(exception_type="app.SoldOut", exception_message="item 99")
    )
    add_spans(
        store,
        span(1, 0, 0, 5, status={"code": 2, "message": "it broke"}),
        span(2, 1, 1, 2, status={"code": 2}, events=[event, Span.Event(name="other")]),
        span(3, 1, 2, 3, status={"code": 1}),
    )
    root = the_trace(store).roots[0]
    told = [(node.is_error, node.problem) for node in (root, *root.children)]
    assert told == [(True, "it broke"), (True, "app.SoldOut: item 99"), (False, "")]


def a_small_trace(store: Store) -> Trace:
    add_spans(
        store,
        span(1, 0, 0, 100, name="POST /checkout", kind=Span.SPAN_KIND_SERVER),
        span(2, 1, 20, 70, name="POST", kind=Span.SPAN_KIND_CLIENT, status={"code": 2, "message": "refused"}),
        span(4, 1, 80, 80.5, name="last"),
    )
    add_spans(store, span(3, 2, 30, 60, name="漢字 span", kind=Span.SPAN_KIND_SERVER), service="warehouse")
    add_log(store, 10, "first\x1b[31m line\nsecond", span_number=1)
    add_log(store, 50, "getting the ladder", span_number=3)
    add_log(store, 90, "no luck", span_number=1, severity="ERROR")
    return the_trace(store)


DRAWN = """\
shop: POST /checkout  100 ms
trace 0102030405060708090a0b0c0d0e0f10 · 4 spans, 3 log records, shop and warehouse

span                                                     service    kind         time
POST /checkout                                           shop       server     100 ms ████████████████████████
│  · INFO first [31m line second                                             +10.0 ms   ·
├─ POST                                                  shop       client    50.0 ms     ████████████
│  │  ✗ refused
│  └─ 漢字 span                                          warehouse  server    30.0 ms        ███████▎
│        · INFO getting the ladder                                           +50.0 ms             ·
├─ last                                                  shop                  500 µs                    ▏
│  · ERROR no luck                                                           +90.0 ms                      ·
"""


def test_the_tree_is_drawn(store: Store) -> None:
    assert draw_trace(a_small_trace(store), PLAIN) + "\n" == DRAWN


@pytest.mark.parametrize("style", [PLAIN, ASCII, Style(is_unicode=True, has_colour=True)])
def test_no_line_is_wider_than_promised(style: Style, store: Store) -> None:
    add_spans(store, span(9, 1, 1, 2, name="n" * 300), span(8, 9, 1, 2, name="漢" * 300), service="s" * 50)
    add_log(store, 1, "l" * 500, span_number=8)
    drawn = draw_trace(a_small_trace(store), style)
    without_colour = "".join(part.partition("m")[2] for part in ("m" + drawn).split("\x1b["))
    assert ("\x1b[" in drawn) == style.has_colour
    assert max(columns(line) for line in without_colour.splitlines()) <= WIDTH


def test_ascii_is_enough(store: Store) -> None:
    drawn = draw_trace(a_small_trace(store), ASCII)
    assert drawn.replace("漢字", "").isascii()


def test_a_long_trace_ends_with_a_count(store: Store) -> None:
    add_spans(store, span(1, 0, 0, 1000), *[span(number, 1, number, number + 1) for number in range(2, 200)])
    drawn = draw_trace(the_trace(store), PLAIN, max_lines=20).splitlines()
    assert len(drawn) == 4 + 20 + 1
    assert drawn[-1] == "  and 179 more lines"
