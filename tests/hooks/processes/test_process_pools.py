"""The hook on `ProcessPoolExecutor`: its six stories, and what an application can see of it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import multiprocessing
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, process
from pathlib import Path
from typing import Any

import pytest

from otel_concurrency.hooks.processes.process_pools import ProcessPoolHook
from otel_concurrency.hooks.threads import pool_items
from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.work import PoolLevel, WorkProbe
from tests.hooks import jobs
from tests.hooks.jobs import Diary, counts, only_row

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    # 3.12 and later warn of a fork beside other threads; these tests fork on purpose.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning"),
]
PATCHED = (
    (process._CallItem, "__init__"),
    (process._CallItem, "__setstate__"),
    (process._ResultItem, "__init__"),
    (process, "_sendback_result"),
    (process._SafeQueue, "_on_queue_feeder_error"),
    (process._ExecutorManagerThread, "process_result_item"),
    (process._ExecutorManagerThread, "flag_executor_shutting_down"),
    (process._ExecutorManagerThread, "terminate_broken"),
    (ProcessPoolExecutor, "__init__"),
    (ProcessPoolExecutor, "submit"),
)
CARRIER = {"traceparent": "00-0000000000000000000000000000000a-000000000000000b-01"}
NAME = "ProcessPoolExecutor"
DOUBLE = f"{jobs.__name__}.double"


def attributes() -> dict[tuple[str, str], Any]:
    return {(owner.__name__, name): vars(owner).get(name) for owner, name in PATCHED}


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> WorkProbe:
    return make_work_probe(native=request.param)


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


@pytest.fixture
def hook(probe: WorkProbe, diary: Diary) -> Iterator[ProcessPoolHook]:
    before = attributes()
    hook = ProcessPoolHook(probe, capture=CARRIER.copy, observer=diary, name=jobs.class_name)
    yield hook
    hook.remove()
    assert attributes() == before


def pool_of(method: str = "fork", workers: int = 1, **options: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method), **options)


def entry(function: str = DOUBLE, error: str | None = None) -> list[Any]:
    return [function, NAME, "process", CARRIER, error, error is not None]


def test_installed_it_counts_and_removed_it_does_not(
    hook: ProcessPoolHook, probe: WorkProbe, diary: Diary
) -> None:
    with pool_of() as pool:
        assert pool.submit(jobs.double, 1).result() == 2
    assert (probe.read(), diary.entries()) == ([], [])
    hook.install()
    with pool_of() as pool:
        assert pool.submit(jobs.double, 2).result() == 4
        hook.remove()
        assert pool.submit(jobs.double, 3).result() == 6
    assert counts(probe) == {"submitted": 1, "finished": 1}
    assert diary.entries()[:1] == [entry()]


def test_removal_leaves_every_class_as_it_was(hook: ProcessPoolHook) -> None:
    before = attributes()
    hook.install()
    assert all(value is not before[place] for place, value in attributes().items())
    hook.remove()
    assert attributes() == before
    assert "__setstate__" not in vars(process._CallItem)


def test_installed_twice_it_counts_once(hook: ProcessPoolHook, probe: WorkProbe, diary: Diary) -> None:
    hook.install()
    hook.install()
    with pool_of() as pool:
        pool.submit(jobs.double, 1).result()
    assert counts(probe) == {"submitted": 1, "finished": 1}
    assert diary.entries() == [entry()]
    hook.remove()
    assert "__setstate__" not in vars(process._CallItem)


def test_a_later_patch_survives_our_removal_and_ours_comes_back_once(
    hook: ProcessPoolHook, probe: WorkProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.install()
    ours = ProcessPoolExecutor.submit
    seen: list[Any] = []

    def theirs(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        seen.append(function)
        return ours(pool, function, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(ProcessPoolExecutor, "submit", theirs)
        hook.remove()
        assert ProcessPoolExecutor.submit is theirs
        with pool_of() as pool:
            assert pool.submit(jobs.double, 1).result() == 2
        assert probe.read() == []
        hook.install()
        with pool_of() as pool:
            assert pool.submit(jobs.double, 1).result() == 2
        assert counts(probe) == {"submitted": 1, "finished": 1}
        hook.remove()
    assert seen[0] is jobs.double
    ProcessPoolExecutor.submit = ours.__wrapped__  # type: ignore[attr-defined,method-assign]


class TroubleError(Exception):
    pass


def trouble(*args: Any) -> Any:
    raise TroubleError


def test_an_observer_that_raises_costs_the_program_nothing(
    probe: WorkProbe, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("otel_concurrency").addHandler(handler := logging.StreamHandler())
    hook = ProcessPoolHook(probe, observer=trouble)
    hook.install()
    try:
        with pool_of() as pool:
            assert list(pool.map(jobs.double, range(3))) == [0, 2, 4]
    finally:
        hook.remove()
        logging.getLogger("otel_concurrency").removeHandler(handler)
    assert counts(probe) == {"submitted": 3, "finished": 3}
    assert capfd.readouterr().err.count("Observing a work item failed") <= 1


def test_a_capture_that_raises_costs_the_program_nothing(
    probe: WorkProbe, caplog: pytest.LogCaptureFixture
) -> None:
    hook = ProcessPoolHook(probe, capture=trouble)
    hook.install()
    try:
        with pool_of() as pool:
            assert list(pool.map(jobs.double, range(3))) == [0, 2, 4]
    finally:
        hook.remove()
    assert probe.read()[0].submitted == 0
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [TroubleError]


def test_a_pool_that_is_shut_down_refuses_as_ever(hook: ProcessPoolHook, probe: WorkProbe) -> None:
    hook.install()
    pool = pool_of()
    pool.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$") as refused:
        pool.submit(jobs.double, 1)
    assert [each.name for each in refused.traceback].count("submit") == 2  # ours, then theirs
    assert counts(probe) == {"submitted": 1, "rejected": 1}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_has_the_carrier_and_times_what_it_runs(
    hook: ProcessPoolHook, probe: WorkProbe, diary: Diary, method: str
) -> None:
    """A spawned worker has no hook of ours here: it ignores the parcel, and the item is not timed."""
    hook.install()
    with pool_of(method) as pool:
        assert pool.submit(jobs.double, 4).result() == 8
        assert list(pool.map(jobs.add, [1, 2, 3], [4, 5, 6], chunksize=2)) == [5, 7, 9]
    row = only_row(probe)
    assert (row.name, row.kind, row.submitted, row.finished) == (NAME, "process", 3, 3)
    add = f"{jobs.__name__}.add"
    timed = 3 if method == "fork" else 0
    assert (row.queue_times.count, row.transfer_times.count) == (timed, timed)
    assert {name: times.count for name, times in row.run_times.items()} == (
        {DOUBLE: 1, add: 2} if timed else {}
    )
    assert diary.entries() == ([entry(), entry(add), entry(add)] if timed else [])
    assert os.getpid() not in diary.processes()


@pytest.mark.parametrize("function", [jobs.double, jobs.return_a_lambda], ids=["returns", "fails"])
def test_nobody_waits_for_what_is_left_to_do_of_an_item(
    probe: WorkProbe, tmp_path: Path, function: Callable[..., Any]
) -> None:
    """The worker finishes its item when somebody writes into the pipe: after the result has come back."""
    os.mkfifo(tmp_path / "pipe")

    def finish() -> None:
        (tmp_path / "finished").write_text(jobs.wait_for(str(tmp_path / "pipe")))

    hook = ProcessPoolHook(probe, observer=lambda *_: lambda error, stacktrace: finish)
    hook.install()
    try:
        with pool_of() as pool:
            future = pool.submit(function, *([1] if function is jobs.double else []))
            future.exception(30)
            assert not (tmp_path / "finished").exists()
            (tmp_path / "pipe").write_text("once")
    finally:
        hook.remove()
    assert (tmp_path / "finished").read_text() == "once"


def test_queue_run_and_transfer_time_add_up(
    hook: ProcessPoolHook, probe: WorkProbe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two items waits for the only worker as long as the first one runs."""
    os.mkfifo(tmp_path / "first")
    hook.install()
    with pool_of() as pool:
        first = pool.submit(jobs.wait_for, str(tmp_path / "first"))
        second = pool.submit(jobs.double, 1)
        began = pool_items.now_ns()
        (tmp_path / "first").write_text("go")  # returns once the worker reads
        assert (first.result(), second.result()) == ("go", 2)
        total = pool_items.now_ns() - began
    row = only_row(probe)
    ran = row.run_times[f"{jobs.__name__}.wait_for"]
    assert row.queue_times.max_ns >= ran.sum_ns
    assert row.run_times[DOUBLE].sum_ns < row.queue_times.max_ns
    assert row.transfer_times.count == 2
    assert total > 0


def test_a_cancelled_item_counts_as_cancelled(
    hook: ProcessPoolHook, probe: WorkProbe, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "first")
    hook.install()
    with pool_of() as pool:
        first = pool.submit(jobs.wait_for, str(tmp_path / "first"))
        futures = [pool.submit(jobs.double, number) for number in range(5)]
        assert futures[-1].cancel()
        (tmp_path / "first").write_text("go")
        assert first.result() == "go"
    with pytest.raises(CancelledError):
        futures[-1].result()
    assert counts(probe) == {"submitted": 6, "finished": 5, "cancelled": 1}


def test_what_a_shutdown_drops_counts_as_abandoned(
    hook: ProcessPoolHook, probe: WorkProbe, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "first")
    hook.install()
    pool = pool_of()
    pool.submit(jobs.wait_for, str(tmp_path / "first"))
    futures = [pool.submit(jobs.double, number) for number in range(8)]
    futures[-1].cancel()
    is_dropped = threading.Event()
    futures[-2].add_done_callback(lambda _: is_dropped.set())
    pool.shutdown(wait=False, cancel_futures=True)
    assert is_dropped.wait(30)  # else the worker may be through with all of them first
    (tmp_path / "first").write_text("go")
    pool.shutdown()
    _join_managers()
    dropped = sum(future.cancelled() for future in futures[:-1])
    del futures, pool
    assert dropped > 0
    assert counts(probe) == {
        "submitted": 9,
        "finished": 8 - dropped,
        "abandoned": dropped,
        "cancelled": 1,
    }


def _join_managers() -> None:
    for thread in list(process._threads_wakeups):
        thread.join()


def test_a_forked_child_says_nothing_of_what_it_inherited(hook: ProcessPoolHook, probe: WorkProbe) -> None:
    hook.install()
    with pool_of() as pool:
        pool.submit(jobs.double, 1).result()
        assert [level.limit for level in hook.levels()] == [1]
        child = os.fork()
        if not child:
            os._exit(len(list(hook.levels())))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_levels_tell_how_full_a_pool_is(hook: ProcessPoolHook, tmp_path: Path) -> None:
    hook.install()
    pipes = [tmp_path / "first", tmp_path / "second"]
    with pool_of(workers=2) as pool:
        assert list(hook.levels()) == [PoolLevel(NAME, "process", 0, 0, 2, 0)]
        for pipe in pipes:
            os.mkfifo(pipe)
        waiting = [pool.submit(jobs.wait_for, str(pipe)) for pipe in pipes]
        futures = [pool.submit(jobs.double, number) for number in range(3)]
        assert list(hook.levels()) == [PoolLevel(NAME, "process", 2, 0, 2, 3)]
        for pipe in pipes:
            pipe.write_text("go")
        assert [future.result() for future in (*waiting, *futures)] == ["go", "go", 0, 2, 4]
    assert list(hook.levels()) == []


# What the application sees of errors, bare and with us.


def outcome(future: Future[Any]) -> tuple[str, ...]:
    """Return all there is to see of a failure, addresses and the frames of the waiting side apart."""
    error = future.exception()
    assert error is not None
    cause = error.__cause__
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return tuple(
        re.sub(r"0x[0-9a-f]+", "0x…", str(part))
        for part in (
            type(error),
            error,
            repr(error),
            error.args,
            getattr(error, "__notes__", None),
            type(cause),
            cause,
            error.__context__,
            error.__suppress_context__,
            told,
        )
    )


def unpicklable_argument() -> Any:
    return functools.partial(jobs.double, lambda: None)


FAILURES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "raises": (jobs.fail, (1,)),
    "raises in a chunk": (process._process_chunk, (jobs.fail, [(1,), (2,)])),
    "function cannot be pickled": (lambda: None, ()),
    "argument cannot be pickled": (jobs.double, (lambda: None,)),
    "partial cannot be pickled": (unpicklable_argument(), ()),
    "result cannot be pickled": (jobs.return_a_lambda, ()),
    "not a function": (3, ()),  # type: ignore[dict-item]
    "leaves": (jobs.exit_worker, ()),
    "is killed": (jobs.die, ()),
    "exits": (jobs.exit_at_once, (7,)),
    "error cannot be unpickled": (jobs.fail_unreadably, ()),
}
COUNTED = {
    "raises": f"{jobs.__name__}.RefusedError",
    "raises in a chunk": f"{jobs.__name__}.RefusedError",
    "leaves": "SystemExit",
    "not a function": "TypeError",
    "is killed": "concurrent.futures.process.BrokenProcessPool",
    "exits": "concurrent.futures.process.BrokenProcessPool",
    "error cannot be unpickled": "concurrent.futures.process.BrokenProcessPool",
}
CRASHES = {"is killed": {"SIGKILL": 1}, "exits": {"exit 7": 1}, "error cannot be unpickled": {"unknown": 1}}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_looks_as_it_does_without_us_and_is_counted(
    hook: ProcessPoolHook, probe: WorkProbe, failure: str
) -> None:
    function, args = FAILURES[failure]
    seen = []
    for observe in (lambda: None, hook.install):
        observe()
        with pool_of() as pool:
            seen.append(outcome(pool.submit(function, *args)))
            with contextlib.suppress(process.BrokenProcessPool):
                assert pool.submit(jobs.double, 1).result() == 2
    bare, ours = seen
    if failure in ("exits", "is killed"):
        # Whether the pool hears of it by the process's end or by its broken pipe, which leaves a cause, is
        # CPython's own race.
        bare, ours = bare[:5], ours[:5]
    assert ours == bare
    row = only_row(probe)
    error_type = COUNTED.get(failure, sorted(row.failed)[0])
    assert row.failed[error_type] >= 1
    assert sum(row.failed.values()) + row.finished + row.rejected == row.submitted == 2
    assert row.crashes == CRASHES.get(failure, {})


def test_a_broken_pool_refuses_as_ever(hook: ProcessPoolHook, probe: WorkProbe) -> None:
    hook.install()
    with pool_of() as pool:
        with pytest.raises(process.BrokenProcessPool):
            pool.submit(jobs.die).result()
        with pytest.raises(process.BrokenProcessPool, match="not usable anymore"):
            pool.submit(jobs.double, 1)
    assert counts(probe) == {
        "submitted": 2,
        "failed": {"concurrent.futures.process.BrokenProcessPool": 1},
        "rejected": 1,
        "crashes": {"SIGKILL": 1},
    }


def test_a_function_runs_on_no_frame_of_ours(hook: ProcessPoolHook) -> None:
    depths = []
    for observe in (lambda: None, hook.install):
        observe()
        with pool_of() as pool:
            depths.append(pool.submit(jobs.stack_depth).result())
    assert depths[0] == depths[1]


def test_an_item_that_outlives_the_hook_arrives_as_a_plain_callable(
    hook: ProcessPoolHook, probe: WorkProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patch that unwraps it is gone when it is packed."""
    hook.install()
    bare = process._CallItem.__init__.__wrapped__  # type: ignore[attr-defined]
    with pool_of() as pool:
        monkeypatch.setattr(process._CallItem, "__init__", bare)
        assert pool.submit(jobs.double, 4).result() == 8
    monkeypatch.undo()
    row = only_row(probe)
    assert (row.submitted, row.finished, row.run_times) == (1, 1, {})


@pytest.mark.skipif(sys.version_info < (3, 11), reason="max_tasks_per_child came with CPython 3.11")
def test_workers_that_leave_after_some_items_are_no_crash(hook: ProcessPoolHook, probe: WorkProbe) -> None:
    hook.install()
    with pool_of("spawn", max_tasks_per_child=1) as pool:
        assert list(pool.map(jobs.double, range(2))) == [0, 2]
    assert counts(probe) == {"submitted": 2, "finished": 2}


def test_a_pool_is_named_by_where_it_was_made(probe: WorkProbe) -> None:
    hook = ProcessPoolHook(probe)
    hook.install()
    try:
        with pool_of() as pool:  # the line in `pool_of`
            pool.submit(jobs.double, 1).result()
    finally:
        hook.remove()
    line = inspect.getsourcelines(pool_of)[1] + 1
    assert only_row(probe).name == f"{__name__}:{line}"
