"""A pytest plugin: upstream's tests of its exceptions instrumentor see ours under its name."""

from __future__ import annotations

import opentelemetry.instrumentation.exceptions as exceptions

from otel_concurrency.instrumentors.failures import FailureInstrumentor

exceptions.UnhandledExceptionInstrumentor = FailureInstrumentor
