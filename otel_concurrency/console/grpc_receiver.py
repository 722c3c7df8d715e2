"""OTLP over gRPC, on loopback.

Requests are taken as bytes and decoded here rather than by the library, so that a malformed one is answered
INVALID_ARGUMENT; the library would say INTERNAL, which exporters retry.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError

from otel_concurrency.console.signals import SIGNALS, Signal
from otel_concurrency.console.store import Store, StoreError, Unstorable

WORKERS = 4
MAX_CONCURRENT_CALLS = 64
SHUTDOWN_GRACE_S = 2


class GrpcReceiver:
    """Takes OTLP/gRPC into a store.

    Args:
        store: Where it goes.
        host: The address to listen on.
        port: A port, or 0 for a free one.
        max_request_bytes: Longest message, as sent and as decompressed.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, store: Store, host: str, port: int, *, max_request_bytes: int) -> None:
        self._store = store
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="otlp-grpc")
        self._max_request_bytes = max_request_bytes
        self._server: Any = grpc.server(
            self._workers,
            handlers=[
                grpc.method_handlers_generic_handler(
                    signal.service,
                    {"Export": grpc.unary_unary_rpc_method_handler(partial(self._export, signal))},
                )
                for signal in SIGNALS
            ],
            options=[
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.so_reuseport", 0),  # a taken port is an error, not a share of somebody's requests
            ],
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
        )
        try:
            self.port: int = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:  # what gRPC says instead of OSError
            self._workers.shutdown()
            raise OSError(f"cannot listen on {host}:{port}: {error}") from error

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def stop(self) -> None:
        """Answer what is running, close the port and join the threads; twice is fine."""
        self._server.stop(SHUTDOWN_GRACE_S).wait()
        self._workers.shutdown()

    def _export(self, signal: Signal, body: bytes, context: Any) -> bytes:
        if len(body) > self._max_request_bytes:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"larger than {self._max_request_bytes} bytes")
        message = signal.request()
        try:
            message.ParseFromString(body)
        except DecodeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an {type(message).__name__}: {error}")
        try:
            return signal.take(message, len(body), self._store).SerializeToString()
        except Unstorable as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"cannot be stored: {error}")
            raise
        except StoreError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise
