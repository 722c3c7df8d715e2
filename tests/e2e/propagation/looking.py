"""What a work item sees of whoever submitted it, and how an item is submitted three times.

First inside one span, then inside another one, then outside of any: what came first must not stick.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

Seen = dict[str, Any]
Item = Callable[[], Seen]
LoopItem = Callable[[], Awaitable[Seen]]
Cells = Callable[[], AbstractContextManager[dict[str, Item]]]  # makes a pool, if any, and its items by name
Observed = list[tuple[Seen, Seen]]  # what an item saw, and what it should have seen; three times

WHO: ContextVar[str | None] = ContextVar("WHO", default=None)


def look(*_: Any) -> Seen:
    """Tell the trace, the current span and its parent, the baggage, and a variable of the application's."""
    span = trace.get_current_span()
    ids = span.get_span_context()
    parent = getattr(span, "parent", None)
    return {
        "trace": trace.format_trace_id(ids.trace_id) if ids.is_valid else None,
        "span": trace.format_span_id(ids.span_id) if ids.is_valid else None,
        "parent": trace.format_span_id(parent.span_id) if parent else None,
        "baggage": baggage.get_baggage("who"),
        "variable": WHO.get(),
    }


def set_up() -> None:
    """Let spans be recorded where nobody else has seen to it: without us, and without upstream."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())


@contextmanager
def submitter(name: str) -> Iterator[Seen]:
    """Be inside a span, with baggage and a variable; yields what an item should see."""
    span = trace.get_tracer("table").start_span(name)
    token = context.attach(trace.set_span_in_context(span, baggage.set_baggage("who", name)))
    variable = WHO.set(name)
    try:
        yield look()
    finally:
        WHO.reset(variable)
        context.detach(token)
        span.end()


def observe(cells: Cells, where: str = "") -> dict[str, Observed]:
    """Submit each item thrice.

    Args:
        cells: Makes the pool, or whatever it takes, and yields what runs one item to its end.
        where: `made inside` the first span; or `made before`, which also runs an item outside of any, since
            pools start their workers late.
    """
    with ExitStack() as stack:
        nothing = look()
        if where != "made inside":
            items = stack.enter_context(cells())
        if where == "made before":
            next(iter(items.values()))()
        with submitter("first") as wanted:
            if where == "made inside":
                items = stack.enter_context(cells())
            observed = {name: [(item(), wanted)] for name, item in items.items()}
        with submitter("second") as wanted:
            for name, item in items.items():
                observed[name].append((item(), wanted))
        for name, item in items.items():
            observed[name].append((item(), nothing))
    return {f"{name}, {where}" if where else name: rows for name, rows in observed.items()}


async def observe_on_loop(item: LoopItem) -> Observed:
    """The same, from a coroutine."""
    nothing = look()
    with submitter("first") as wanted:
        first = (await item(), wanted)
    with submitter("second") as wanted:
        second = (await item(), wanted)
    return [first, second, (await item(), nothing)]


if __name__ == "__main__":
    set_up()
    print(json.dumps(look()))
