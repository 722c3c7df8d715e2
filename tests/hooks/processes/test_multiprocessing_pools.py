"""The hook on `multiprocessing.Pool` and `ThreadPool`: its six stories, and what an application can see."""

from __future__ import annotations

import contextvars
import gc
import multiprocessing
import os
import re
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import pool as pool_module
from multiprocessing.pool import Pool, ThreadPool
from pathlib import Path
from typing import Any

import pytest

from otel_concurrency.hooks.processes.multiprocessing_pools import MultiprocessingPoolHook
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
    (pool_module, "worker"),
    (Pool, "_maintain_pool"),
    (Pool, "_terminate_pool"),
    (Pool, "_check_running"),
    (Pool, "_setup_queues"),
    (ThreadPool, "_setup_queues"),
    (pool_module.ApplyResult, "__init__"),
    (pool_module.MapResult, "__init__"),
    (pool_module.IMapIterator, "__init__"),
)
CARRIER = {"traceparent": "00-0000000000000000000000000000000a-000000000000000b-01"}
HERE = jobs.__name__
FORMS: dict[str, tuple[Callable[[Pool], Any], Any, list[str]]] = {  # what it gives, and its items
    "apply": (lambda pool: pool.apply(jobs.double, (1,)), 2, ["double"]),
    "apply_async": (lambda pool: pool.apply_async(jobs.add, (1,), {"right": 2}).get(), 3, ["add"]),
    "map": (lambda pool: pool.map(jobs.double, range(5), 2), [0, 2, 4, 6, 8], ["double"] * 3),
    "map_async": (lambda pool: pool.map_async(jobs.double, range(2), 1).get(), [0, 2], ["double"] * 2),
    "map of nothing": (lambda pool: pool.map(jobs.double, []), [], []),
    "imap": (lambda pool: list(pool.imap(jobs.double, range(3))), [0, 2, 4], ["double"] * 3),
    "imap in chunks": (lambda pool: list(pool.imap(jobs.double, range(3), 2)), [0, 2, 4], ["double"] * 2),
    "imap_unordered": (
        lambda pool: sorted(pool.imap_unordered(jobs.double, range(3))),
        [0, 2, 4],
        ["double"] * 3,
    ),
    "starmap": (lambda pool: pool.starmap(jobs.add, [(1, 2), (3, 4)], 1), [3, 7], ["add"] * 2),
    "starmap_async": (lambda pool: pool.starmap_async(jobs.add, [(1, 2)]).get(), [3], ["add"]),
}


def attributes() -> dict[tuple[str, str], Any]:
    return {(owner.__name__, name): vars(owner)[name] for owner, name in PATCHED}


@pytest.fixture
def probe() -> WorkProbe:
    return make_work_probe(native=True)


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


@pytest.fixture
def hook(probe: WorkProbe, diary: Diary) -> Iterator[MultiprocessingPoolHook]:
    before = attributes()
    hook = MultiprocessingPoolHook(probe, capture=CARRIER.copy, observer=diary, name=jobs.class_name)
    yield hook
    hook.remove()
    assert attributes() == before


def pool_of(method: str = "fork", workers: int = 1, **options: Any) -> Pool:
    return multiprocessing.get_context(method).Pool(workers, **options)


def finish(pool: Pool) -> None:
    pool.close()
    pool.join()


def test_installed_it_counts_and_removed_it_does_not(hook: MultiprocessingPoolHook, probe: WorkProbe) -> None:
    pool = pool_of()
    assert pool.apply(jobs.double, (1,)) == 2
    hook.install()
    assert pool.apply(jobs.double, (1,)) == 2  # a pool made before us is left alone
    finish(pool)
    assert probe.read() == []
    pool = pool_of()
    assert pool.apply(jobs.double, (2,)) == 4
    hook.remove()
    assert pool.apply(jobs.double, (3,)) == 6
    finish(pool)
    assert counts(probe) == {"submitted": 1, "finished": 1}


def test_an_item_on_its_way_arrives_when_the_hook_is_gone(
    hook: MultiprocessingPoolHook, probe: WorkProbe, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "first")
    hook.install()
    pool = pool_of()
    result = pool.apply_async(jobs.wait_for, (str(tmp_path / "first"),))
    hook.remove()
    (tmp_path / "first").write_text("go")
    assert result.get() == "go"
    finish(pool)


def test_removal_leaves_every_class_as_it_was(hook: MultiprocessingPoolHook) -> None:
    before = attributes()
    hook.install()
    assert all(value is not before[place] for place, value in attributes().items())
    hook.remove()
    assert attributes() == before


def test_installed_twice_it_counts_once(
    hook: MultiprocessingPoolHook, probe: WorkProbe, diary: Diary
) -> None:
    hook.install()
    hook.install()
    pool = pool_of()
    pool.apply(jobs.double, (1,))
    finish(pool)
    assert counts(probe) == {"submitted": 1, "finished": 1}
    assert len(diary.entries()) == 1


def test_a_later_patch_survives_our_removal(
    hook: MultiprocessingPoolHook, probe: WorkProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = vars(Pool)["_setup_queues"]
    hook.install()
    ours = Pool._setup_queues  # type: ignore[attr-defined]
    seen: list[Any] = []

    def theirs(pool: Any) -> None:
        seen.append(pool)
        ours(pool)

    with monkeypatch.context() as patched:
        patched.setattr(Pool, "_setup_queues", theirs)
        hook.remove()
        pool = pool_of()
        assert pool.apply(jobs.double, (1,)) == 2
        finish(pool)
    assert seen == [pool]
    assert probe.read() == []
    Pool._setup_queues = before  # type: ignore[attr-defined]


class TroubleError(Exception):
    pass


def trouble(*args: Any) -> Any:
    raise TroubleError


@pytest.mark.parametrize("options", [{"capture": trouble}, {"observer": trouble}, {"name": trouble}])
@pytest.mark.parametrize("kind", [Pool, ThreadPool])
def test_an_observer_that_raises_costs_the_program_nothing(
    probe: WorkProbe, options: dict[str, Any], kind: Callable[..., Pool]
) -> None:
    hook = MultiprocessingPoolHook(probe, **options)
    hook.install()
    try:
        pool = kind(1)
        assert [form(pool) for form, _, _ in FORMS.values()] == [gives for _, gives, _ in FORMS.values()]
        finish(pool)
    finally:
        hook.remove()


@pytest.mark.parametrize("form", FORMS)
def test_a_pool_that_is_closed_refuses_as_ever(
    hook: MultiprocessingPoolHook, probe: WorkProbe, form: str
) -> None:
    hook.install()
    pool = pool_of()
    finish(pool)
    with pytest.raises(ValueError, match=r"^Pool not running$"):
        FORMS[form][0](pool)
    with pytest.raises(ValueError, match=r"^Pool not running$"), pool:
        pass
    assert counts(probe) == {"submitted": 1, "rejected": 1}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_carries_and_times_its_items(
    hook: MultiprocessingPoolHook, probe: WorkProbe, diary: Diary, form: str
) -> None:
    submit, gives, items = FORMS[form]
    hook.install()
    pool = pool_of()
    assert submit(pool) == gives
    finish(pool)
    assert diary.entries() == [[f"{HERE}.{name}", "Pool", "mp_pool", CARRIER, None, False] for name in items]
    assert os.getpid() not in diary.processes()
    row = only_row(probe)
    assert (row.submitted, row.finished) == (len(items), len(items))
    assert (row.queue_times.count, row.transfer_times.count) == (len(items), len(items))
    assert {name: times.count for name, times in row.run_times.items()} == (
        {f"{HERE}.{items[0]}": len(items)} if items else {}
    )


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_without_us_works(hook: MultiprocessingPoolHook, probe: WorkProbe, method: str) -> None:
    hook.install()
    pool = pool_of(method)
    assert [form(pool) for form, _, _ in FORMS.values()] == [gives for _, gives, _ in FORMS.values()]
    finish(pool)
    items = sum(len(items) for _, _, items in FORMS.values())
    assert counts(probe) == {"submitted": items, "finished": items}
    assert only_row(probe).queue_times.count == 0


@pytest.mark.parametrize("form", FORMS)
def test_an_item_of_threads_runs_in_its_submitters_context(
    hook: MultiprocessingPoolHook, probe: WorkProbe, form: str
) -> None:
    """Each time the submitter's, never that of who made the pool, nor of who came before."""
    variable = contextvars.ContextVar("variable", default="nobody")
    variable.set("maker")
    hook.install()
    pool = ThreadPool(2)
    submit, _, items = FORMS[form]
    for who in ("first", "second"):
        variable.set(who)
        seen: list[str] = []

        def note(*args: Any, seen: list[str] = seen, **kwargs: Any) -> None:
            seen.append(variable.get())
            variable.set("item")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(jobs, "double", note)
            patched.setattr(jobs, "add", note)
            pool.map(note, [1])
            pool.apply(note)
            pool.starmap(note, [(1, 2)])
            list(pool.imap(note, [1, 2]))
        assert seen[0] == who
        assert set(seen) == {who}
    submit(pool)
    finish(pool)
    assert variable.get() == "second"
    assert counts(probe) == {"submitted": 10 + len(items), "finished": 10 + len(items)}


def test_what_a_terminated_pool_drops_counts_as_abandoned(
    hook: MultiprocessingPoolHook, probe: WorkProbe, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "first")
    hook.install()
    with pool_of() as pool:
        assert pool.apply(jobs.double, (1,)) == 2
        pool.apply_async(jobs.wait_for, (str(tmp_path / "first"),))
        pool.map_async(jobs.double, range(4), 1)
        assert list(hook.levels()) == [PoolLevel("Pool", "mp_pool", 1, 0, 1, 4)]
    assert counts(probe) == {"submitted": 6, "finished": 1, "abandoned": 5}
    assert list(hook.levels()) == []


def test_what_a_terminated_pool_of_threads_drops_counts_as_abandoned(
    hook: MultiprocessingPoolHook, probe: WorkProbe
) -> None:
    started, release = threading.Event(), threading.Event()
    hook.install()
    pool = ThreadPool(1)
    pool.apply_async(lambda: (started.set(), release.wait(30)))
    assert started.wait(30)
    for number in range(3):
        pool.apply_async(jobs.double, (number,))
    while counts(probe).get("submitted") != 4:  # by the pool's own thread, one after the other
        threading.Event().wait(0.01)
    ending = threading.Thread(target=pool.terminate)
    ending.start()
    while counts(probe).get("abandoned") != 3:
        threading.Event().wait(0.01)
    release.set()
    ending.join()
    pool.join()
    assert counts(probe) == {"submitted": 4, "finished": 1, "abandoned": 3}


@pytest.mark.parametrize("kind", [multiprocessing.get_context("fork").Pool, ThreadPool])
@pytest.mark.parametrize("form", ["map_async", "imap"])
def test_a_terminated_pool_is_let_go_with_its_workers(
    hook: MultiprocessingPoolHook, probe: WorkProbe, kind: Callable[..., Pool], form: str
) -> None:
    """Also where items are left whose result, which refers to the pool, nobody will ever complete."""
    hook.install()
    pool = kind(1)
    pool.apply(jobs.double, (1,))
    getattr(pool, form)(time.sleep, [0.01] * 500, 1)
    parts = [pool, pool._pool[0], pool._result_handler]  # type: ignore[attr-defined]
    left = [weakref.ref(part) for part in parts]
    pool.terminate()
    pool.join()
    del pool, parts
    gc.collect()
    assert [part() for part in left] == [None, None, None]
    assert only_row(probe).finished < 500


def test_a_worker_that_dies_is_counted(hook: MultiprocessingPoolHook, probe: WorkProbe) -> None:
    """The pool starts another one, and what the first one ran is never heard of again."""
    hook.install()
    with pool_of() as pool:
        pool.apply_async(jobs.exit_at_once, (7,))
        assert pool.apply(jobs.double, (1,)) == 2
        while not only_row(probe).crashes:
            threading.Event().wait(0.01)
    assert counts(probe) == {"submitted": 2, "finished": 1, "abandoned": 1, "crashes": {"exit 7": 1}}


def test_workers_that_leave_after_some_items_are_no_crash(
    hook: MultiprocessingPoolHook, probe: WorkProbe
) -> None:
    hook.install()
    pool = pool_of(maxtasksperchild=1)
    assert pool.map(jobs.double, range(3), 1) == [0, 2, 4]
    finish(pool)
    assert counts(probe) == {"submitted": 3, "finished": 3}


def failing() -> Iterator[int]:
    yield 1
    raise KeyError("in the iterable")


FAILURES: dict[str, Callable[[Pool], Any]] = {
    "raises": lambda pool: pool.apply(jobs.fail, (1,)),
    "raises in a chunk": lambda pool: pool.map(jobs.fail, [1, 2], 2),
    "function cannot be pickled": lambda pool: pool.apply(lambda: None),
    "function of a chunk cannot be pickled": lambda pool: pool.map(lambda number: None, [1]),
    "argument cannot be pickled": lambda pool: pool.apply(jobs.double, (lambda: None,)),
    "result cannot be pickled": lambda pool: pool.apply(jobs.return_a_lambda),
    "iterable raises": lambda pool: list(pool.imap(jobs.double, failing())),
    "not a function": lambda pool: pool.apply(3),  # type: ignore[arg-type]
}


def outcome(pool: Pool, failure: str) -> tuple[str, ...]:
    """Return what there is to see of a failure, addresses and frames of this process apart."""
    try:
        FAILURES[failure](pool)
    except Exception as error:
        cause = error.__cause__
        parts = (
            type(error),
            error,
            repr(error),
            error.args,
            getattr(error, "__notes__", None),
            type(cause),
            cause,
            error.__context__,
            error.__suppress_context__,
            traceback.format_exception_only(type(error), error),
        )
        return tuple(re.sub(r"0x[0-9a-f]+", "0x…", str(part)) for part in parts)
    raise AssertionError(failure)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_looks_as_it_does_without_us_and_is_counted(
    hook: MultiprocessingPoolHook, probe: WorkProbe, failure: str
) -> None:
    seen = []
    for observe in (lambda: None, hook.install):
        observe()
        pool = pool_of()
        seen.append(outcome(pool, failure))
        assert pool.apply(jobs.double, (1,)) == 2
        finish(pool)
    bare, ours = seen
    assert ours == bare
    row = only_row(probe)
    assert sum(row.failed.values()) + row.finished == row.submitted >= 2
    assert sum(row.failed.values()) == (0 if failure == "iterable raises" else 1)


def test_a_function_runs_on_no_frame_of_ours_but_the_loops(hook: MultiprocessingPoolHook) -> None:
    depths = []
    for observe in (lambda: None, hook.install):
        observe()
        pool = pool_of()
        depths.append(pool.apply(jobs.stack_depth))
        finish(pool)
    assert depths[0] == depths[1]


def test_a_forked_child_says_nothing_of_what_it_inherited(hook: MultiprocessingPoolHook) -> None:
    hook.install()
    with pool_of():
        assert [level.limit for level in hook.levels()] == [1]
        child = os.fork()
        if not child:
            os._exit(len(list(hook.levels())))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", [multiprocessing.get_context("fork").Pool, ThreadPool])
def test_a_pool_is_named_by_where_it_was_made(probe: WorkProbe, kind: Callable[..., Pool]) -> None:
    hook = MultiprocessingPoolHook(probe)
    hook.install()
    try:
        line = sys._getframe().f_lineno + 1
        pool = kind(1)
        pool.apply(jobs.double, (1,))
        finish(pool)
    finally:
        hook.remove()
    assert only_row(probe).name == f"{__name__}:{line}"
