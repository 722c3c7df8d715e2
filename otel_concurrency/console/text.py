"""Text for a terminal: cells, durations, bars, and colour where there is a terminal to show it."""

from __future__ import annotations

import math
import os
import unicodedata
from dataclasses import dataclass
from typing import TextIO

WIDTH = 110
"""Columns of everything printed."""

_ASCII = str.maketrans("─│├└✗·…µ█▏▎▍▌▋▊▉", "-||`!*~u#-------")


@dataclass(frozen=True, slots=True)
class Style:
    """What the output can show.

    Attributes:
        is_unicode: Whether it has lines and blocks, or only ASCII.
        has_colour: Whether escape sequences are understood.
    """

    is_unicode: bool = True
    has_colour: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        """Return what a stream can show; `NO_COLOR` is respected."""
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        return cls(encoding.startswith("utf"), stream.isatty() and not os.environ.get("NO_COLOR"))

    def bold(self, text: str) -> str:
        """Return text that stands out."""
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        """Return text that stands back."""
        return self._wrap("2", text)

    def red(self, text: str) -> str:
        """Return text that warns."""
        return self._wrap("31", text)

    def cyan(self, text: str) -> str:
        """Return text that measures."""
        return self._wrap("36", text)

    def finish(self, text: str) -> str:
        """Return a drawing as the output can show it: without Unicode, our own glyphs become ASCII ones."""
        return text if self.is_unicode else text.translate(_ASCII)

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.has_colour else text


def branch(is_last: bool) -> str:
    """Return the line that leads to a child."""
    return "└─ " if is_last else "├─ "


def trunk(is_last: bool) -> str:
    """Return the line beside a child's own lines."""
    return "   " if is_last else "│  "


def bar(start: float, end: float, width: int) -> str:
    """Return a bar from one share of the width to another, at least a sliver long."""
    first = min(int(max(0.0, start) * width), width - 1)
    eighths = max(1, round((min(max(0.0, end), 1.0) - max(0.0, start)) * width * 8))
    full, rest = divmod(min(eighths, (width - first) * 8), 8)
    return fit(" " * first + "█" * full + ("", *"▏▎▍▌▋▊▉")[rest], width)


def clean(text: str) -> str:
    """Return text that moves no cursor: control characters, which any sender can send, become spaces."""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text)


def columns(text: str) -> int:
    """Count the columns that text takes; East Asian wide characters take two, combining ones none."""
    return sum(_columns(char) for char in text)


def fit(text: str, width: int, *, keep_end: bool = False) -> str:
    """Return text cut or padded to a width; what is cut leaves an ellipsis.

    Args:
        text: Clean text, without colour.
        width: Columns.
        keep_end: Cut at the start: the end of a qualified name tells more.
    """
    missing = width - columns(text)
    if missing >= 0:
        return text + " " * missing
    kept: list[str] = []
    left = width - 1
    for char in reversed(text) if keep_end else text:
        if _columns(char) > left:
            break
        left -= _columns(char)
        kept.append(char)
    cut = "…" + "".join(reversed(kept)) if keep_end else "".join(kept) + "…"
    return cut + " " * left


def duration(seconds: float | None) -> str:
    """Return a duration in three digits and its unit; a hyphen for none."""
    if seconds is None or math.isnan(seconds):
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale * 0.9995:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def count(number: int | None) -> str:
    """Return a count with thousands apart; a hyphen for none."""
    return "-" if number is None else f"{number:,}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
