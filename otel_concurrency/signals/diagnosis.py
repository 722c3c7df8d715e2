"""Findings as OpenTelemetry hears of them: log events, a gauge and a counter, and an event on open requests.

All is said by the thread that judges.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.diagnosis.course import News
from otel_concurrency.diagnosis.evidence import MAX_TRACES
from otel_concurrency.diagnosis.finding import Finding
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import GaugeReading, Labels, Reading, SumReading
from otel_concurrency.signals.stand_in import seen_ids

MAX_REQUESTS = 100
"""Open requests that are told of a finding."""

_EVENTS = {
    "opened": names.DIAGNOSIS_OPENED,
    "updated": names.DIAGNOSIS_UPDATED,
    "closed": names.DIAGNOSIS_CLOSED,
}
_SEVERITIES = {"info": SeverityNumber.INFO, "warn": SeverityNumber.WARN, "crit": SeverityNumber.ERROR}

Requests = Callable[[], Iterable[Span]]


def trace_of(origin: object) -> str:
    """Return the id of the trace that a value of the origin variable is in, or empty."""
    if not isinstance(origin, Context):
        return ""
    trace_id = seen_ids(trace.get_current_span(origin)).trace_id
    return f"{trace_id:032x}" if trace_id else ""


class DiagnosisReports:
    """Tells of findings, and is a source with their numbers.

    Args:
        requests: Returns the spans of requests that are open.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, requests: Requests, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._requests = requests
        self._clock = clock
        self.begin()

    def __repr__(self) -> str:
        return f"<DiagnosisReports [{sum(self._detections.values())} findings]>"

    def begin(self) -> None:
        """Start at nothing: at first, and again in a forked child."""
        self.start_unix_ns = self._clock()
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], str] = {}
        self._known: set[tuple[str, str]] = set()  # rule and severity: what was 1 is 0 later, not gone
        self._detections: dict[str, int] = {}

    def told(self, news: list[News]) -> None:
        """Tell of what is new; see `engine.Listener`."""
        for change, finding in news:
            if change == "opened":
                finding = self._tell_requests(finding)
            self._count(change, finding)
            self._emit(change, finding)

    def collect(self) -> Iterable[Reading]:
        """Read the numbers."""
        with self._lock:
            open_ones = {(rule, severity) for (rule, _), severity in self._open.items()}
            active: list[tuple[Labels, int]] = [
                (
                    {names.DIAGNOSIS_RULE: rule, names.DIAGNOSIS_SEVERITY: severity},
                    int((rule, severity) in open_ones),
                )
                for rule, severity in sorted(self._known)
            ]
            detections: list[tuple[Labels, int]] = [
                ({names.DIAGNOSIS_RULE: rule}, count) for rule, count in self._detections.items()
            ]
        return [
            GaugeReading(names.DIAGNOSIS_ACTIVE, active),
            SumReading(names.DIAGNOSIS_DETECTIONS, detections),
        ]

    def _count(self, change: str, finding: Finding) -> None:
        with self._lock:
            if change == "opened":
                self._detections[finding.rule] = self._detections.get(finding.rule, 0) + 1
            if change == "closed":
                self._open.pop(finding.key, None)
            else:
                self._open[finding.key] = finding.severity
                self._known.add((finding.rule, finding.severity))

    def _tell_requests(self, finding: Finding) -> Finding:
        """Add the event to requests that are open; returns the finding with their traces."""
        attributes: dict[str, AnyValue] = {
            names.DIAGNOSIS_RULE: finding.rule,
            names.DIAGNOSIS_SEVERITY: finding.severity,
            names.DIAGNOSIS_SENTENCE: finding.sentence,
        }
        traces = list(finding.traces)
        for number, span in enumerate(self._requests()):
            if number == MAX_REQUESTS:
                break
            if span.is_recording():
                span.add_event(names.DIAGNOSIS_SPAN_EVENT, attributes)
                traces.append(f"{span.get_span_context().trace_id:032x}")
        return replace(finding, traces=tuple(dict.fromkeys(traces))[:MAX_TRACES])

    def _emit(self, change: str, finding: Finding) -> None:
        severity = _SEVERITIES["info" if change == "closed" else finding.severity]
        get_logger(names.SCOPE_NAME, __version__).emit(
            timestamp=finding.seen_unix_ns or self._clock(),
            observed_timestamp=self._clock(),
            context=Context(),
            severity_number=severity,
            severity_text=severity.name,
            body=finding.sentence,
            event_name=_EVENTS[change],
            attributes=_attributes(finding),
        )


def _attributes(finding: Finding) -> dict[str, AnyValue]:
    culprit = finding.culprit
    told: tuple[tuple[str, AnyValue], ...] = (
        (names.DIAGNOSIS_RULE, finding.rule),
        (names.DIAGNOSIS_SEVERITY, finding.severity),
        (names.DIAGNOSIS_SUBJECT, finding.subject),
        (names.DIAGNOSIS_BOTTLENECK, finding.bottleneck),
        (names.DIAGNOSIS_CULPRIT, str(culprit)),
        (names.DIAGNOSIS_ADVICE, finding.advice),
        (names.DIAGNOSIS_EVIDENCE, json.dumps([asdict(each) for each in finding.evidence])),
        (names.DIAGNOSIS_CONFIDENCE, finding.confidence),
        (names.DIAGNOSIS_SUPPRESSED, list(finding.suppressed)),
        (names.DIAGNOSIS_TRACES, list(finding.traces)),
        (names.CODE_FUNCTION_NAME, culprit.function),
        (names.CODE_FILE_PATH, culprit.file),
        (names.CODE_LINE_NUMBER, culprit.line),
        (names.CODE_STACKTRACE, "\n".join(finding.stacks[0].frames) if finding.stacks else ""),
    )
    return {key: value for key, value in told if value}
