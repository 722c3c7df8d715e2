"""`/debug/trace`: what the program does in the next seconds, for Perfetto."""

from __future__ import annotations

import math
import sys
import threading

from otel_concurrency.diagnosis.board import BOARD
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, json_response, refusal
from otel_concurrency.endpoints.routes import Route, add_route
from otel_concurrency.timeline.perfetto import trace_of
from otel_concurrency.timeline.recording import MAX_SECONDS, record

DEFAULT_S = 5.0


class Tracing:
    """Answers it; one recording at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def add_routes(self) -> None:
        """Answer from now on."""
        meaning = f"the next seconds, for Perfetto: ?seconds={DEFAULT_S:g}, {MAX_SECONDS:g} at most"
        add_route(Route("/debug/trace", self.trace, meaning))

    def trace(self, request: Request) -> Response:
        """Record, and tell."""
        try:
            seconds = float(request.query.get("seconds", DEFAULT_S))
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= MAX_SECONDS:
            return refusal(400, f"seconds is to be a number up to {MAX_SECONDS:g}")
        if not self._turn.acquire(blocking=False):
            return refusal(409, "a recording is under way: try again when it is over")
        try:
            seen = list(record(seconds))
        finally:
            self._turn.release()
        return json_response(trace_of(seen, BOARD.now.open, program=" ".join(sys.argv)[:200]))
