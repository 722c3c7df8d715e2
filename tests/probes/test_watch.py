"""A watch waits, is woken by its bell, and the native one by a loop whose iteration takes too long."""

from __future__ import annotations

import contextvars
import resource
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from otel_concurrency.probes import choice
from otel_concurrency.probes.thread_clock import clock_of_this_thread
from otel_concurrency.probes.watch import UNSEEN, PureWatch, Wake, Watch, Watched, make_watch

MS = 1_000_000
NEVER = 60_000 * MS


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def watch(request: pytest.FixtureRequest) -> Watch:
    watch = make_watch(native=request.param)
    if request.param and isinstance(watch, PureWatch):
        pytest.skip("no native probes here")
    return watch


@pytest.fixture
def stalled() -> Iterator[Callable[[], Watched]]:
    """A loop timer whose thread has begun an iteration, and sleeps in it."""
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def stalled() -> Watched:
        timer = choice.loop_timer_type()()
        told: list[Watched] = []
        began = threading.Event()

        def run() -> None:
            select = timer.begin_select(lambda timeout: [])
            told.append(Watched(timer, clock_of_this_thread(), threading.get_native_id()))
            select(0)
            began.set()
            is_over.wait(30)
            timer.end()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        assert began.wait(30)
        return told[0]

    yield stalled
    is_over.set()
    for thread in threads:
        thread.join()


def test_a_wait_lasts_as_long_as_it_was_asked_to(watch: Watch) -> None:
    began_ns = time.monotonic_ns()
    wake = watch.wait((), 20 * MS, 5 * MS, 1)
    assert time.monotonic_ns() - began_ns >= 20 * MS
    assert (wake.loop, wake.was_rung) == (-1, False)
    assert max(wake.gil_ns, wake.overshoot_ns) >= 0


def test_the_bell_ends_the_wait_under_way_or_the_next_one_and_no_further(watch: Watch) -> None:
    watch.ring()
    watch.ring()
    assert watch.wait((), NEVER, NEVER, 1).was_rung
    assert not watch.wait((), 5 * MS, NEVER, 1).was_rung
    thread = threading.Timer(0.02, watch.ring)
    thread.start()
    assert watch.wait((), NEVER, NEVER, 1).was_rung
    thread.join()


def test_a_long_iteration_ends_a_native_wait(stalled: Callable[[], Watched]) -> None:
    watch = make_watch()
    if not watch.sees_stalls:
        pytest.skip("no native probes here")
    loop = stalled()
    wake = watch.wait((loop,), NEVER, 10 * MS, 30 * MS)
    assert (wake.loop, wake.was_rung) == (0, False)
    [seen] = wake.seen
    assert 0 <= seen.age_ns <= loop.timer.read().iteration_ns
    assert seen.is_on
    assert 0 <= seen.kept_ns <= 10 * MS  # it sleeps
    assert wake.gil_ns >= 0


def test_it_ends_when_the_iteration_becomes_a_stall_not_at_the_next_look(
    stalled: Callable[[], Watched],
) -> None:
    """Looks come after one second and after two; a machine that is busy may be late by most of one."""
    watch = make_watch()
    if not watch.sees_stalls:
        pytest.skip("no native probes here")
    loop = stalled()
    assert watch.wait((loop,), NEVER, 1000 * MS, 1200 * MS).loop == 0
    assert 1200 * MS <= loop.timer.read().iteration_ns < 1950 * MS


def test_a_watch_tells_who_computed_while_it_waited_for_the_gil(stalled: Callable[[], Watched]) -> None:
    watch = make_watch()
    if not watch.sees_stalls:
        pytest.skip("no native probes here")
    own = Watched(stalled().timer, clock_of_this_thread(), threading.get_native_id())
    wakes: list[Wake] = []
    thread = threading.Thread(target=lambda: wakes.append(watch.wait((own, stalled()), NEVER, MS, 2 * MS)))
    thread.start()
    while not wakes:
        sum(range(1_000_000))  # keeps the GIL
    thread.join()
    [own_seen, other] = wakes[0].seen
    assert own_seen.kept_ns >= other.kept_ns
    assert own_seen.kept_ns >= 0.5 * MS


def test_the_other_loops_do_not_end_it(stalled: Callable[[], Watched]) -> None:
    watch = make_watch()
    if not watch.sees_stalls:
        pytest.skip("no native probes here")
    idle = choice.loop_timer_type()()
    assert watch.wait((Watched(idle, None, 1),), 20 * MS, 5 * MS, MS).loop == -1
    wake = watch.wait((Watched(idle, None, 1), stalled()), NEVER, 5 * MS, 10 * MS)
    assert wake.loop == 1
    assert (wake.seen[0], wake.seen[1].is_on) == (UNSEEN, True)


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="only Linux counts a thread's waits")
@pytest.mark.parametrize(("threshold", "most"), [(NEVER, 60), (15 * MS, 101)], ids=["rests", "short"])
def test_loops_that_wait_are_looked_at_half_as_often(threshold: int, most: int) -> None:
    """Less often on a machine that is busy; a threshold of less than two looks allows for no rest."""
    watch = make_watch()
    if not watch.sees_stalls:
        pytest.skip("no native probes here")
    timer = choice.loop_timer_type()()
    waits, is_over = threading.Event(), threading.Event()

    def poll(timeout: float | None) -> list[object]:
        waits.set()
        is_over.wait(30)
        return []

    thread = threading.Thread(target=lambda: (timer.begin_select(poll)(30), timer.end()))
    thread.start()
    assert waits.wait(30)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    assert watch.wait((Watched(timer, None, 1),), 1000 * MS, 10 * MS, threshold).loop == -1
    looks = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    is_over.set()
    thread.join()
    assert most / 4 < looks <= most


def test_the_context_of_another_thread_can_be_looked_at() -> None:
    context_of = choice.context_reader()
    if context_of is None:
        pytest.skip("no native probes here")
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    began, is_over = threading.Event(), threading.Event()

    def run() -> None:
        def inner() -> None:
            variable.set("inner")
            began.set()
            is_over.wait(30)

        contextvars.copy_context().run(inner)

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(30)
    context = context_of(thread.ident or 0)
    is_over.set()
    thread.join()
    assert context is not None
    assert context.get(variable) == "inner"
    assert context_of(1) is None


def test_a_small_file_is_read_with_the_gil_held(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for native in (True, False):
        read = choice.held_reader(native=native)
        (tmp_path / "file").write_bytes(b"some text")
        assert read(str(tmp_path / "file")) == b"some text"
        assert read(str(tmp_path / "nothing")) is None
