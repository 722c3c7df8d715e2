"""A pytest plugin: upstream's tests of its threading instrumentor see ours under its name."""

from __future__ import annotations

import opentelemetry.instrumentation.threading as threading

from otel_concurrency.instrumentors.threads import ConcurrencyThreadingInstrumentor

threading.ThreadingInstrumentor = ConcurrencyThreadingInstrumentor
