"""Open requests are known, no more than a limit of them, and are not kept alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar

from otel_concurrency.probes.active_requests import ActiveRequests


class Request:
    pass


def test_those_that_are_open_the_oldest_first() -> None:
    times = iter([3, 5, 8])
    requests = ActiveRequests(monotonic_ns=lambda: next(times))
    one, two, three = (requests.begin(name) for name in ("one", "two", "three"))
    requests.end(two)
    assert [(each.request, each.began_ns) for each in requests.read()] == [("one", 3), ("three", 8)]
    requests.end(three)
    requests.end(one)
    requests.end(one)
    assert requests.read() == []
    assert repr(requests) == "<ActiveRequests [0 open]>"


def test_no_more_than_the_limit() -> None:
    requests = ActiveRequests(max_open=2)
    opened = [requests.begin(number) for number in range(5)]
    assert [each.request for each in requests.read()] == [0, 1]
    for each in opened:
        requests.end(each)
    last = requests.begin("last")
    assert requests.read() == [last]


def test_what_was_current_and_the_task() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    requests = ActiveRequests(variable)

    async def main() -> None:
        variable.set("here")
        opened = requests.begin("request")
        assert opened.task is not None
        assert opened.task() is asyncio.current_task()
        assert opened.origin == "here"

    asyncio.run(main())
    outside = requests.begin("outside")
    assert (outside.task, outside.origin) == (None, None)


def test_an_entry_keeps_nothing_alive() -> None:
    requests = ActiveRequests()
    request = Request()
    opened = requests.begin(request)
    gone = weakref.ref(request)
    del opened, request
    gc.collect()
    assert gone() is None
    assert requests.read() == []
