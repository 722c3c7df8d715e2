"""A trace, drawn: a line a span with its bar on the trace's time line, its log records below it."""

from __future__ import annotations

from collections.abc import Iterator

from otel_concurrency.console.text import WIDTH, Style, bar, branch, clean, duration, fit, trunk
from otel_concurrency.console.trace_tree import LogLine, SpanNode, Trace

MAX_LINES = 80
MAX_DEPTH = 12
"""Levels that are indented; what is deeper stays at this level's place."""

_SERVICE, _KIND, _DURATION, _BAR = 10, 8, 8, 24
_NAME = WIDTH - _SERVICE - _KIND - _DURATION - _BAR - 4


def draw_trace(trace: Trace, style: Style, *, max_lines: int = MAX_LINES) -> str:
    """Return the trace as lines of at most `WIDTH` columns.

    Args:
        trace: A trace with at least one span.
        style: What the output can show.
        max_lines: Lines of spans and log records beyond which the rest is only counted.
    """
    view = _TraceView(trace, style)
    lines = list(view.lines())
    cut = len(lines) - max_lines
    if cut > 0:
        lines[max_lines:] = [style.dim(f"  and {cut} more lines")]
    return style.finish("\n".join((view.heading(), "", view.titles(), *lines)))


class _TraceView:
    def __init__(self, trace: Trace, style: Style) -> None:
        self._trace = trace
        self._style = style
        self._start_ns = min(span.start_ns for span in trace.spans)
        self._length_ns = max(1, max(span.end_ns for span in trace.spans) - self._start_ns)

    def heading(self) -> str:
        """Return what the trace is, in a sentence."""
        root = self._trace.roots[0]
        services = " and ".join(map(clean, self._trace.services))
        counts = f"{len(self._trace.spans)} spans, {self._trace.log_count} log records, {services}"
        title = f"{clean(root.service)}: {clean(root.name)}  {duration(root.duration_ns / 1e9)}"
        facts = fit(f"trace {self._trace.trace_id} · {counts}", WIDTH).rstrip()
        return f"{self._style.bold(fit(title, WIDTH).rstrip())}\n{self._style.dim(facts)}"

    def titles(self) -> str:
        """Return the line above the columns."""
        names = fit("span", _NAME), fit("service", _SERVICE), fit("kind", _KIND), f"{'time':>{_DURATION}}"
        return self._style.dim(" ".join(names))

    def lines(self) -> Iterator[str]:
        """Draw every span and record; a stack of our own, since a trace may be deeper than Python's."""
        pending: list[tuple[SpanNode | LogLine, str, str]] = [(root, "", "") for root in self._trace.roots]
        pending += [(record, "", "") for record in self._trace.unplaced_logs]
        pending.reverse()
        while pending:
            item, lead, below = pending.pop()
            if isinstance(item, LogLine):
                yield self._record(item, lead)
                continue
            yield self._span(item, lead)
            deeper = below if len(below) < 3 * MAX_DEPTH else below[:-3]
            if item.problem:
                yield self._problem(item, deeper + trunk(not item.children))
            pending.extend(reversed(self._below(item, deeper)))

    def _below(self, span: SpanNode, deeper: str) -> list[tuple[SpanNode | LogLine, str, str]]:
        """Return what hangs under a span in the order it happened, each with its lead and its own trunk."""
        items: list[SpanNode | LogLine] = [*span.children, *span.logs]
        items.sort(key=_began_ns)
        last = len(items) - 1
        return [
            (item, deeper + branch(at == last), deeper + trunk(at == last))
            if isinstance(item, SpanNode)
            else (item, deeper + trunk(not span.children), "")
            for at, item in enumerate(items)
        ]

    def _problem(self, span: SpanNode, lead: str) -> str:
        return self._style.red(fit(f"{lead}✗ {clean(span.problem)}", WIDTH).rstrip())

    def _span(self, span: SpanNode, lead: str) -> str:
        style = self._style
        room = _NAME - len(lead)
        name = fit(clean(f"{span.name} {span.target}".rstrip()), room)
        return " ".join(
            (
                style.dim(lead) + (style.red(name) if span.is_error else style.bold(name)),
                fit(clean(span.service), _SERVICE),
                style.dim(fit(span.kind if span.kind != "unspecified" else "", _KIND)),
                f"{duration(span.duration_ns / 1e9):>{_DURATION}}",
                style.cyan(bar(self._share(span.start_ns), self._share(span.end_ns), _BAR)),
            )
        ).rstrip()

    def _record(self, record: LogLine, lead: str) -> str:
        style = self._style
        room = _NAME + _SERVICE + _KIND + 2
        text = fit(f"{lead}· {clean(record.severity)} {clean(record.text)}", room)
        offset = f"+{duration(max(0, record.time_ns - self._start_ns) / 1e9)}"
        point = " " * min(int(max(0.0, self._share(record.time_ns)) * _BAR), _BAR - 1) + "·"
        if record.severity in ("ERROR", "CRITICAL", "FATAL"):
            text = style.red(text)
        return f"{text} {style.dim(f'{offset:>{_DURATION}} {point}')}"

    def _share(self, at_ns: int) -> float:
        return (at_ns - self._start_ns) / self._length_ns


def _began_ns(item: SpanNode | LogLine) -> int:
    return item.time_ns if isinstance(item, LogLine) else item.start_ns
