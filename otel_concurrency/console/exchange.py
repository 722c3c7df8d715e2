"""Over HTTP: what the store holds, out as a file and in again, and away with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from otel_concurrency.console.importing import ImportFailed, import_telemetry
from otel_concurrency.console.otlp_export import export_otlp
from otel_concurrency.console.store import Store, StoreError, Unstorable
from otel_concurrency.console.trace_events import export_trace_events

EXPORT_PATH = "/console/export"
IMPORT_PATH = "/console/import"
CLEAR_PATH = "/console/clear"
MAX_IMPORT_BYTES = 512 * 2**20

FORMATS: dict[str, tuple[Callable[[Store, str | None], Iterator[str]], str, str]] = {
    "otlp": (export_otlp, "application/x-ndjson", "telemetry.otlp.jsonl"),
    "perfetto": (export_trace_events, "application/json", "telemetry.perfetto.json"),
}
"""How to write it, its media type, and what its file is called."""


def exchange_routes(store: Store) -> list[Route]:
    """Return the routes over a store."""

    async def export(request: Request) -> Response:
        asked = request.query_params.get("format", "otlp")
        if asked not in FORMATS:
            return PlainTextResponse(f"format is one of {', '.join(FORMATS)}", 400)
        write, media_type, name = FORMATS[asked]
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "x-content-type-options": "nosniff",
        }
        return StreamingResponse(write(store, request.query_params.get("trace")), 200, headers, media_type)

    async def take(request: Request) -> Response:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_IMPORT_BYTES:
                return PlainTextResponse(f"larger than {MAX_IMPORT_BYTES} bytes", 413)
        try:
            return JSONResponse(await run_in_threadpool(import_telemetry, store, bytes(content)))
        except (ImportFailed, Unstorable) as error:
            return PlainTextResponse(str(error), 400)
        except StoreError as error:
            return PlainTextResponse(str(error), 503)

    async def clear(request: Request) -> Response:
        await run_in_threadpool(store.clear)
        return JSONResponse({})

    return [
        Route(EXPORT_PATH, export),
        Route(IMPORT_PATH, take, methods=["POST"]),
        Route(CLEAR_PATH, clear, methods=["POST"]),
    ]
