"""`/debug/doctor`: what is set up in the program, why, and whether telemetry arrives."""

from __future__ import annotations

from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, json_response


def examination(request: Request) -> Response:
    """Examine, and tell; `?send=false` sends nothing to the collector."""
    from otel_concurrency.doctor.examining import examine  # here: it is asked for once in a while

    return json_response(examine(sends=request.query.get("send", "true") != "false").to_data())
