"""Text for a terminal: durations, widths, bars."""

from __future__ import annotations

import io

import pytest

from otel_concurrency.console.text import Style, bar, clean, columns, count, duration, fit


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 ns"),
        (4e-9, "4 ns"),
        (999.4e-9, "999 ns"),
        (999.6e-9, "1.00 µs"),
        (1.234e-6, "1.23 µs"),
        (12.34e-6, "12.3 µs"),
        (123.4e-6, "123 µs"),
        (0.0009996, "1.00 ms"),
        (0.00999, "9.99 ms"),
        (0.00999999, "10.0 ms"),
        (0.0999999, "100 ms"),
        (0.342, "342 ms"),
        (0.99999, "1.00 s"),
        (61.5, "61.5 s"),
        (4321.0, "4321 s"),
        (None, "-"),
        (float("nan"), "-"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_count_has_its_thousands_apart() -> None:
    assert [count(number) for number in (0, 999, 1234567, None)] == ["0", "999", "1,234,567", "-"]


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("漢字漢字", 8, "漢字漢字"),
        ("漢字漢字", 7, "漢字漢…"),
        ("漢字漢字", 6, "漢字… "),
        ("e\u0301tude", 5, "e\u0301tude"),
    ],
)
def test_text_is_cut_or_padded_to_its_columns(text: str, width: int, fitted: str) -> None:
    assert fit(text, width) == fitted
    assert columns(fitted) == width


def test_the_end_of_a_name_can_be_what_is_kept() -> None:
    assert fit("package.module.function", 10, keep_end=True) == "….function"[-10:]


def test_what_would_move_the_cursor_is_gone() -> None:
    assert clean("a\x1b[2J\r\nb\x9b\u202ec\u2028d") == "a [2J  b  c d"


@pytest.mark.parametrize(
    ("start", "end", "drawn"),
    [
        (0.0, 1.0, "████████"),
        (0.5, 1.0, "    ████"),
        (0.25, 0.25, "  ▏     "),
        (1.0, 1.0, "       ▏"),
        (-1.0, 2.0, "████████"),
        (0.0, 0.0625, "▌       "),
    ],
)
def test_a_bar_shows_when(start: float, end: float, drawn: str) -> None:
    assert bar(start, end, 8) == drawn


def test_without_unicode_our_glyphs_are_ascii() -> None:
    drawn = "├─ └─ │ ✗ · … 5 µs ███▏▎▍▌▋▊▉ é"
    assert Style(is_unicode=True).finish(drawn) == drawn
    finished = Style(is_unicode=False).finish(drawn)
    assert finished == "|- `- | ! * ~ 5 us ###------- é"
    assert len(finished) == len(drawn)


class Terminal(io.StringIO):
    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Style.of(Terminal("UTF-8")) == Style(is_unicode=True, has_colour=True)
    assert Style.of(Terminal("ascii")) == Style(is_unicode=False, has_colour=True)
    assert Style.of(io.StringIO()) == Style(is_unicode=False, has_colour=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert Style.of(Terminal("utf8")) == Style(is_unicode=True, has_colour=False)
