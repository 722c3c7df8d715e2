"""Tables of text: as wide as what is in them, and as the terminal allows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from otel_concurrency.console.text import Style, clean, columns, fit

_GAP = "  "
_MIN_WIDTH = 60


def width_now() -> int:
    """Return the columns of the terminal; 110 where there is none."""
    return max(_MIN_WIDTH, shutil.get_terminal_size((110, 40)).columns)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Style,
    *,
    numbers: frozenset[str] = frozenset(),
    give: str = "",
    width: int | None = None,
) -> list[str]:
    """Return the lines of a table.

    Args:
        header: One title a column.
        rows: Cells; any text, of any sender.
        style: What the output can show.
        numbers: Titles of the columns that stand right.
        give: Title of the column that is cut where the line is too long, at its start.
        width: Columns of the terminal.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max([columns(title), *(columns(row[at]) for row in cells)]) for at, title in enumerate(header)]
    over = sum(widths) + len(_GAP) * (len(header) - 1) - (width or width_now())
    if over > 0 and give in header:
        at = list(header).index(give)
        widths[at] = max(columns(give), 12, widths[at] - over)
    lines = [style.bold(_line(header, header, widths, numbers, ""))]
    lines += (_line(row, header, widths, numbers, give) for row in cells)
    return [style.finish(line.rstrip()) for line in lines]


def _line(
    row: Sequence[str], header: Sequence[str], widths: Sequence[int], numbers: frozenset[str], give: str
) -> str:
    cells = []
    for cell, title, width in zip(row, header, widths, strict=True):
        missing = width - columns(cell)
        if title in numbers and missing > 0:
            cells.append(" " * missing + cell)
        else:
            cells.append(fit(cell, width, keep_end=title == give))
    return _GAP.join(cells)
