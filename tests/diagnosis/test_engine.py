"""The engine: when a window ends, what is put on the board, and what becomes of trouble of our own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from otel_concurrency.diagnosis.board import Board, Diagnosis
from otel_concurrency.diagnosis.course import News
from otel_concurrency.diagnosis.engine import Engine
from otel_concurrency.diagnosis.window import FailureNumbers, LoopNumbers, Window

BUSY = Window(ended_unix_ns=10, loops=(LoopNumbers("0", cpu=0.8),))
FAILED = Window(ended_unix_ns=10, failures=(FailureNumbers("task_never_retrieved", "ValueError", 1),))


class FakeMeter:
    """Hands out windows."""

    def __init__(self, windows: Sequence[Window], now: list[float]) -> None:
        self.windows = list(windows)
        self.now = now
        self.began = now[0]
        self.samples = 0

    @property
    def age_ns(self) -> int:
        return int((self.now[0] - self.began) * 1e9)

    def sample(self) -> None:
        self.samples += 1

    def window(self) -> Window:
        self.began = self.now[0]
        return self.windows.pop(0)


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.news: list[tuple[str, str]] = []

    def told(self, news: list[News]) -> None:
        self.news += [(each.change, each.finding.rule) for each in news]


def engine(*windows: Window, window_s: float = 10.0) -> tuple[Engine, Board, Heard, list[float], FakeMeter]:
    now, board, heard = [0.0], Board(), Heard()
    meter: Any = FakeMeter(windows, now)
    return (
        Engine(lambda: meter, board, heard, window_s=window_s, clock=lambda: now[0]),
        board,
        heard,
        now,
        meter,
    )


def test_nobody_judges_before_the_first_tick() -> None:
    judge, board, *_ = engine()
    assert board.now == Diagnosis()
    judge.tick()
    assert (board.now.is_on, board.now.windows, board.now.window_s) == (True, 0, 10.0)


def test_a_window_ends_when_it_is_over_and_is_looked_into_meanwhile() -> None:
    judge, board, heard, now, meter = engine(BUSY, BUSY, BUSY)
    for second in range(31):
        now[0] = float(second)
        judge.tick()
    assert meter.windows == []
    assert meter.samples == 31
    assert heard.news == [("opened", "loop_cpu_bound")]
    assert [each.rule for each in board.now.open] == ["loop_cpu_bound"]
    assert (board.now.windows, board.now.judged_unix_ns) == (3, 10)
    assert list(board.windows) == [BUSY] * 3


@pytest.mark.parametrize(("window_s", "pace_s"), [(10.0, None), (7.5, None), (1.0, 0.1), (0.2, 0.05)])
def test_only_a_short_window_asks_to_come_sooner(window_s: float, pace_s: float | None) -> None:
    judge, *_ = engine(window_s=window_s)
    assert (judge.pace_s, judge.tick()) == (pace_s, pace_s)


def test_at_the_end_what_happened_is_told_and_everything_closed() -> None:
    judge, _, heard, now, _ = engine(FAILED)
    judge.tick()
    now[0] = 1.0
    judge.finish()
    assert heard.news == [("opened", "errors_swallowed"), ("closed", "errors_swallowed")]


def test_at_the_end_a_short_time_does_not_say_what_is_so() -> None:
    judge, _, heard, now, _ = engine(BUSY, BUSY, BUSY)
    for second in (0, 10, 20, 24):
        now[0] = float(second)
        judge.tick()
    judge.finish()
    assert heard.news == []


def test_our_trouble_ends_the_diagnosis_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    judge, board, heard, now, _ = engine()
    judge.tick()
    now[0] = 10.0
    with caplog.at_level(logging.ERROR):
        assert [judge.tick(), judge.tick()] == [None, None]  # there is no window
    assert [record.message for record in caplog.records] == [
        "The diagnosis failed and is switched off; the program goes on without it"
    ]
    assert board.now == Diagnosis()
    judge.finish()
    assert heard.news == []


def test_a_forked_child_begins_anew() -> None:
    judge, board, _, now, _ = engine(FAILED, FAILED)
    judge.tick()
    now[0] = 10.0
    judge.tick()
    assert len(board.now.open) == 1
    judge.reset()
    assert board.now == Diagnosis()
    assert list(board.windows) == []
