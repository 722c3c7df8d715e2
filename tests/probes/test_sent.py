"""A work item on its way to another process, and its twin: whatever becomes of it is counted once."""

from __future__ import annotations

import contextvars
import functools
import gc
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.work import PoolProbe, PoolRow, Sent, WorkProbe

origin: contextvars.ContextVar[Any] = contextvars.ContextVar("origin")
CARRIER = {"traceparent": "00-…"}
HERE = __name__


def add(one: int, other: int = 1) -> int:
    return one + other


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> WorkProbe:
    return make_work_probe(native=request.param, origin=origin)


@pytest.fixture
def pool(probe: WorkProbe) -> PoolProbe:
    return probe.pool("pool", "process")


def send(pool: PoolProbe, function: Callable[..., Any] = add, *args: Any) -> Sent:
    return pool.send(function, args, CARRIER.copy)


def done(sent: Sent, after_ns: int, timing: Any, error_type: Any) -> None:
    """Tell it that it came back, so long after it had been handed in."""
    sent.done(sent.parcel[1] + after_ns, timing, error_type)


def within(value: object, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function where the origin variable has a value."""
    context = contextvars.copy_context()
    context.run(origin.set, value)
    return context.run(function, *args)


def row(probe: WorkProbe) -> PoolRow:
    [read] = probe.read()
    return read


def counts(probe: WorkProbe) -> dict[str, Any]:
    read = row(probe)
    numbers = {
        name: getattr(read, name)
        for name in ("submitted", "finished", "cancelled", "failed", "rejected", "abandoned")
    }
    return {name: number for name, number in numbers.items() if number}


def test_it_stands_for_its_function(probe: WorkProbe, pool: PoolProbe) -> None:
    before = time.monotonic_ns()
    sent = send(pool, add, 1)
    assert type(sent) is probe.sent
    assert (sent(2, other=3), repr(sent), sent.function) == (5, repr(add), add)
    assert (sent.parcel[0], sent.parcel[2]) == ({}, "pool")
    assert before <= sent.parcel[1] <= time.monotonic_ns()
    assert sent._otel_concurrency_pool is pool  # type: ignore[attr-defined]
    assert counts(probe) == {"submitted": 1}


def test_what_there_is_to_carry_is_captured_where_something_is_current(pool: PoolProbe) -> None:
    assert send(pool).parcel[0] == {}
    assert within({}, send, pool).parcel[0] == {}
    assert within({"span": 1}, send, pool).parcel[0] == CARRIER


def test_without_an_origin_there_is_no_telling_so_it_is_always_captured(probe: WorkProbe) -> None:
    pool = make_work_probe(native=probe.way == "native").pool("pool", "process")
    assert send(pool).parcel[0] == CARRIER


def test_what_stands_for_a_function_already_is_taken_out_of_it(probe: WorkProbe, pool: PoolProbe) -> None:
    first = send(pool)
    second = send(pool, first)
    assert second.function is add
    del first
    done(second, 900, None, None)
    assert counts(probe) == {"submitted": 2, "finished": 1, "cancelled": 1}


@pytest.mark.parametrize("capture", [list, lambda: 1 / 0])
def test_a_capture_that_fails_leaves_nothing_counted(probe: WorkProbe, pool: PoolProbe, capture: Any) -> None:
    with pytest.raises((TypeError, ZeroDivisionError)):
        within({"span": 1}, pool.send, add, (), capture)
    assert counts(probe) == {}


def test_what_came_back_is_finished_and_its_time_is_told_apart(probe: WorkProbe, pool: PoolProbe) -> None:
    done(send(pool), 900, (200, 300), None)
    read = row(probe)
    assert counts(probe) == {"submitted": 1, "finished": 1}
    assert (read.queue_times.sum_ns, read.transfer_times.sum_ns) == (200, 400)
    assert {name: times.sum_ns for name, times in read.run_times.items()} == {f"{HERE}.add": 300}


def test_what_raised_is_failed(probe: WorkProbe, pool: PoolProbe) -> None:
    done(send(pool), 900, (200, 300), "m.Error")
    done(send(pool), 900, None, "m.Other")
    assert counts(probe) == {"submitted": 2, "failed": {"m.Error": 1, "m.Other": 1}}
    assert row(probe).transfer_times.count == 1


def test_clocks_that_disagree_make_no_negative_time(probe: WorkProbe, pool: PoolProbe) -> None:
    done(send(pool), 100, (200, 300), None)
    assert (row(probe).transfer_times.count, row(probe).transfer_times.sum_ns) == (1, 0)


@pytest.mark.parametrize(
    ("end", "outcome"), [("reject", "rejected"), ("cancel", "cancelled"), ("abandon", "abandoned")]
)
def test_it_ends_once(probe: WorkProbe, pool: PoolProbe, end: str, outcome: str) -> None:
    sent: Any = send(pool)
    getattr(sent, end)()
    for other in ("reject", "cancel", "abandon"):
        getattr(sent, other)()
    done(sent, 900, None, None)
    del sent
    assert counts(probe) == {"submitted": 1, outcome: 1}


def test_let_go_of_it_is_cancelled(probe: WorkProbe, pool: PoolProbe) -> None:
    send(pool)
    _cycle_of(pool)
    gc.collect()
    assert counts(probe) == {"submitted": 2, "cancelled": 2}


def _cycle_of(pool: PoolProbe) -> None:
    cycle: list[Any] = []
    cycle.append(send(pool, lambda: cycle, cycle))


def test_after_a_reset_it_counts_nowhere(probe: WorkProbe, pool: PoolProbe) -> None:
    items = [send(pool) for _ in range(5)]
    probe.reset()
    done(items[0], 900, (200, 300), None)
    items[1].reject()
    items[2].cancel()
    items[3].abandon()
    del items
    assert counts(probe) == {}
    assert row(probe).run_times == {}


def test_packed_it_is_a_plain_callable(pool: PoolProbe) -> None:
    unpacked = pickle.loads(pickle.dumps(send(pool)))
    assert (type(unpacked), unpacked(1)) == (functools.partial, 2)


def test_a_function_that_is_carried_counts_by_its_own_name(probe: WorkProbe, pool: PoolProbe) -> None:
    from concurrent.futures import process

    chunk = functools.partial(process._process_chunk, add)
    done(send(pool, chunk, [(1,)]), 900, (200, 300), None)
    done(send(pool, contextvars.Context().run, add, 1), 900, (200, 300), None)
    assert {name: times.count for name, times in row(probe).run_times.items()} == {f"{HERE}.add": 2}


def test_exemplars_keep_where_it_was_handed_in(probe: WorkProbe, pool: PoolProbe) -> None:
    done(within({"span": 1}, send, pool), 900, (200, 300), None)
    done(send(pool), 900, (200, 300), None)
    read = row(probe)
    for times in (read.queue_times, read.transfer_times, read.run_times[f"{HERE}.add"]):
        assert [each.origin for each in times.exemplars] == [{"span": 1}]


@pytest.mark.parametrize(
    "done", [(None, (1, 2), None), (1, (1,), None), (1, (1, None), None), (1, (1, 2), 3)]
)
def test_nonsense_is_refused(probe: WorkProbe, pool: PoolProbe, done: Any) -> None:
    sent = send(pool)
    with pytest.raises((TypeError, ValueError)):
        sent.done(*done)
