"""What the span of a task says of the task."""

from __future__ import annotations

from asyncio import Future, current_task

from opentelemetry.trace import Span, StatusCode
from opentelemetry.util.types import AnyValue

from otel_concurrency.signals.names import CODE_FILE_PATH as FILE
from otel_concurrency.signals.names import CODE_FUNCTION_NAME as FUNCTION
from otel_concurrency.signals.names import CODE_LINE_NUMBER as LINE
from otel_concurrency.signals.names import TASK_NAME as NAME
from otel_concurrency.signals.names import TASK_OUTCOME as OUTCOME
from otel_concurrency.signals.stand_in import StandIn


def task_attributes(stand_in: StandIn, outcome: str, task: object = None) -> dict[str, AnyValue]:
    """Return the attributes of a task's span.

    Args:
        stand_in: The task's.
        outcome: What became of it.
        task: Itself, where it is known.
    """
    attributes: dict[str, AnyValue] = {FUNCTION: stand_in._function, OUTCOME: outcome}
    code = stand_in._code
    if code is not None:
        attributes[FILE] = code.co_filename
        attributes[LINE] = code.co_firstlineno
    if isinstance(task, Future):
        try:
            attributes[NAME] = str(task.get_name())  # type: ignore[attr-defined]
        except AttributeError:  # a future that is no task
            pass
    return attributes


def running_task() -> object:
    """Return the task in whose step this is."""
    try:
        return current_task()
    except RuntimeError:  # no loop runs here
        return None


def tell_error(span: Span, error: BaseException) -> None:
    """Tell in a span why its task failed."""
    span.record_exception(error)
    span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
