"""The work probe and its twin: the same stories, the same numbers."""

from __future__ import annotations

import contextvars
import gc
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.work import PoolRow, WorkProbe

origin: contextvars.ContextVar[Any] = contextvars.ContextVar("origin")
HERE = __name__


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def make(request: pytest.FixtureRequest) -> Callable[..., WorkProbe]:
    return lambda **options: make_work_probe(native=request.param, origin=origin, **options)


@pytest.fixture
def probe(make: Callable[..., WorkProbe]) -> WorkProbe:
    return make()


def row(probe: WorkProbe, name: str = "pool") -> PoolRow:
    [found] = [each for each in probe.read() if each.name == name]
    return found


def counts(row: PoolRow) -> dict[str, Any]:
    numbers = {
        "submitted": row.submitted,
        "finished": row.finished,
        "cancelled": row.cancelled,
        "failed": dict(row.failed),
        "rejected": row.rejected,
        "abandoned": row.abandoned,
        "unretrieved": dict(row.unretrieved),
        "crashes": dict(row.crashes),
        "queued": row.queue_times.count,
        "ran": {name: state.count for name, state in row.run_times.items()},
        "sent": row.transfer_times.count,
    }
    return {name: number for name, number in numbers.items() if number}


def add(one: int, other: int = 1) -> int:
    return one + other


def fails(error: BaseException) -> None:
    raise error


def test_what_ran_is_finished_and_timed(probe: WorkProbe) -> None:
    work = probe.pool("pool", "thread").wrap(add)
    assert counts(row(probe)) == {"submitted": 1}
    assert work(2, other=3) == 5
    assert counts(row(probe)) == {"submitted": 1, "finished": 1, "queued": 1, "ran": {f"{HERE}.add": 1}}
    assert row(probe).kind == "thread"


def test_what_raises_is_failed_and_raises_the_same(probe: WorkProbe) -> None:
    work = probe.pool("pool", "thread").wrap(fails)
    error = ValueError("x")
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        work(error)
    assert raised.value is error
    assert counts(row(probe)) == {
        "submitted": 1,
        "failed": {"ValueError": 1},
        "queued": 1,
        "ran": {f"{HERE}.fails": 1},
    }
    frames = traceback.extract_tb(error.__traceback__)
    assert len(frames) <= 3  # this test, at most one of ours, and the function
    assert frames[-1].name == "fails"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_ends_a_thread_passes_through(probe: WorkProbe, error: BaseException) -> None:
    work = probe.pool("pool", "thread").wrap(fails)
    with pytest.raises(type(error)) as raised:
        work(error)
    assert raised.value is error
    assert row(probe).failed == {type(error).__qualname__: 1}


def test_it_runs_in_the_context_and_leaves_it(probe: WorkProbe) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    pool = probe.pool("pool", "thread")
    assert pool.wrap(variable.get, context)() == "inside"
    with pytest.raises(ValueError, match="once"):
        pool.wrap(fails, context)(ValueError("once"))
    assert variable.get() == "outside"
    assert context.run(variable.get) == "inside"
    pool.wrap(variable.set, context)("changed")
    assert (variable.get(), context[variable]) == ("outside", "changed")


def test_a_context_that_is_entered_refuses_as_always(probe: WorkProbe) -> None:
    context = contextvars.copy_context()
    work = probe.pool("pool", "thread").wrap(add, context)
    with pytest.raises(RuntimeError, match="already entered"):
        context.run(work, 1)
    assert row(probe).submitted == 1


def test_let_go_of_unrun_it_was_cancelled(probe: WorkProbe) -> None:
    pool = probe.pool("pool", "thread")
    work = pool.wrap(add)
    del work
    gc.collect()
    assert counts(row(probe)) == {"submitted": 1, "cancelled": 1}


def test_let_go_of_by_a_closing_pool_it_was_abandoned(probe: WorkProbe) -> None:
    pool = probe.pool("pool", "thread")
    work = pool.wrap(add)
    pool.is_closing = True
    del work
    gc.collect()
    assert counts(row(probe)) == {"submitted": 1, "abandoned": 1}
    assert probe.pool("pool", "thread").is_closing is False


def test_a_refused_one_is_rejected_and_nothing_else(probe: WorkProbe) -> None:
    work = probe.pool("pool", "thread").wrap(add)
    work.reject()
    work.reject()
    del work
    assert counts(row(probe)) == {"submitted": 1, "rejected": 1}


def test_run_again_it_runs_uncounted(probe: WorkProbe) -> None:
    work = probe.pool("pool", "thread").wrap(add)
    assert (work(1), work(2)) == (2, 3)
    assert row(probe).finished == 1


def test_what_ran_elsewhere_is_told(probe: WorkProbe) -> None:
    pool = probe.pool("pool", "process")
    for _ in range(3):
        pool.submitted()
    pool.done("m.f", queue_ns=1000, run_ns=2000, transfer_ns=500)
    pool.done("m.f", queue_ns=-1, run_ns=-1, error_type="m.Error")
    pool.done("m.f", queue_ns=-1, run_ns=-1, cancelled=True)
    pool.rejected()
    pool.crashed("SIGKILL")
    pool.unretrieved("m.Error")
    pool.abandoned(2)
    read = row(probe)
    assert counts(read) == {
        "submitted": 4,
        "finished": 1,
        "failed": {"m.Error": 1},
        "cancelled": 1,
        "rejected": 1,
        "abandoned": 2,
        "crashes": {"SIGKILL": 1},
        "unretrieved": {"m.Error": 1},
        "queued": 1,
        "sent": 1,
        "ran": {"m.f": 1},
    }
    assert (read.queue_times.sum_ns, read.run_times["m.f"].sum_ns, read.transfer_times.sum_ns) == (
        1000,
        2000,
        500,
    )


def test_pools_of_one_name_share_a_row_and_kinds_do_not(probe: WorkProbe) -> None:
    for kind in ("thread", "thread", "process"):
        probe.pool("pool", kind).submitted()  # type: ignore[arg-type]
    assert [(each.name, each.kind, each.submitted) for each in probe.read()] == [
        ("pool", "thread", 2),
        ("pool", "process", 1),
    ]


def test_names_are_bounded(make: Callable[..., WorkProbe]) -> None:
    probe = make(max_error_types=1)
    pools = [probe.pool(f"pool-{i}", "thread") for i in range(34)]
    pools.append(probe.pool("process", "process"))
    for pool in pools:
        pool.submitted()
    rows = probe.read()
    assert len(rows) == 34
    assert [(each.name, each.kind, each.submitted) for each in rows[32:]] == [
        ("_other", "thread", 2),
        ("_other", "process", 1),
    ]
    for i in range(102):
        pools[0].done(f"m.f{i}", queue_ns=0, run_ns=1)
        pools[0].done(f"m.f{i}", queue_ns=0, run_ns=1, error_type=f"E{i % 3}")
    read = probe.read()[0]
    assert len(read.run_times) == 101
    assert read.run_times["_other"].count == 4
    assert read.failed == {"E0": 34, "_other": 68}


def test_exemplars_keep_where_the_work_came_from(probe: WorkProbe) -> None:
    context = contextvars.copy_context()
    context.run(origin.set, {"span": 1})
    pool = probe.pool("pool", "thread")
    pool.wrap(add, context)(1)
    pool.wrap(add)(1)
    pool.done("m.f", queue_ns=1000, run_ns=1000, origin={"span": 2})
    read = row(probe)
    assert [each.origin for each in read.run_times[f"{HERE}.add"].exemplars] == [{"span": 1}]
    assert [each.origin for each in read.run_times["m.f"].exemplars] == [{"span": 2}]
    assert row(probe).run_times[f"{HERE}.add"].exemplars == ()


def test_after_a_reset_earlier_work_counts_nowhere(probe: WorkProbe) -> None:
    pool = probe.pool("pool", "thread")
    pool.wrap(add)(1)
    ran, dropped, refused = pool.wrap(add), pool.wrap(add), pool.wrap(add)
    probe.reset()
    assert ran(1) == 2
    del dropped
    refused.reject()
    assert counts(row(probe)) == {}
    assert row(probe).queue_times == HistogramState()
    pool.wrap(add)(1)
    assert counts(row(probe)) == {"submitted": 1, "finished": 1, "queued": 1, "ran": {f"{HERE}.add": 1}}


def test_a_reset_within_a_run_is_survived(probe: WorkProbe) -> None:
    pool = probe.pool("pool", "thread")
    pool.wrap(probe.reset)()
    assert counts(row(probe)) == {}


def test_what_is_submitted_keeps_the_function_s_face(probe: WorkProbe) -> None:
    work: Any = probe.pool("pool", "thread").wrap(add)
    assert (work.__name__, work.__wrapped__, repr(work)) == ("add", add, repr(add))
    work.reject()


def test_a_collection_within_may_tell_more(probe: WorkProbe) -> None:
    """A finaliser that submits, rejects and counts while a row is being written loses nothing."""
    pool = probe.pool("pool", "thread")

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            pool.unretrieved("E")
            pool.wrap(add).reject()

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            Cycle()
            pool.wrap(add)(1)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    read = row(probe)
    assert (read.submitted, read.finished, read.rejected, read.unretrieved) == (400, 200, 200, {"E": 200})
