"""What is compared: an interpreter left alone, ours in its two ways, and upstream's asyncio instrumentor."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LOOPS = ("asyncio", "uvloop")


@dataclass(frozen=True, slots=True)
class Variant:
    """One column of the report.

    Attributes:
        label: How the report calls it.
        needs: The module without which it cannot be measured here; empty when it always can.
        install: Makes this process that variant; called once, before its loop exists.
    """

    label: str
    needs: str
    install: Callable[[], None]

    def is_available(self) -> bool:
        return not self.needs or is_installed(self.needs)


def is_installed(module: str) -> bool:
    """Tell whether a module could be imported, without importing it."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    # Without an origin it is a mere folder: what the native probe is built from, not the probe.
    return found is not None and found.origin is not None


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Return a new loop of that kind."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def install_nothing() -> None:
    """Leave the interpreter as it is."""


def install_native() -> None:
    """Instrument with the native probe.

    Raises:
        ImportError: It is not built; the pure twin would be measured in its place.
    """
    import otel_concurrency.probes.native  # noqa: F401

    os.environ["OTEL_PYTHON_CONCURRENCY_NATIVE"] = "true"
    _install_ours()


def install_pure() -> None:
    """Instrument with the pure twin."""
    os.environ["OTEL_PYTHON_CONCURRENCY_NATIVE"] = "false"
    _install_ours()


def install_upstream() -> None:
    """Instrument with `opentelemetry-instrumentation-asyncio`, its metrics kept by an SDK provider."""
    from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor

    AsyncioInstrumentor().instrument(meter_provider=_meter_provider())


def _install_ours() -> None:
    from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
    from otel_concurrency.signals.producer import default_producer

    default_producer().attach(_meter_provider())
    AsyncioTaskInstrumentor().instrument()


def _meter_provider() -> Any:
    """Return an SDK provider that aggregates as in production; nothing reads it while times are taken."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    return MeterProvider(metric_readers=[InMemoryMetricReader()])


VARIANTS = {
    "bare": Variant("bare", "", install_nothing),
    "native": Variant("ours, native", "otel_concurrency.probes._native", install_native),
    "pure": Variant("ours, pure", "otel_concurrency.instrumentors.tasks", install_pure),
    "upstream": Variant("upstream", "opentelemetry.instrumentation.asyncio", install_upstream),
}
