"""otel-concurrency: an OpenTelemetry distro for concurrent Python.

Most people never import this package: `opentelemetry-instrument python app.py` finds it by its entry
points. `instrument()` is for programs that cannot be started that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_concurrency._version import __version__

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from typing_extensions import Unpack

    from otel_concurrency.config import Options
    from otel_concurrency.start import Instrumentation

__all__ = ["__version__", "add_log_context", "get_request_id", "instrument", "set_request_id"]


def instrument(**options: Unpack[Options]) -> Instrumentation:
    """Start what `opentelemetry-instrument` would have started, from inside the program.

    Call it once, before the application objects are made: at the top of the main module, or in a running
    event loop. Further calls, and a call under the command, change nothing and return the same handle.
    Providers that the program has already set stay; ours join them.

    Args:
        **options: Settings by name, as `docs/configuration.md` lists them (`max_coroutines=500`); what is
            not given here comes from the environment.

    Returns:
        A handle whose `uninstrument()` puts back what was patched.

    Raises:
        TypeError: An option has a name that no setting has.
    """
    from otel_concurrency import start  # here, so that finding our entry points stays cheap

    return start.instrument(options)


def get_request_id() -> str | None:
    """Return the id of the request that the caller works for: its header's, or the one made for it.

    Returns:
        None outside a request, and where `OTEL_PYTHON_CONCURRENCY_REQUEST_ID=false`.
    """
    from otel_concurrency.signals import request_id

    return request_id.get_request_id()


def set_request_id(value: str) -> None:
    """Give the request another id, or one to work that is no request: from here on, in this context.

    Spans and log records that follow carry it, as does the current span.

    Args:
        value: 1 to 128 visible ASCII characters.

    Raises:
        ValueError: The value is none of these.
    """
    from otel_concurrency.signals import request_id

    request_id.set_request_id(value)


def add_log_context(
    logger: object, method_name: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add to an event where it was logged; a processor for `structlog`, the first in its list.

    That is `trace_id` and `span_id` in hexadecimal inside a span, `request_id` inside a request, `thread.id`,
    `thread.name`, `process.pid`, and `asyncio.task.name` inside a task. What the event has already stays.

    Args:
        logger: As structlog has it; not looked at.
        method_name: The same.
        event_dict: The event.

    Returns:
        The same event.
    """
    from otel_concurrency.signals import logs

    return logs.add_log_context(event_dict)
