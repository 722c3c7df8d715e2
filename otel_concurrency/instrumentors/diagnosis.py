"""Judges what the probes keep, and says in words what is wrong: the engine, joined to its signals."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.sdk.trace import Span

from otel_concurrency import snapshot
from otel_concurrency.config import Config, DiagnosisOptions
from otel_concurrency.diagnosis.board import BOARD
from otel_concurrency.diagnosis.closer import Closer
from otel_concurrency.diagnosis.engine import Engine
from otel_concurrency.diagnosis.loop_meter import StallMeter
from otel_concurrency.diagnosis.meter import Meter
from otel_concurrency.diagnosis.process_meter import ForkMeter
from otel_concurrency.hooks import fork
from otel_concurrency.instrumentors import runtime, stalls
from otel_concurrency.probes import quiet_thread
from otel_concurrency.probes.readers import READERS
from otel_concurrency.signals import shutdown
from otel_concurrency.signals.diagnosis import DiagnosisReports, trace_of
from otel_concurrency.signals.producer import default_producer

SHORTEST_WINDOW_S = 0.2


class Judge:
    """The engine as the thread knows it that watches loops; see `stalls.Follower`."""

    def __init__(self, stall_meter: StallMeter, engine: Engine) -> None:
        self.stalls = stall_meter
        self.pace_s = engine.pace_s
        self.tick = engine.tick


class DiagnosisInstrumentor(BaseInstrumentor):
    """Says what is wrong, window after window, on the thread that watches event loops.

    Options are the fields of `DiagnosisOptions`; what is not given comes from the environment.
    """

    configuration = DiagnosisOptions

    _undo: tuple[Callable[[], object], ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: it reads what others keep."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {"diagnosis_window": kwargs.get("diagnosis_window")}
        config = Config.from_options(options, os.environ)
        stall_meter, forks = StallMeter(trace_of), ForkMeter(lambda: quiet_thread.native_ids)

        def make_meter() -> Meter:
            return Meter(
                READERS,
                stalls=stall_meter,
                forks=forks,
                gil=runtime.gil,
                gc_pauses=runtime.gc_pauses,
                closer=Closer(snapshot.take),
            )

        reports = DiagnosisReports(_open_requests)
        engine = Engine(make_meter, BOARD, reports, window_s=max(SHORTEST_WINDOW_S, config.diagnosis_window))

        def begin_in_child() -> None:
            reports.begin()
            stall_meter.reset()
            forks.take()
            engine.reset()

        default_producer().register(reports)
        stalls.follow(Judge(stall_meter, engine))
        self._undo = (
            lambda: stalls.follow(None),
            fork.before_fork(forks.about_to_fork),
            fork.in_child(begin_in_child),
            shutdown.tell_first(engine.finish),
            lambda: default_producer().unregister(reports),
            BOARD.reset,
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        for undo in self._undo:
            undo()
        self._undo = ()


def _open_requests() -> list[Span]:
    requests = stalls.open_requests()
    return requests.spans() if requests is not None else []
