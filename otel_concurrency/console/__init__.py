"""The embedded OTLP receiver: traces, metrics and logs over HTTP and gRPC on loopback, into DuckDB.

    with Store() as store, Receiver(store, http_port=0, grpc_port=0) as receiver:
        ...  # send to receiver.http_endpoint or receiver.grpc_endpoint
        store.query("SELECT name FROM spans")

It needs the extra `console`; without it, importing this package says so.
"""

from __future__ import annotations

try:
    from otel_concurrency.console.receiver import PortTaken, Receiver
    from otel_concurrency.console.store import Store, StoreError, TableCounts
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("otel_concurrency"):
        raise
    raise ImportError(
        f"the console needs {error.name}, which is not installed: pip install 'otel-concurrency[console]'"
    ) from error

__all__ = ["PortTaken", "Receiver", "Store", "StoreError", "TableCounts"]
