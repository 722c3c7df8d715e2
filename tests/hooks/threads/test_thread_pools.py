"""The thread pool hook: its six stories, what each work item sees, and what an application can see of us."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from contextvars import ContextVar
from typing import Any

import pytest

from otel_concurrency.hooks.threads.thread_pools import ThreadPoolHook, pool_name
from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.work import PoolLevel, PoolRow, WorkProbe
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
variable: ContextVar[str] = ContextVar("variable", default="nothing")


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> WorkProbe:
    return make_work_probe(native=request.param)


@pytest.fixture
def hook(probe: WorkProbe) -> Iterator[ThreadPoolHook]:
    hook = ThreadPoolHook(probe)
    yield hook
    hook.remove()


@pytest.fixture
def installed(hook: ThreadPoolHook) -> ThreadPoolHook:
    hook.install()
    return hook


def rows(probe: WorkProbe) -> dict[str, PoolRow]:
    return {row.name: row for row in probe.read() if row.submitted}


def one(probe: WorkProbe) -> PoolRow:
    [row] = rows(probe).values()
    return row


def double(number: int) -> int:
    return 2 * number


def fails() -> None:
    raise ValueError("x")


def test_installed_it_counts_and_removed_it_does_not(hook: ThreadPoolHook, probe: WorkProbe) -> None:
    with ThreadPoolExecutor(1, "old") as old:
        assert old.submit(double, 1).result() == 2
        hook.install()
        with ThreadPoolExecutor(1, "new") as new:
            assert [pool.submit(double, 2).result() for pool in (old, new)] == [4, 4]
        hook.remove()
        assert old.submit(double, 3).result() == 6
        assert "_otel_concurrency_pool" not in vars(old)
    assert {name: (row.submitted, row.finished) for name, row in rows(probe).items()} == {
        "old": (1, 1),
        "new": (1, 1),
    }


def test_removal_leaves_the_class_as_it_was(hook: ThreadPoolHook) -> None:
    before = dict(vars(ThreadPoolExecutor))
    hook.install()
    hook.install()
    assert dict(vars(ThreadPoolExecutor)) != before
    hook.remove()
    assert dict(vars(ThreadPoolExecutor)) == before


def test_installed_twice_it_counts_once(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    installed.install()
    with ThreadPoolExecutor(1, "p") as pool:
        pool.submit(double, 1).result()
    assert one(probe).submitted == 1


def test_a_later_patch_survives_our_removal(
    installed: ThreadPoolHook, probe: WorkProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ThreadPoolExecutor.submit
    seen: list[Any] = []

    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        seen.append(fn)
        return ours(self, fn, *args, **kwargs)

    ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]
    try:
        installed.remove()
        with ThreadPoolExecutor(1, "p") as pool:
            assert pool.submit(double, 1).result() == 2
        assert seen == [double]
        assert rows(probe) == {}
    finally:
        ThreadPoolExecutor.submit = ours.__wrapped__  # type: ignore[attr-defined, method-assign]


def test_a_fault_of_ours_leaves_the_pool_unmeasured(
    installed: ThreadPoolHook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*args: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(type(installed._pools), "pool", breaks, raising=False)
    with ThreadPoolExecutor(1, "p") as pool:
        assert pool.submit(double, 1).result() == 2
    assert caplog.text.count("not measured") == 1


def test_a_pool_that_is_shut_down_refuses_as_always(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    pool = ThreadPoolExecutor(1, "p")
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(double, 1)
    row = one(probe)
    assert (row.submitted, row.rejected, row.finished, row.cancelled) == (1, 1, 0, 0)


def test_each_item_has_its_submitter_s_context_and_no_other(installed: ThreadPoolHook) -> None:
    seen: list[str] = []
    with ThreadPoolExecutor(1, initializer=lambda: seen.append(variable.get())) as pool:
        for name in ("first", "second"):
            token = variable.set(name)
            seen.append(pool.submit(variable.get).result())
            pool.submit(variable.set, "changed").result()
            variable.reset(token)
        seen.append(pool.submit(variable.get).result())
        token = variable.set("mapped")
        seen += pool.map(lambda _: variable.get(), range(2))
        variable.reset(token)
    assert seen == ["nothing", "first", "second", "nothing", "mapped", "mapped"]


def test_run_in_executor_and_to_thread_go_through(
    installed: ThreadPoolHook, probe: WorkProbe, loop_factory: LoopFactory
) -> None:
    async def main() -> list[str]:
        variable.set("task's")
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(None, variable.get), await asyncio.to_thread(variable.get)]

    assert run(loop_factory, main()) == ["task's", "task's"]
    assert [(name, row.submitted, row.finished) for name, row in rows(probe).items()] == [("asyncio", 2, 2)]


def test_outcomes_are_told_apart(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    busy, go = threading.Event(), threading.Event()

    def waits() -> None:
        busy.set()
        go.wait(30)

    with ThreadPoolExecutor(1, "p") as pool:
        pool.submit(waits)
        assert busy.wait(30)
        cancelled = pool.submit(double, 1)
        failed = pool.submit(fails)
        assert cancelled.cancel()
        go.set()
        assert isinstance(failed.exception(), ValueError)
    del cancelled
    row = one(probe)
    assert (row.submitted, row.finished, row.cancelled, row.failed) == (3, 1, 1, {"ValueError": 1})
    assert row.queue_times.count == 2
    assert {name.rpartition(".")[2]: times.count for name, times in row.run_times.items()} == {
        "waits": 1,
        "fails": 1,
    }


def test_what_a_shutdown_gives_up_is_abandoned(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    busy, go = threading.Event(), threading.Event()

    def waits() -> None:
        busy.set()
        go.wait(30)

    pool = ThreadPoolExecutor(1, "p")
    pool.submit(waits)
    assert busy.wait(30)
    futures = [pool.submit(double, number) for number in range(3)]
    pool.shutdown(wait=False, cancel_futures=True)
    go.set()
    pool.shutdown()
    assert all(future.cancelled() for future in futures)
    row = one(probe)
    assert (row.submitted, row.finished, row.cancelled, row.abandoned) == (4, 1, 0, 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_initializer_that_fails_breaks_the_pool(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    with ThreadPoolExecutor(1, "p", initializer=fails) as pool:
        future = pool.submit(double, 1)
        with pytest.raises(BrokenThreadPool):
            future.result(30)
        with pytest.raises(BrokenThreadPool):
            pool.submit(double, 1)
    del future
    row = one(probe)
    assert (row.submitted, row.abandoned, row.rejected, row.crashes) == (2, 1, 1, {"BrokenThreadPool": 1})


def test_an_exception_is_the_one_it_was(installed: ThreadPoolHook) -> None:
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(fails).exception()
    assert error is not None
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert len(names) <= 4
    assert (names[0], names[-1]) == ("run", "fails")


def test_levels_tell_workers_and_queue(installed: ThreadPoolHook) -> None:
    busy = threading.Barrier(3)
    go = threading.Event()

    def waits() -> None:
        busy.wait(30)
        go.wait(30)

    def level() -> list[PoolLevel]:
        return [each for each in installed.levels() if each.name == "levels"]

    with ThreadPoolExecutor(2, "levels-7") as pool:
        assert level() == [PoolLevel("levels", "thread", 0, 0, 2, 0)]
        futures = [pool.submit(waits) for _ in range(2)]
        busy.wait(30)
        futures += [pool.submit(double, 1) for _ in range(3)]
        assert level() == [PoolLevel("levels", "thread", 2, 0, 2, 3)]
        go.set()
        for future in futures:
            future.result(30)
    assert level() == []


def test_a_pool_that_is_made_otherwise_has_no_level(installed: ThreadPoolHook) -> None:
    with ThreadPoolExecutor(1, "plain") as plain, ThreadPoolExecutor(1, "odd") as odd:
        plain.submit(int).result()
        odd.submit(int).result()
        queue = odd._work_queue
        del odd._work_queue
        try:
            assert [each.name for each in installed.levels()] == ["plain"]
        finally:
            odd._work_queue = queue


def test_a_pool_is_not_kept_alive(installed: ThreadPoolHook) -> None:
    pool = ThreadPoolExecutor(1, "gone")
    pool.submit(double, 1).result()
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    assert [each for each in installed.levels() if each.name == "gone"] == []


def test_what_a_worker_ran_is_let_go_of(installed: ThreadPoolHook) -> None:
    class Argument:
        pass

    argument = Argument()
    reference = weakref.ref(argument)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(id, argument).result()
        del argument
        pool.submit(int).result()
        assert reference() is None


def test_a_pool_of_the_telemetry_is_left_alone(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    names: dict[str, Any] = {"__name__": "opentelemetry.sdk.x", "ThreadPoolExecutor": ThreadPoolExecutor}
    exec("def make():\n    return ThreadPoolExecutor(1)", names)
    with names["make"]() as pool:
        token = variable.set("caller's")
        assert pool.submit(variable.get).result() == "nothing"
        variable.reset(token)
    assert rows(probe) == {}
    assert installed.levels() == []


def test_an_unnamed_pool_is_named_by_where_it_was_made(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    line = sys._getframe().f_lineno + 1
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
    assert one(probe).name == f"{__name__}:{line}"


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("files", "files"),
        ("worker-12", "worker"),
        ("shard_3-io", "shard-io"),
        ("ThreadPoolExecutor-0", "m:1"),
        ("42", "m:1"),
        ("", "m:1"),
        (None, "m:1"),
    ],
)
def test_names_have_no_digits(prefix: str | None, name: str) -> None:
    assert pool_name(prefix, "m:1") == name


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor came with CPython 3.14")
def test_an_interpreter_pool_gets_what_was_submitted(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined]

    with InterpreterPoolExecutor(1, thread_name_prefix="sub") as pool:
        assert pool.submit(abs, -3).result() == 3
        assert isinstance(pool.submit(divmod, 1, 0).exception(), ZeroDivisionError)
        assert [each.kind for each in installed.levels() if each.name == "sub"] == ["interpreter"]
    row = one(probe)
    assert (row.kind, row.submitted, row.finished, row.failed) == (
        "interpreter",
        2,
        1,
        {"ZeroDivisionError": 1},
    )


def test_after_a_fork_pools_are_found_again(installed: ThreadPoolHook, probe: WorkProbe) -> None:
    with ThreadPoolExecutor(1, "p") as pool:
        pool.submit(int).result()
        probe.reset()
        installed.forget_pools()
        assert installed.levels() == []
        pool.submit(int).result()
        assert [each.name for each in installed.levels()] == ["p"]
    assert one(probe).submitted == 1
