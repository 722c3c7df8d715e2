"""The console: an OTLP receiver over HTTP and gRPC on loopback, a DuckDB store, and pages to look at it.

    with Store() as store, Receiver(store, http_port=0, grpc_port=0) as receiver:
        ...  # send to receiver.http_endpoint or receiver.grpc_endpoint
        store.query("SELECT name FROM spans")

Store and receiver need the extra `console`; without it, asking for them says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_concurrency.console.receiver import PortTaken, Receiver
    from otel_concurrency.console.store import Store, StoreError, TableCounts

__all__ = ["PortTaken", "Receiver", "Store", "StoreError", "TableCounts"]

PACKAGES = ("duckdb", "grpc", "nicegui", "opentelemetry.proto", "starlette", "uvicorn")
"""What the extra brings, by the names that are imported."""

_HOMES = {
    "PortTaken": "receiver",
    "Receiver": "receiver",
    "Store": "store",
    "StoreError": "store",
    "TableCounts": "store",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needing_the_extra():
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def require_extra() -> None:
    """Ask for all that the console needs, at once.

    Raises:
        ImportError: Something is missing; the message says what to install.
    """
    with needing_the_extra():
        for package in PACKAGES:
            if find_spec(package) is None:
                raise ModuleNotFoundError(name=package)


@contextlib.contextmanager
def needing_the_extra() -> Iterator[None]:
    """Say what to install where a package of the extra `console` is missing.

    Raises:
        ImportError: It is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("otel_concurrency"):
            raise
        raise ImportError(
            f"the console needs {error.name}, which is not installed: pip install 'otel-concurrency[console]'"
        ) from error
