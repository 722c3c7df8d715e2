"""What the store holds, on one page: the slowest trace, the task table, and the counts."""

from __future__ import annotations

from collections.abc import Sequence

from otel_concurrency.console.store import Store
from otel_concurrency.console.task_table import TaskLine, read_tasks
from otel_concurrency.console.task_view import draw_tasks
from otel_concurrency.console.text import WIDTH, Style, count
from otel_concurrency.console.trace_tree import read_trace, slowest_trace_id
from otel_concurrency.console.trace_view import draw_trace

_NAMES = {"spans": "spans", "logs": "log records", "metric_points": "data points"}


def draw_overview(store: Store, style: Style, *, tasks: Sequence[TaskLine] | None = None) -> str:
    """Return the page.

    Args:
        store: What to show.
        style: What the output can show.
        tasks: The task table, if it was read at another moment; otherwise it is read now.
    """
    parts = [_title("Slowest trace", style)]
    trace_id = slowest_trace_id(store)
    parts.append(draw_trace(read_trace(store, trace_id), style) if trace_id else "No spans were received.")
    parts.append("\n" + _title("Tasks by coroutine", style))
    parts.append(draw_tasks(read_tasks(store) if tasks is None else tasks, style))
    parts.append("\n" + draw_counts(store, style))
    return "\n".join(parts)


def draw_counts(store: Store, style: Style) -> str:
    """Return a sentence on what was received, and one on what was lost, if anything was."""
    counts = store.counts()
    received = ", ".join(f"{count(counts[table].received)} {name}" for table, name in _NAMES.items())
    lines = [f"Received: {received}."]
    for loss in ("evicted", "rejected"):
        lost = [
            f"{count(number)} {name}"
            for table, name in _NAMES.items()
            if (number := getattr(counts[table], loss))
        ]
        if lost:
            why = "to make room" if loss == "evicted" else "because they were malformed"
            lines.append(style.red(f"Dropped {why}: {', '.join(lost)}."))
    return "\n".join(lines)


def _title(text: str, style: Style) -> str:
    return style.finish(f"{style.bold(text)} {style.dim('─' * (WIDTH - len(text) - 1))}")
