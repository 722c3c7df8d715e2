"""What the span of a task says of the task."""

from __future__ import annotations

import asyncio

from opentelemetry.trace import Span, StatusCode
from opentelemetry.util.types import AnyValue

from otel_concurrency.signals import names
from otel_concurrency.signals.stand_in import StandIn


def task_attributes(stand_in: StandIn, outcome: str, task: object = None) -> dict[str, AnyValue]:
    """Return the attributes of a task's span.

    Args:
        stand_in: The task's.
        outcome: What became of it.
        task: Itself, where it is known.
    """
    attributes: dict[str, AnyValue] = {names.CODE_FUNCTION_NAME: stand_in._function}
    code = stand_in._code
    if code is not None:
        attributes[names.CODE_FILE_PATH] = code.co_filename
        attributes[names.CODE_LINE_NUMBER] = code.co_firstlineno
    if isinstance(task, asyncio.Future):
        get_name = getattr(task, "get_name", None)
        if get_name is not None:
            attributes[names.TASK_NAME] = str(get_name())
    attributes[names.TASK_OUTCOME] = outcome
    return attributes


def running_task() -> object:
    """Return the task in whose step this is."""
    return asyncio.current_task() if asyncio._get_running_loop() is not None else None


def tell_error(span: Span, error: BaseException) -> None:
    """Tell in a span why its task failed."""
    span.record_exception(error)
    span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
