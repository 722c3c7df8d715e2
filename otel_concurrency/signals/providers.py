"""The providers of a process: whether they are set, and how ours joins and leaves them.

Public methods everywhere but for one thing: a log record processor that is added late has to go before those
that export, and a `LoggerProvider` only appends (`SynchronousMultiLogRecordProcessor`, SDK 1.45).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import get_tracer_provider

from otel_concurrency.signals.exporting import PoliteExports, SpanEncoding
from otel_concurrency.signals.fork import ForkSafety
from otel_concurrency.signals.logs import IdentityLogRecordProcessor
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.shortcuts import AttributeShortcuts
from otel_concurrency.signals.spans import IdentitySpanProcessor

_Processors = tuple[LogRecordProcessor, ...]

_span_encoding = SpanEncoding()
_polite_exports = PoliteExports()
_shortcuts = AttributeShortcuts()
_fork_safety = ForkSafety()
_span_identity: tuple[TracerProvider, Callable[[], None]] | None = None


def are_set() -> bool:
    """Whether an SDK is set up already: OpenTelemetry lets a process set each provider only once."""
    return (
        isinstance(get_tracer_provider(), TracerProvider)
        or isinstance(get_meter_provider(), MeterProvider)
        or isinstance(get_logger_provider(), LoggerProvider)
    )


def prepare() -> None:
    """Do what is best done before providers are made: in forked children these begin anew in our way."""
    _fork_safety.prepare()


def join(*, log_identity: bool, span_identity: bool) -> None:
    """Give the global providers our metrics and, unless they have it, the identity of spans and log records.

    The OTLP exporters that are loaded by now get our span encoder, and batches that offer the GIL. From now
    on forked children begin anew.
    """
    _fork_safety.install()
    default_producer().attach(get_meter_provider())
    _span_encoding.install()
    _polite_exports.install()
    _shortcuts.install()
    if span_identity:
        _identify_spans()
    provider = get_logger_provider()
    if (
        log_identity
        and isinstance(provider, LoggerProvider)
        and not any(map(_is_ours, _processors(provider)))
    ):
        provider.add_log_record_processor(IdentityLogRecordProcessor())
        processors = _processors(provider)
        _set_processors(provider, (*filter(_is_ours, processors), *_others(processors)))


def leave() -> None:
    """Take all of it out again."""
    global _span_identity
    if _span_identity is not None:
        _span_identity[1]()
        _span_identity = None
    _fork_safety.remove()
    default_producer().detach()
    _span_encoding.remove()
    _polite_exports.remove()
    _shortcuts.remove()
    provider = get_logger_provider()
    if isinstance(provider, LoggerProvider):
        _set_processors(provider, _others(_processors(provider)))


def watch_spans(processor: SpanProcessor, provider: trace.TracerProvider | None = None) -> Callable[[], None]:
    """Let a processor of ours see the spans of a provider; returns what takes it out again.

    Args:
        processor: Ours.
        provider: By default the global one.
    """
    provider = provider or get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return lambda: None
    provider.add_span_processor(processor)

    def leave() -> None:
        chain: Any = getattr(provider, "_active_span_processor", None)
        processors = getattr(chain, "_span_processors", None)
        if isinstance(processors, tuple):
            chain._span_processors = tuple(each for each in processors if each is not processor)

    return leave


def watch_logs(processor: LogRecordProcessor, provider: LoggerProvider) -> Callable[[], None]:
    """Let a processor of ours see the log records of a provider; returns what takes it out again."""
    provider.add_log_record_processor(processor)
    return lambda: _set_processors(
        provider, tuple(each for each in _processors(provider) if each is not processor)
    )


def _identify_spans() -> None:
    global _span_identity
    provider = get_tracer_provider()
    if not isinstance(provider, TracerProvider) or (_span_identity and _span_identity[0] is provider):
        return
    processor = IdentitySpanProcessor()
    take_out = watch_spans(processor)

    def leave() -> None:
        take_out()
        processor.is_on = False  # an SDK that is built differently keeps it

    _span_identity = provider, leave


def _is_ours(processor: LogRecordProcessor) -> bool:
    return isinstance(processor, IdentityLogRecordProcessor)


def _others(processors: _Processors) -> _Processors:
    return tuple(each for each in processors if not _is_ours(each))


def _processors(provider: LoggerProvider) -> _Processors:
    chain = getattr(provider, "_multi_log_record_processor", None)
    processors = getattr(chain, "_log_record_processors", None)
    return processors if isinstance(processors, tuple) else ()


def _set_processors(provider: LoggerProvider, processors: _Processors) -> None:
    if _processors(provider):  # an SDK that is built differently keeps its own order
        chain: Any = provider._multi_log_record_processor
        chain._log_record_processors = processors
