"""The programmatic start: what the command does, asked for by the program itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.instrumentation.auto_instrumentation import initialize
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_CONFIGURATOR, OTEL_PYTHON_DISTRO

from otel_concurrency.config import Config
from otel_concurrency.distro import ConcurrencyDistro
from otel_concurrency.environment_variables import NAME

_lock = threading.RLock()


class Instrumentation:
    """What is instrumented in this process, and the way back."""

    def __init__(self, distro: ConcurrencyDistro) -> None:
        self._distro = distro

    def __repr__(self) -> str:
        return f"<Instrumentation [{', '.join(self._distro.loaded) or 'nothing'}]>"

    def uninstrument(self) -> None:
        """Put back what was patched, last first; a second call changes nothing.

        What was recorded until then is exported first, which waits for `exit_timeout` at most. The providers
        stay, since OpenTelemetry lets a process set them only once; they flush at exit.
        """
        with _lock:
            if self._distro.started:
                self._distro.stop()


def instrument(options: Mapping[str, object]) -> Instrumentation:
    """Start once; see `otel_concurrency.instrument`."""
    Config.from_options(
        options
    )  # a name that no setting has is the programmer's error: told here, not logged
    distro = ConcurrencyDistro()
    with _lock:
        if not distro.started:
            distro.options = dict(options)
            with _ours_is_chosen():
                initialize()
    return Instrumentation(distro)


@contextmanager
def _ours_is_chosen() -> Iterator[None]:
    """Point the loader at us for the time of the start: the call in the program is the user's choice."""
    before = {
        variable: os.environ.get(variable) for variable in (OTEL_PYTHON_DISTRO, OTEL_PYTHON_CONFIGURATOR)
    }
    os.environ.update(dict.fromkeys(before, NAME))
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value
