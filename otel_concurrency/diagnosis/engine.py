"""Judges this process, window after window, in whichever thread calls `tick`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from otel_concurrency.diagnosis.board import Board, Diagnosis
from otel_concurrency.diagnosis.course import Course, News
from otel_concurrency.diagnosis.meter import Meter
from otel_concurrency.diagnosis.rules import judge

SAMPLES = 10
"""Looks in a window, as far as the thread comes by so often."""

SHORTEST_SAMPLE_S = 0.05
PATIENCE_S = 0.4
"""How long the end of the program waits for a window that is being judged."""

USUAL_TICK_S = 0.75
"""A thread that comes by so often anyway is not asked to come sooner."""

_logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Hears what was found, in the thread that judges."""

    def told(self, news: list[News]) -> None:
        """Findings were opened, updated, closed; the weightiest first."""
        ...


class Engine:
    """Ends a window when it is time, judges it, and puts what it finds on the board.

    Args:
        make_meter: Begins to measure.
        board: Where others read.
        listener: Hears what is new.
        window_s: How long a window is.
        clock: Monotonic time, s.

    Attributes:
        pace_s: How often to come, in s; None: as usual.
        spent_ns: CPU time that all of it took.
    """

    def __init__(
        self,
        make_meter: Callable[[], Meter],
        board: Board,
        listener: Listener,
        *,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_meter = make_meter
        self._board = board
        self._listener = listener
        self._window_s = window_s
        self._clock = clock
        self._is_broken = False
        every_s = max(SHORTEST_SAMPLE_S, window_s / SAMPLES)
        self._every_s = every_s
        self.pace_s = every_s if every_s < USUAL_TICK_S else None
        self.spent_ns = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew: at first, and again in a forked child."""
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self._meter: Meter | None = None
        self._course = Course()
        self._windows = 0
        self._next_sample_s = 0.0
        self._board.reset()

    def tick(self) -> float | None:
        """Look, and judge if it is time; returns when to come again, in s, where that is sooner than usual.

        Never raises: our own trouble ends the diagnosis, and nothing else.
        """
        if self._is_broken or not self._lock.acquire(blocking=False):
            return None
        began_ns = time.thread_time_ns()
        try:
            return self._tick()
        except Exception:
            self._is_broken = True
            self._board.reset()
            _logger.exception("The diagnosis failed and is switched off; the program goes on without it")
            return None
        finally:
            self.spent_ns += time.thread_time_ns() - began_ns
            self._lock.release()

    def finish(self) -> None:
        """Judge what there is of a window, and close all findings: the program ends."""
        if self._is_broken or not self._lock.acquire(timeout=PATIENCE_S):
            return
        try:
            if self._meter is not None:
                self._meter.sample()
                self._judge(self._meter, is_whole=2 * self._meter.age_ns >= self._window_s * 1e9)
                self._listener.told(self._course.close_all())
        except Exception:
            _logger.debug("The last window is not judged", exc_info=True)
        finally:
            self._meter = None
            self._lock.release()

    def _tick(self) -> float | None:
        if self._meter is None:
            self._meter = self._make_meter()
            self._publish()
        now_s = self._clock()
        if now_s >= self._next_sample_s:
            self._next_sample_s = now_s + 0.9 * self._every_s  # a tick is not always on time
            self._meter.sample()
        if self._meter.age_ns >= self._window_s * 1e9:
            self._judge(self._meter)
        return self.pace_s

    def _judge(self, meter: Meter, *, is_whole: bool = True) -> None:
        window = meter.window()
        findings = judge(window, tuple(self._board.windows))
        if not is_whole:  # a short time says what has happened, and not what is so
            findings = [found for found in findings if found.is_event]
        self._board.windows.append(window)
        self._windows += 1
        news = self._course.go_on(findings)
        self._publish(window.ended_unix_ns)
        if news:
            self._listener.told(news)

    def _publish(self, judged_unix_ns: int = 0) -> None:
        self._board.now = Diagnosis(
            is_on=True,
            open=self._course.open,
            recheck=self._course.recheck,
            windows=self._windows,
            window_s=self._window_s,
            judged_unix_ns=judged_unix_ns or self._board.now.judged_unix_ns,
        )
