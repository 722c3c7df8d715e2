"""otel-concurrency: an OpenTelemetry distro for concurrent Python.

Most people never import this package: `opentelemetry-instrument python app.py` finds it by its entry
points. `instrument()` is for programs that cannot be started that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from otel_concurrency._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any, TypeVar

    from typing_extensions import Unpack

    from otel_concurrency.config import Options
    from otel_concurrency.hooks.adaptive_limiter import AdaptiveLimiter, LimitReached
    from otel_concurrency.start import Instrumentation

    Function = TypeVar("Function", bound=Callable[..., Any])

__all__ = [
    "AdaptiveLimiter",
    "LimitReached",
    "__version__",
    "add_log_context",
    "get_request_id",
    "instrument",
    "set_request_id",
    "timed",
]


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


@overload
def timed(function: Function, /, *, name: str | None = None) -> Function: ...
@overload
def timed(*, name: str | None = None) -> Callable[[Function], Function]: ...
def timed(function: Any = None, /, *, name: str | None = None) -> Any:
    """Time the calls of a function: how long each took, and how it ended; `@timed` or `@timed()` above it.

    Functions, coroutine functions, generators and asynchronous generators may be timed, methods among them.
    The numbers are the metric `python.function.duration`, with the slowest calls' traces as exemplars; a
    coroutine's or a generator's time is from its first step to its end. Where nothing is instrumented, the
    function is just called.

    Args:
        function: What to time.
        name: What to call it, in place of `module.qualname`; functions of one name count together.

    Returns:
        A function of the same kind that behaves as this one does; `__wrapped__` is this one.

    Raises:
        TypeError: It is no function: a class, say.
    """
    from otel_concurrency.hooks import timed as decorating

    if function is None:
        return lambda given: decorating.timed(given, name=name)
    return decorating.timed(function, name=name)


def __getattr__(name: str) -> Any:
    """Find the limiter, which most programs do without, when it is asked for."""
    if name in ("AdaptiveLimiter", "LimitReached"):
        from otel_concurrency.hooks import adaptive_limiter

        return getattr(adaptive_limiter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
