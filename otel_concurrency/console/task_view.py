"""The task table, drawn."""

from __future__ import annotations

from collections.abc import Sequence

from otel_concurrency.console.task_table import TaskLine
from otel_concurrency.console.text import WIDTH, Style, clean, count, duration, fit

MAX_LINES = 40

_NUMBERS = ("live", "created", "failed", "p50", "p99", "busy", "steps")
_NUMBER, _SERVICE = 8, 10
_FUNCTION = WIDTH - _SERVICE - 1 - len(_NUMBERS) * (_NUMBER + 1)

NO_TASK_METRICS = "No task table: no asyncio.task.* metrics came, so the services run without our task probe."


def draw_tasks(lines: Sequence[TaskLine], style: Style, *, max_lines: int = MAX_LINES) -> str:
    """Return the table, at most `WIDTH` columns wide; a sentence where there is nothing to show."""
    if not lines:
        return NO_TASK_METRICS
    titles = [
        fit("coroutine", _FUNCTION),
        fit("service", _SERVICE),
        *(f"{name:>{_NUMBER}}" for name in _NUMBERS),
    ]
    drawn = [style.dim(" ".join(titles)), *(_line(line, style) for line in lines[:max_lines])]
    if len(lines) > max_lines:
        drawn.append(style.dim(f"and {len(lines) - max_lines} more coroutines"))
    drawn.append(
        style.dim("p50 and p99: from creation to end. busy: inside steps. live: created and not yet done.")
    )
    return style.finish("\n".join(drawn))


def _line(line: TaskLine, style: Style) -> str:
    numbers = (
        count(line.live),
        count(line.created),
        count(line.failed),
        duration(line.durations.quantile(0.5)),
        duration(line.durations.quantile(0.99)),
        duration(line.busy_s),
        count(line.steps),
    )
    cells = [f"{number:>{_NUMBER}}" for number in numbers]
    if line.failed:
        cells[2] = style.red(cells[2])
    function = fit(clean(line.function), _FUNCTION, keep_end=True)
    return " ".join((function, fit(clean(line.service), _SERVICE), *cells))
