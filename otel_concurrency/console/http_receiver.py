"""OTLP over HTTP: one path a signal, protobuf or JSON, plain or compressed, in a thread of its own.

Answers follow the OTLP specification: 200 with the response message, which may tell of a partial success; on
errors a `google.rpc.Status` in the encoding of the request. Bodies are bounded as sent and as decompressed.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from otel_concurrency.console import otlp_json
from otel_concurrency.console.serving import WebServer
from otel_concurrency.console.signals import SIGNALS, Signal
from otel_concurrency.console.store import Store, StoreError, Unstorable

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
MAX_CONNECTIONS = 64
"""Connections and requests beyond this are answered 503, which tells an exporter to come back later."""

DECODERS = 2
"""Threads that decode and store; more would only compete for the GIL and the writers' lock."""

_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class Refusal(Exception):  # noqa: N818  (an answer, not a fault)
    """A request that is answered with an error.

    Args:
        http_status: The HTTP status of the answer.
        code: The `google.rpc.Code` of its body.
        message: What is wrong, to the sender.
    """

    def __init__(self, http_status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.message = message


class HttpReceiver:
    """Takes OTLP/HTTP into a store.

    Args:
        store: Where it goes.
        listener: A bound socket; closed with the receiver.
        max_request_bytes: Longest body, as sent and as decompressed.
    """

    def __init__(self, store: Store, listener: socket.socket, *, max_request_bytes: int) -> None:
        self._store = store
        self._max_request_bytes = max_request_bytes
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="otlp-http-decode")
        routes = [
            Route(signal.path, functools.partial(self._export, signal), methods=["POST"])
            for signal in SIGNALS
        ]
        self._server = WebServer(
            Starlette(routes=routes), listener, "otlp-http", lifespan="off", limit_concurrency=MAX_CONNECTIONS
        )

    def start(self) -> None:
        """Serve; returns when requests are answered.

        Raises:
            RuntimeError: The server ended before it was ready.
        """
        self._server.start()

    def stop(self) -> None:
        """Answer what is running, close the port and join the threads; twice is fine."""
        self._server.stop()
        self._decoders.shutdown()

    async def _export(self, signal: Signal, request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if media_type not in (PROTOBUF, JSON):
                raise Refusal(
                    415, Code.INVALID_ARGUMENT, f"content type {media_type!r}; send {PROTOBUF} or {JSON}"
                )
            coding = request.headers.get("content-encoding", "identity").strip().lower()
            if coding not in ("identity", *_WINDOW_BITS):
                raise Refusal(
                    415, Code.INVALID_ARGUMENT, f"content encoding {coding!r}; send gzip, deflate or none"
                )
            body = await self._read_body(request)
            answer = await asyncio.get_running_loop().run_in_executor(
                self._decoders, self._take, signal, media_type, coding, body
            )
        except Refusal as refusal:
            status = Status(code=refusal.code, message=refusal.message)
            close = {"connection": "close"} if refusal.http_status == 413 else None
            encoding = PROTOBUF if media_type == PROTOBUF else JSON
            return Response(_encode(status, encoding), refusal.http_status, close, encoding)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        return Response(_encode(answer, media_type), 200, None, media_type)

    async def _read_body(self, request: Request) -> bytes:
        limit = self._max_request_bytes
        body = bytearray()
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise _too_large(limit)
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)

    def _take(self, signal: Signal, media_type: str, coding: str, body: bytes) -> Message:
        if coding in _WINDOW_BITS:
            body = decompress(body, coding, self._max_request_bytes)
        message = signal.request()
        try:
            if media_type == JSON:
                otlp_json.parse(body, message)
            else:
                message.ParseFromString(body)
        except (DecodeError, otlp_json.MalformedJson) as error:
            raise Refusal(400, Code.INVALID_ARGUMENT, f"not an {type(message).__name__}: {error}") from None
        try:
            return signal.take(message, len(body), self._store)
        except Unstorable as error:
            raise Refusal(400, Code.INVALID_ARGUMENT, f"cannot be stored: {error}") from error
        except StoreError as error:
            raise Refusal(503, Code.UNAVAILABLE, str(error)) from error


def decompress(body: bytes, coding: str, limit: int) -> bytes:
    """Decompress a body, stopping as soon as it grows over the limit.

    Args:
        body: One or more gzip members, or a zlib stream.
        coding: `gzip` or `deflate`.
        limit: Longest result, in bytes.

    Raises:
        Refusal: The result is longer, or the body is damaged.
    """
    parts = []
    size = 0
    rest = body
    while rest:
        member = zlib.decompressobj(_WINDOW_BITS[coding])
        try:
            part = member.decompress(rest, limit - size + 1)
        except zlib.error as error:
            raise Refusal(400, Code.INVALID_ARGUMENT, f"damaged {coding}: {error}") from None
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if not member.eof:
            raise Refusal(400, Code.INVALID_ARGUMENT, f"damaged {coding}: it ends too early")
        parts.append(part)
        rest = member.unused_data
    return b"".join(parts)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, Code.RESOURCE_EXHAUSTED, f"larger than {limit} bytes, as sent or decompressed")


_ENCODERS: dict[str, Callable[[Message], bytes]] = {
    PROTOBUF: lambda message: message.SerializeToString(),
    JSON: otlp_json.dump,
}


def _encode(message: Message, media_type: str) -> bytes:
    return _ENCODERS[media_type](message)
