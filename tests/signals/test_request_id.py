"""Ids of requests: taken in by a propagator, carried by OpenTelemetry's context, told by what is recorded."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import DefaultGetter, Getter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import otel_concurrency
from otel_concurrency.signals import carriers, request_id
from otel_concurrency.signals.logs import IdentityLogRecordProcessor
from otel_concurrency.signals.spans import IdentitySpanProcessor

MADE = re.compile(r"[0-9a-f]{32}")


class ServerGetter(Getter[Mapping[str, list[str]]]):
    """As those of web frameworks: several values a header."""

    def get(self, carrier: Mapping[str, list[str]], key: str) -> list[str] | None:
        return carrier.get(key)

    def keys(self, carrier: Mapping[str, list[str]]) -> list[str]:
        return list(carrier)


SERVER = ServerGetter()


@pytest.fixture(autouse=True)
def _own_propagator() -> Iterator[None]:
    """Each test with a global propagator of its own, and in a context of its own."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator()]))
    token = context.attach(Context())
    yield
    context.detach(token)
    propagate.set_global_textmap(before)


@pytest.fixture
def installed() -> Iterator[None]:
    leave = request_id.install("x-request-id", in_baggage=False)
    yield
    leave()


def served(headers: Mapping[str, list[str]], within: Context | None = None) -> str | None:
    return request_id.request_id_in(propagate.extract(headers, within, SERVER))


@pytest.mark.usefixtures("installed")
def test_the_header_is_taken() -> None:
    assert served({"x-request-id": ["order-7"]}) == "order-7"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("said", [[], [""], ["two words"], ["line\nbreak"], ["grün"], ["x" * 129]])
def test_without_a_usable_header_one_is_made(said: list[str]) -> None:
    made = {served({"x-request-id": said}) for _ in range(100)}
    assert len(made) == 100
    assert all(MADE.fullmatch(str(each)) for each in made)


@pytest.mark.usefixtures("installed")
def test_a_request_inside_a_request_keeps_its_id_unless_it_has_one_of_its_own() -> None:
    outer = propagate.extract({"x-request-id": ["outer"]}, getter=SERVER)
    assert served({}, outer) == "outer"
    assert served({"x-request-id": ["inner"]}, outer) == "inner"


@pytest.mark.usefixtures("installed")
def test_a_plain_dict_is_no_request_but_may_carry_an_id() -> None:
    assert request_id.request_id_in(propagate.extract({})) is None
    assert request_id.request_id_in(propagate.extract({"x-request-id": "order-7"})) == "order-7"


@pytest.mark.usefixtures("installed")
def test_a_getter_that_fails_costs_the_id_and_nothing_else() -> None:
    class Failing(DefaultGetter):
        def get(self, carrier: Any, key: str) -> list[str] | None:
            if key == "x-request-id":
                raise LookupError(key)
            return super().get(carrier, key)

    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    extracted = propagate.extract({"traceparent": traceparent}, getter=Failing())
    assert trace.get_current_span(extracted).get_span_context().trace_id == int("1" * 32, 16)
    assert request_id.request_id_in(extracted) is None


@pytest.mark.usefixtures("installed")
def test_nothing_goes_out_by_itself() -> None:
    context.attach(propagate.extract({"x-request-id": ["order-7"]}, getter=SERVER))
    headers: dict[str, str] = {}
    propagate.inject(headers)
    assert headers == {}
    assert baggage.get_all() == {}


def test_it_goes_out_in_baggage_where_that_is_asked_for_and_comes_in_by_it() -> None:
    leave = request_id.install("x-request-id", in_baggage=True)
    try:
        found = propagate.extract({"x-request-id": ["order-7"]}, getter=SERVER)
        assert baggage.get_all(found) == {"request_id": "order-7"}
        told = baggage.set_baggage("request_id", "order-8", Context())
        assert served({}, told) == "order-8"
        otel_concurrency.set_request_id("order-9")
        assert baggage.get_all() == {"request_id": "order-9"}
    finally:
        leave()


def test_leaving_leaves_the_propagator_as_it_was() -> None:
    composite = propagate.get_global_textmap()
    before = list(composite._propagators)  # type: ignore[attr-defined]
    leave = request_id.install("x-request-id", in_baggage=False)
    assert propagate.get_global_textmap() is composite
    leave()
    assert composite._propagators == before  # type: ignore[attr-defined]
    single = TraceContextTextMapPropagator()
    propagate.set_global_textmap(single)
    leave = request_id.install("x-request-id", in_baggage=False)
    assert propagate.get_global_textmap().fields == single.fields
    assert served({"x-request-id": ["order-7"]}) == "order-7"
    leave()
    assert propagate.get_global_textmap() is single


def test_a_propagator_that_the_program_sets_later_is_joined_too() -> None:
    first = propagate.get_global_textmap()
    set_before_us = propagate.set_global_textmap
    leave = request_id.install("x-request-id", in_baggage=False)
    composite = CompositePropagator([TraceContextTextMapPropagator()])
    single = TraceContextTextMapPropagator()
    for theirs in (composite, single, composite, first):
        propagate.set_global_textmap(theirs)
        assert served({"x-request-id": ["order-7"]}) == "order-7"
        propagate.set_global_textmap(propagate.get_global_textmap())  # as who puts back what was there
        assert repr(vars(propagate.get_global_textmap())).count("RequestIdPropagator") == 1
        assert propagate.get_global_textmap().fields == theirs.fields
    propagate.set_global_textmap(http_text_format=single)
    leave()
    assert (propagate.get_global_textmap(), propagate.set_global_textmap) == (single, set_before_us)
    assert [len(each._propagators) for each in (composite, first)] == [1, 1]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("installed")
def test_what_is_no_propagator_is_the_programs_own_trouble() -> None:
    nothing: Any = None
    propagate.set_global_textmap(nothing)
    assert propagate.get_global_textmap() is None


@pytest.mark.usefixtures("installed")
def test_carriers_between_our_own_processes_have_it() -> None:
    for said in ("order-7", "order-8"):
        token = context.attach(propagate.extract({"x-request-id": [said]}, getter=SERVER))
        carrier = carriers.capture()
        context.detach(token)
        assert carrier == {"x-request-id": said}
        assert request_id.request_id_in(carriers.extract(carrier)) == said
    assert carriers._is_pure(propagate.get_global_textmap())
    assert request_id.request_id_in(carriers.extract({"traceparent": "broken"})) is None


class Recorded:
    """Spans and log records, and the id that each of them carries."""

    def __init__(self) -> None:
        self.ids: list[object] = []
        self.spans = TracerProvider(shutdown_on_exit=False)
        self.spans.add_span_processor(IdentitySpanProcessor())
        self.tracer = self.spans.get_tracer("app")
        self.exporter = InMemoryLogRecordExporter()
        self.logs = LoggerProvider(shutdown_on_exit=False)
        self.logs.add_log_record_processor(IdentityLogRecordProcessor())
        self.logs.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        self.logger = self.logs.get_logger("app")

    def record(self) -> None:
        """Start a span, log within it, and note both ids."""
        with self.tracer.start_as_current_span("work") as span:
            self.logger.emit(body="hello")
        log = self.exporter.get_finished_logs()[-1].log_record.attributes or {}
        told = getattr(span, "attributes", None) or {}
        self.ids.append((told.get("request_id"), log.get("request_id")))


@pytest.mark.usefixtures("installed")
def test_spans_and_log_records_of_the_request_carry_it_wherever_its_context_goes() -> None:
    recorded = Recorded()

    async def serve(said: str) -> None:
        token = context.attach(propagate.extract({"x-request-id": [said]}, getter=SERVER))
        recorded.record()
        await asyncio.create_task(asyncio.to_thread(recorded.record))
        context.detach(token)
        recorded.record()

    asyncio.run(serve("order-7"))
    assert recorded.ids == [("order-7", "order-7"), ("order-7", "order-7"), (None, None)]


@pytest.mark.usefixtures("installed")
def test_a_span_that_is_given_a_context_is_of_that_contexts_request() -> None:
    recorded = Recorded()
    context.attach(propagate.extract({"x-request-id": ["order-7"]}, getter=SERVER))
    span: Any = recorded.tracer.start_span("own trace", context=Context())
    assert "request_id" not in span.attributes


@pytest.mark.usefixtures("installed")
def test_the_program_may_look_and_give_another_one() -> None:
    recorded = Recorded()
    assert otel_concurrency.get_request_id() is None
    token = context.attach(propagate.extract({"x-request-id": ["order-7"]}, getter=SERVER))
    assert otel_concurrency.get_request_id() == "order-7"
    span: Any = recorded.tracer.start_span("request")
    with trace.use_span(span):
        otel_concurrency.set_request_id("ticket-9")
        recorded.record()
    assert span.attributes["request_id"] == "ticket-9"
    assert recorded.ids == [("ticket-9", "ticket-9")]
    context.detach(token)
    assert otel_concurrency.get_request_id() is None


def test_work_that_is_no_request_may_have_one() -> None:
    """Also where nobody looks at headers."""
    seen = []

    def job() -> None:
        otel_concurrency.set_request_id("nightly")
        seen.append(otel_concurrency.get_request_id())

    thread = threading.Thread(target=job)
    thread.start()
    thread.join(10)
    assert seen == ["nightly"]
    assert otel_concurrency.get_request_id() is None


@pytest.mark.parametrize("value", ["", "two words", "x" * 129, 7])
def test_an_id_that_cannot_stand_in_a_log_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is no request id: 1 to 128 visible ASCII characters"):
        otel_concurrency.set_request_id(value)
