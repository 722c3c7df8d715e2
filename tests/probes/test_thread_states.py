"""What threads are doing: recorded files, and threads that do a known thing."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from otel_concurrency.probes import thread_states as module
from otel_concurrency.probes.thread_states import PythonThread, ThreadSampler

RECORDED = Path(__file__).parent / "proc" / "x86_64"
FIRST = 18_496  # the id of the first recorded thread

needs_syscalls = pytest.mark.skipif(
    not os.access("/proc/self/syscall", os.R_OK), reason="this kernel does not tell what threads wait in"
)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make `threading` know recorded threads, and nobody else."""

    def known(*names: str) -> None:
        threads = {FIRST + at: PythonThread(FIRST + at, name, False) for at, name in enumerate(names)}
        monkeypatch.setattr(module, "python_threads", lambda: dict(threads))

    return known


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A copy of the recorded files, to be changed."""
    return Path(shutil.copytree(RECORDED, tmp_path / "proc"))


NAMES = ("main", "sleeps", "locks", "receives", "selects", "sleeps-as-3.10", "faults")


def test_each_recorded_system_call_has_its_state(known: Callable[..., None]) -> None:
    known(*NAMES)
    sample = ThreadSampler(str(RECORDED), machine="x86_64").sample()
    assert sample.states == {
        ("main", "running"): 1,
        ("sleeps", "sleep"): 1,
        ("locks", "lock_or_gil"): 1,
        ("receives", "syscall"): 1,
        ("selects", "syscall"): 1,
        ("sleeps-as", "sleep"): 1,
        ("faults", "syscall"): 1,
    }
    assert sample.cpu_ns == {
        "main": 41_650_679,
        "sleeps": 74_541,
        "locks": 59_879,
        "receives": 39_980,
        "selects": 54_271,
        "sleeps-as": 1_000,
        "faults": 2_000,
    }


def test_the_numbers_of_another_machine_are_not_guessed(known: Callable[..., None]) -> None:
    """202 is a futex on x86-64 and something else elsewhere."""
    known(*NAMES)
    states = ThreadSampler(str(RECORDED), machine="pdp11").sample().states
    assert [state for _, state in states] == ["running", *["unknown"] * 5, "syscall"]


def test_where_system_calls_are_closed_to_us_running_is_told_and_waiting_is_not(
    known: Callable[..., None], proc: Path
) -> None:
    """`stat` is open to everybody; it says only R, S or D."""
    known(*NAMES)
    for path in proc.glob("task/*/syscall"):
        path.unlink()
    states = ThreadSampler(str(proc), machine="x86_64").sample().states
    assert [state for _, state in states] == ["running", *["unknown"] * 5, "syscall"]


def test_without_proc_threads_are_counted_by_name(tmp_path: Path, known: Callable[..., None]) -> None:
    known("MainThread", "worker-1", "worker-2")
    sample = ThreadSampler(str(tmp_path)).sample()
    assert sample.states == {("MainThread", "unknown"): 1, ("worker", "unknown"): 2}
    assert sample.cpu_ns == {}


def test_a_thread_that_ends_while_it_is_looked_at_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython's own tests wait for every Thread object of a test to be gone; so may others."""
    end = threading.Event()
    threads = [threading.Thread(target=end.wait)]
    threads[0].start()
    gone = weakref.ref(threads[0])
    seen: list[bool] = []

    def read_file(path: str) -> bytes | None:
        if threads:
            end.set()
            threads.pop().join()
            seen.append(gone() is None)
        return read(path)

    read = module.read_file
    monkeypatch.setattr(module, "read_file", read_file)
    ThreadSampler().sample()
    assert seen == [True]


def test_the_sdk_s_threads_and_ours_are_left_out(known: Callable[..., None]) -> None:
    """And a thread that `threading` does not know has CPU time, but no state."""
    known("main", "OtelBatchSpanRecordProcessor", "otel-concurrency exit", "a", "b", "c")
    sample = ThreadSampler(str(RECORDED), machine="x86_64").sample()
    assert {name for name, _ in sample.states} == {"main", "a", "b", "c"}
    assert sample.cpu_ns["_unnamed"] == 2_000
    assert set(sample.cpu_ns) == {"main", "a", "b", "c", "_unnamed"}


def test_names_are_bounded(known: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and UUIDs are cut out of them; beyond the limit they share a name."""
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    known("job-1", "job-22", "job-0e984725-c51c-4bf4-9960-e1c80e27aba0", "second", "third", "fourth")
    sample = ThreadSampler(str(RECORDED), machine="x86_64").sample()
    assert {name for name, _ in sample.states} == {"job", "second", "_other"}
    assert sample.cpu_ns["_other"] == 54_271 + 1_000


def test_cpu_time_outlives_its_thread_and_an_id_that_is_used_again(
    known: Callable[..., None], proc: Path
) -> None:
    known("main", "worker-1", "worker-2")
    sampler = ThreadSampler(str(proc), machine="x86_64")
    assert sampler.sample().cpu_ns["worker"] == 74_541 + 59_879
    shutil.rmtree(proc / "task" / "18497")
    assert sampler.sample().cpu_ns["worker"] == 74_541 + 59_879
    (proc / "task" / "18498" / "schedstat").write_text("59_000 1 1".replace("_", ""))  # less: another thread
    assert sampler.sample().cpu_ns["worker"] == 74_541 + 59_879 + 59_000


def test_cpu_time_is_not_counted_again_after_a_look_that_saw_nobody(
    known: Callable[..., None], proc: Path
) -> None:
    """While the program replaces a standard stream, nothing is listed."""
    known("main", "worker-1", "worker-2")
    sampler = ThreadSampler(str(proc), machine="x86_64")
    before = dict(sampler.sample().cpu_ns)
    (proc / "task").rename(proc / "elsewhere")
    assert sampler.sample().cpu_ns == before
    (proc / "elsewhere").rename(proc / "task")
    assert sampler.sample().cpu_ns == before


def test_who_waited_for_the_gil_because_of_us_is_running(
    known: Callable[..., None], proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While we look, nobody else runs Python: so we let go for a moment, and see who goes on at once."""
    known("main", "sleeps", "spins", "receives")
    shutil.copytree(proc / "task" / "18498", proc / "task" / "18499", dirs_exist_ok=True)  # both at a lock

    def let_go(seconds: float) -> None:
        (proc / "task" / "18498" / "schedstat").write_text("3000059879 49514 4")

    monkeypatch.setattr(module.time, "sleep", let_go)
    sample = ThreadSampler(str(proc), machine="x86_64").sample()
    assert sample.states == {
        ("main", "running"): 1,
        ("sleeps", "sleep"): 1,
        ("spins", "running"): 1,
        ("receives", "lock_or_gil"): 1,
    }
    assert sample.cpu_ns["spins"] == 3_000_059_879


def test_a_thread_that_serves_an_event_loop_does_not_wait_for_us(
    known: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever collects there gets the first look only."""
    known(*NAMES)

    def refuse(seconds: float) -> None:
        raise AssertionError

    async def collect() -> None:
        ThreadSampler(str(RECORDED), machine="x86_64").sample()

    monkeypatch.setattr(module.time, "sleep", refuse)
    asyncio.run(collect())


def test_with_many_threads_all_get_their_turn(
    known: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is always right; states are told of those looked at, CPU time of those ever seen."""
    monkeypatch.setattr(module, "MAX_THREADS", 3)
    known(*(f"worker-{number}" for number in range(7)))
    sampler = ThreadSampler(str(RECORDED), machine="x86_64")
    samples = [sampler.sample() for _ in range(3)]
    assert [sum(sample.states.values()) for sample in samples] == [7, 7, 7]
    assert [sample.states["worker", "unknown"] for sample in samples] == [4, 4, 4]
    everything = 41_650_679 + 74_541 + 59_879 + 39_980 + 54_271 + 1_000 + 2_000
    assert samples[-1].cpu_ns["worker"] == everything
    assert samples[0].cpu_ns["worker"] < everything


@pytest.fixture
def busy() -> Iterator[Callable[[str, Callable[[], object]], None]]:
    """Run functions in threads of a name; the test's own `ExitStack` ends them."""
    threads: list[threading.Thread] = []

    def busy(name: str, target: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=target, name=name))
        threads[-1].start()

    yield busy
    for thread in threads:
        thread.join()


def until(sampler: ThreadSampler, expected: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Sample until all is as expected, or a generous time is over; a busy machine starts threads late."""
    deadline = time.monotonic() + 30
    while True:
        states = sampler.sample().states
        if states == expected or time.monotonic() > deadline:
            return dict(states)


@needs_syscalls
def test_real_threads_are_seen_doing_what_they_do(busy: Callable[[str, Callable[[], object]], None]) -> None:
    """One sleeps, one spins, one waits for a lock, one for a socket, and one for work."""
    ends = threading.Event()
    lock = threading.Lock()
    ours, theirs = socket.socketpair()
    jobs: queue.Queue[None] = queue.Queue()

    def sleep() -> None:
        while not ends.is_set():
            time.sleep(0.2)

    def spin() -> None:
        while not ends.is_set():
            pass

    with ExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(theirs)
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="pool"))
        pool.submit(int).result()
        lock.acquire()
        stack.callback(lambda: (ends.set(), lock.release(), ours.send(b"."), jobs.put(None)))
        busy("sleeper", sleep)
        busy("spinner", spin)
        busy("locker", lock.acquire)
        busy("receiver", lambda: theirs.recv(1))
        busy("getter", jobs.get)  # waits in the same frames as an AnyIO worker, but for itself
        expected = {
            ("MainThread", "running"): 1,
            ("sleeper", "sleep"): 1,
            ("spinner", "running"): 1,
            ("locker", "lock_or_gil"): 1,
            ("receiver", "syscall"): 1,
            ("getter", "lock_or_gil"): 1,
            ("pool", "idle_worker"): 1,
        }
        assert until(ThreadSampler(), expected) == expected


@needs_syscalls
def test_the_cpu_time_of_a_thread_is_its_own(busy: Callable[[str, Callable[[], object]], None]) -> None:
    spun, ends = threading.Event(), threading.Event()
    clock: list[int] = []

    def spin() -> None:
        while time.thread_time_ns() < 100_000_000:
            pass
        clock.append(time.thread_time_ns())
        spun.set()
        ends.wait()

    sampler = ThreadSampler()
    busy("spinner", spin)
    spun.wait()
    taken = sampler.sample().cpu_ns["spinner"]
    ends.set()
    assert clock[0] <= taken <= 1.2 * clock[0]


FORKED = """
import json, os, threading, time
from otel_concurrency.probes.thread_states import PythonThread, ThreadSampler
sampler = ThreadSampler()
def fork():
    while time.thread_time() < 0.3:
        pass
    parent = sampler.sample()
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        sample = sampler.sample()
        os.write(into, json.dumps([[*map(list, sample.states)], sum(sample.cpu_ns.values())]).encode())
        os._exit(0)
    states, cpu_ns = json.loads(os.read(out, 1000))
    os.waitpid(child, 0)
    print(json.dumps([states, cpu_ns < 200_000_000 < parent.cpu_ns["forker"]]))
thread = threading.Thread(target=fork, name="forker")
thread.start()
thread.join()
"""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@needs_syscalls
def test_a_forked_child_has_one_thread_and_begins_at_zero() -> None:
    """It was forked beside other threads, from one that was not the main thread."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) == [[["forker", "running"]], True]


def test_the_end_of_the_main_thread_is_seen() -> None:
    """Others may go on for hours after it."""
    program = """
import threading
from otel_concurrency.probes.thread_states import PythonThread, ThreadSampler
sampler = ThreadSampler()
before = sampler.sample().main_is_alive
def go_on():
    threading.main_thread().join()
    print(before, sampler.sample().main_is_alive)
threading.Thread(target=go_on).start()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "True False\n"


def test_looking_keeps_nothing_of_the_program_alive() -> None:
    """Its frames, and what their variables hold, go when they would go without us."""

    class Held:
        pass

    def look() -> weakref.ref[Held]:
        held = Held()
        native_id = threading.get_native_id()
        ThreadSampler()._look_inside({native_id: module.LOCK_OR_GIL}, {native_id: threading.current_thread()})
        return weakref.ref(held)

    gc.disable()
    try:
        assert look()() is None
    finally:
        gc.enable()
