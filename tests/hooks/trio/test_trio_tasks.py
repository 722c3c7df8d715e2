"""trio's tasks are counted as asyncio's are, step by step, and trio does what it does without us."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from trio._core import _run

from otel_concurrency.hooks.trio.trio_tasks import TrioTaskHook
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.tasks import LoopRow, TaskRow
from tests.hooks.trio_runs import run_as_guest

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

HERE = __name__
GROUP = "ExceptionGroup" if sys.version_info >= (3, 11) else "exceptiongroup.ExceptionGroup"


class Counting:
    """A hook, and what its probe has counted."""

    def __init__(self, *, native: bool = True) -> None:
        self.probe = make_task_probe(native=native)
        self.hook = TrioTaskHook(self.probe)

    def rows(self) -> dict[str, TaskRow]:
        """All rows that count something; this module's by their qualname."""
        return {row.function.removeprefix(f"{HERE}."): row for row in self.probe.read_rows() if row.created}

    def ends(self) -> dict[str, tuple[int, int, int, int, dict[str, int], int]]:
        """Tasks finished, cancelled, destroyed, failed and live, and steps."""
        return {
            name: (row.finished, row.cancelled, row.destroyed, dict(row.failed), row.live, row.steps)
            for name, row in self.rows().items()
        }


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def counting(request: pytest.FixtureRequest) -> Iterator[Counting]:
    before = vars(_run)["setup_runner"], vars(_run.Runner)["task_exited"]
    counting = Counting(native=request.param)
    counting.hook.install()
    yield counting
    counting.hook.remove()
    assert (vars(_run)["setup_runner"], vars(_run.Runner)["task_exited"]) == before


async def walks(checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()


async def fails() -> None:
    await trio.lowlevel.checkpoint()
    raise KeyError("x")


async def waits() -> None:
    await trio.sleep_forever()


async def waits_for_two() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        nursery.start_soon(waits)


async def together(*functions: Callable[..., Any]) -> None:
    """Run them in one nursery, and drop what comes of it."""
    try:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)
    except BaseExceptionGroup:
        pass


def test_each_end_and_each_step_is_counted_by_function(counting: Counting) -> None:
    """trio's own tasks, the first of a run and the one behind `run_sync_soon`, are not."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for checkpoints in range(4):
                nursery.start_soon(walks, checkpoints)
        await together(fails, waits)

    trio.run(main)
    main_name = f"{test_each_end_and_each_step_is_counted_by_function.__name__}.<locals>.main"
    ends = counting.ends()
    assert ends.pop(main_name)[:5] == (1, 0, 0, {}, 0)
    assert ends == {
        "walks": (4, 0, 0, {}, 0, 0 + 1 + 2 + 3 + 4),
        "fails": (0, 0, 0, {"KeyError": 1}, 0, 2),
        "waits": (0, 1, 0, {}, 0, 2),
    }


def test_every_number_has_its_histogram(counting: Counting) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(walks, 2)
            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    walked, waited = counting.rows()["walks"], counting.rows()["waits"]
    assert (walked.sees_steps, walked.created, waited.created) == (True, 1, 1)
    assert (walked.start_delays.count, waited.start_delays.count) == (1, 1)
    assert (walked.step_durations.count, waited.step_durations.count) == (3, 2)
    assert (walked.finished_durations.count, walked.cancelled_durations.count) == (1, 0)
    assert (waited.finished_durations.count, waited.cancelled_durations.count) == (0, 1)
    assert walked.busy_ns == walked.step_durations.sum_ns > 0


def test_busy_is_the_time_inside_steps_and_waiting_is_not(counting: Counting) -> None:
    took_ns: list[int] = []

    async def holds_and_waits() -> None:
        await trio.sleep(0.05)
        began_ns = time.monotonic_ns()
        time.sleep(0.02)
        took_ns.append(time.monotonic_ns() - began_ns)
        await trio.sleep(0.05)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(holds_and_waits)

    trio.run(main)
    (row,) = (row for name, row in counting.rows().items() if name.endswith("holds_and_waits"))
    assert row.step_durations.max_ns >= took_ns[0] >= 20_000_000
    assert row.finished_durations.max_ns >= row.busy_ns + 99_000_000


def test_a_group_of_nothing_but_cancellations_is_a_cancellation(counting: Counting) -> None:
    """A nursery wraps what ended in it, however deep."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits_for_two)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert counting.ends()["waits_for_two"][:4] == (0, 1, 0, {})


def test_a_group_with_a_failure_in_it_is_a_failure(counting: Counting) -> None:
    async def waits_and_fails() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)
            nursery.start_soon(fails)

    async def main() -> None:
        await together(waits_and_fails)

    trio.run(main)
    (row,) = (row for name, row in counting.rows().items() if name.endswith("waits_and_fails"))
    assert (row.cancelled, dict(row.failed)) == (0, {GROUP: 1})


def test_the_main_task_is_counted_with_its_own_end(counting: Counting) -> None:
    with pytest.raises(KeyError, match="x"):
        trio.run(fails)
    assert counting.ends() == {"fails": (0, 0, 0, {"KeyError": 1}, 0, 2)}


def test_the_states_of_a_run_are_told(counting: Counting) -> None:
    """Two wait, one is in line, and who asks runs."""
    told: list[LoopRow] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)
            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(walks, 1)
            told.extend(counting.probe.read_loops())
            nursery.cancel_scope.cancel()

    trio.run(main)
    (row,) = told
    assert (row.loop_type, row.running, row.scheduled, row.waiting) == ("trio", 1, 1, 2)
    assert row.oldest_function.endswith("<locals>.main")
    assert row.oldest_age_ns > 0
    assert [each for each in counting.probe.read_loops() if each.oldest_function] == []


def test_runs_in_two_threads_are_two_loops_and_nothing_is_lost(counting: Counting) -> None:
    both = threading.Barrier(2)
    told: list[list[LoopRow]] = []

    async def main() -> None:
        both.wait()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(walks, 5)
        both.wait()
        told.append(counting.probe.read_loops())
        both.wait()

    threads = [threading.Thread(target=trio.run, args=(main,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counting.ends()["walks"] == (400, 0, 0, {}, 0, 400 * 6)
    assert len({(row.loop_id, row.loop_type) for row in told[0]}) == 2


def test_a_run_inside_a_worker_thread_of_another(counting: Counting) -> None:
    async def main() -> None:
        await trio.to_thread.run_sync(trio.run, walks, 2)

    trio.run(main)
    assert counting.ends()["walks"] == (1, 0, 0, {}, 0, 3)


def test_what_comes_back_from_a_thread_goes_by_its_own_name(counting: Counting) -> None:
    """It is a system task of trio's there, made for the program."""

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        await trio.to_thread.run_sync(lambda: trio.from_thread.run(walks, 1, trio_token=token))
        trio.lowlevel.spawn_system_task(walks, 0)
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    assert counting.ends()["walks"] == (2, 0, 0, {}, 0, 3)


async def starts(*, task_status: Any) -> None:
    task_status.started()


def test_tasks_of_anyio_go_by_their_own_names(counting: Counting) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(walks, 1)
            await group.start(starts)

    anyio.run(main, backend="trio")
    ends = counting.ends()
    assert (ends["walks"], ends["starts"][:5]) == ((1, 0, 0, {}, 0, 2), (1, 0, 0, {}, 0))
    assert {name for name in ends if not name.endswith("main")} == {"walks", "starts"}


def test_a_guest_run_is_counted(counting: Counting) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(walks, 2)
            await trio.sleep(0.01)

    run_as_guest(main)
    assert counting.ends()["walks"] == (1, 0, 0, {}, 0, 3)


ABANDONED = """
import gc, sys
import trio
from otel_concurrency.hooks.trio.trio_tasks import TrioTaskHook
from otel_concurrency.probes.choice import make_task_probe
probe = make_task_probe(native=sys.argv[1] == "True")
hook = TrioTaskHook(probe)
hook.install()
async def waits():
    while True:
        await trio.lowlevel.checkpoint()
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
ticks = []
trio.lowlevel.start_guest_run(
    main, run_sync_soon_threadsafe=ticks.append, done_callback=print, host_uses_signal_set_wakeup_fd=True
)
for _ in range(5):
    ticks.pop()()
live = {row.function: row.live for row in probe.read_rows() if row.created}
ticks.clear()
for _ in range(3):
    gc.collect()
print(live, {row.function: (row.destroyed, row.live) for row in probe.read_rows() if row.created})
"""


@pytest.mark.parametrize("native", [True, False])
def test_tasks_of_an_abandoned_guest_run_are_destroyed(native: bool) -> None:
    """Its host dropped it; Python and trio say so at length."""
    ended = subprocess.run([sys.executable, "-c", ABANDONED, str(native)], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == (
        "{'__main__.main': 1, '__main__.waits': 1} {'__main__.main': (1, 0), '__main__.waits': (1, 0)}"
    )


class Recorder(trio.abc.Instrument):
    """Keeps what a program's own instrument is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def before_run(self) -> None:
        self.heard.append("before_run")

    def task_spawned(self, task: Any) -> None:
        self.heard.append(f"spawned {task.name}")

    def before_task_step(self, task: Any) -> None:
        self.heard.append(f"before {task.name}")

    def after_task_step(self, task: Any) -> None:
        self.heard.append(f"after {task.name}")

    def task_exited(self, task: Any) -> None:
        self.heard.append(f"exited {task.name}")

    def after_run(self) -> None:
        self.heard.append("after_run")


def test_instruments_of_the_program_hear_what_they_heard(counting: Counting) -> None:
    with_us, without_us = Recorder(), Recorder()
    _run._r.seed(1)  # trio throws dice for whose turn it is
    trio.run(walks, 2, instruments=[with_us])
    counting.hook.remove()
    _run._r.seed(1)
    trio.run(walks, 2, instruments=[without_us])
    assert with_us.heard == without_us.heard != []
    counting.hook.install()


def test_a_traceback_and_a_coroutine_look_as_they_do_without_us(counting: Counting) -> None:
    def told() -> tuple[list[str], bool, str, list[str]]:
        seen: list[Any] = []

        async def main() -> None:
            task = trio.lowlevel.current_task()
            frames = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
            seen.extend((isinstance(task.coro, type(main_coroutine)), task.coro.__qualname__, frames))
            await fails()

        main_coroutine = main()
        main_coroutine.close()
        with pytest.raises(KeyError) as raised:
            trio.run(main)
        return [each.name for each in traceback.extract_tb(raised.tb)], seen[0], seen[1], seen[2]

    with_us = told()
    counting.hook.remove()
    assert with_us == told()
    counting.hook.install()


def test_removed_it_counts_nothing_also_in_a_run_that_goes_on(counting: Counting) -> None:
    async def main() -> None:
        counting.hook.remove()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(walks, 1)

    trio.run(main)
    trio.run(walks, 1)
    assert set(counting.ends()) & {"walks"} == set()
    assert repr(counting.hook) == "<TrioTaskHook [removed]>"


def test_installed_twice_it_counts_once(counting: Counting) -> None:
    counting.hook.install()
    trio.run(walks, 1)
    assert counting.ends() == {"walks": (1, 0, 0, {}, 0, 2)}


def test_a_later_patch_survives_our_removal() -> None:
    counting, before = Counting(), _run.setup_runner
    counting.hook.install()
    ours = _run.setup_runner
    calls = []

    def theirs(*args: Any) -> Any:
        calls.append(args)
        return ours(*args)

    _run.setup_runner = theirs
    try:
        counting.hook.remove()
        assert _run.setup_runner is theirs
        trio.run(walks, 1)
    finally:
        _run.setup_runner = before
    assert (len(calls), counting.ends()) == (1, {})


def test_our_own_trouble_stays_ours(counting: Counting, caplog: pytest.LogCaptureFixture) -> None:
    """It costs the count, and one log record."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("broken")

    tasks: Any = counting.probe._trio  # type: ignore[attr-defined]
    tasks._follow = tasks.probe = Broken()
    if hasattr(tasks, "live"):
        tasks.probe = type("Probe", (), {"give_up": counting.probe.give_up, "lock": None, "now_ns": None})
    trio.run(walks, 2)
    assert counting.ends() == {}
    assert [record.levelname for record in caplog.records if record.name.startswith("trio")] == []
    assert len([each for each in caplog.records if "switched off" in each.getMessage()]) == 1


def test_a_run_inside_a_run_is_refused_as_without_us(counting: Counting) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="from inside a run"):
            trio.run(walks, 1)

    trio.run(main)
    assert "walks" not in counting.ends()


def test_in_a_run_that_is_under_way_what_is_there_is_untracked() -> None:
    counting = Counting()

    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            counting.hook.install()
            untracked = counting.probe.untracked()
            nursery.start_soon(walks, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return untracked

    try:
        assert trio.run(main) == 2
        assert counting.ends() == {"walks": (1, 0, 0, {}, 0, 2)}
        assert counting.probe.untracked() == 0
    finally:
        counting.hook.remove()


def test_a_slow_step_is_kept(counting: Counting) -> None:
    async def holds() -> None:
        time.sleep(0.02)

    counting.probe.note_slow_steps(20_000_000)
    trio.run(holds)
    (step,) = counting.probe.slow_steps()
    assert step.function.endswith("<locals>.holds")
    assert step.thread_ident == threading.get_ident()
    assert step.busy_ns >= 20_000_000
    assert counting.probe.slow_steps() == []
    assert {name: count for name, count in counting.probe.step_counts().items() if count} == {
        step.function: 1
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_is_forked_in_a_task_counts_from_zero(counting: Counting) -> None:
    """The run goes on in the child: what is made there counts, what was there does not."""

    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(walks, 1)
            if child := os.fork():
                return child
            counting.probe.reset()
        await walks(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(walks, 2)
        os._exit(0 if counting.ends() == {"walks": (1, 0, 0, {}, 0, 3)} else 1)
        return 0

    child = trio.run(main)
    assert os.waitpid(child, 0)[1] == 0
    assert counting.ends()["walks"] == (1, 0, 0, {}, 0, 2)


LATE = """
import sys
from otel_concurrency.hooks.trio.trio_tasks import TrioTaskHook
from otel_concurrency.probes.choice import make_task_probe
probe = make_task_probe()
hook = TrioTaskHook(probe)
hook.install()
before = "trio" in sys.modules
from trio import run, sleep
async def main():
    await sleep(0)
run(main)
print(before, [(row.function, row.finished, row.steps) for row in probe.read_rows() if row.created])
hook.remove()
"""


def test_trio_is_not_imported_for_our_sake_and_heard_of_when_it_is() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert ended.stdout == "False [('__main__.main', 1, 2)]\n"
