"""Celery's signals, sent as a worker and its children send them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("celery", reason="celery is not installed")

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery, signals
from celery.app.task import Context
from celery.exceptions import Ignore, Reject

from otel_concurrency.hooks.services.celery_messages import HEADER
from otel_concurrency.hooks.services.celery_tasks import CeleryHook
from otel_concurrency.probes.celery_tasks import CeleryProbe, CeleryRow

APP = Celery("test", broker="memory://", set_as_current=False)
SIGNALS = (
    *("before_task_publish", "task_received", "task_prerun", "task_postrun", "task_failure", "task_retry"),
    *("task_revoked", "task_rejected", "task_unknown", "worker_init"),
)
SECOND = 1_000_000_000
BEGIN = 1_700_000_000 * SECOND


@APP.task(name="work")
def work() -> None:
    """Do nothing."""


class Clock:
    """Both clocks, set by hand."""

    def __init__(self) -> None:
        self.unix_ns = BEGIN
        self.monotonic_ns = SECOND

    def tick(self, seconds: float) -> None:
        """Let some time go by."""
        self.unix_ns += int(seconds * SECOND)
        self.monotonic_ns += int(seconds * SECOND)


class Repeats(list[tuple[str, str, int, str]]):
    """Those that were told of."""

    def __call__(self, *told: Any) -> None:
        self.append(told)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def probe() -> CeleryProbe:
    return CeleryProbe()


@pytest.fixture
def repeats() -> Repeats:
    return Repeats()


@pytest.fixture
def hook(clock: Clock, probe: CeleryProbe, repeats: Repeats) -> Iterator[CeleryHook]:
    before = [list(getattr(signals, name).receivers) for name in SIGNALS]
    hook = CeleryHook(probe, repeats, clock=lambda: clock.unix_ns, monotonic_ns=lambda: clock.monotonic_ns)
    hook.install()
    yield hook
    hook.remove()
    assert [list(getattr(signals, name).receivers) for name in SIGNALS] == before


def message(task_id: str = "a", **more: Any) -> dict[str, Any]:
    """Return what a message says, as it is sent."""
    headers = {"id": task_id, "task": "work", "retries": 0, "eta": None} | more
    signals.before_task_publish.send(sender="work", headers=headers)
    return headers


def receive(headers: dict[str, Any]) -> None:
    signals.task_received.send(sender=None, request=SimpleNamespace(id=headers["id"], request_dict=headers))


def begin(headers: dict[str, Any], *, redelivered: bool = False, **more: Any) -> None:
    delivery = {"routing_key": "celery", "redelivered": redelivered}
    request = Context(headers, delivery_info=delivery, called_directly=False, **more)
    work.request_stack.push(request)
    signals.task_prerun.send(sender=work, task_id=headers["id"], task=work)


def end(state: str | None = "SUCCESS", retval: object = None) -> None:
    task_id = work.request.id
    signals.task_postrun.send(sender=work, task_id=task_id, task=work, state=state, retval=retval)
    work.request_stack.pop()


def run(headers: dict[str, Any], state: str = "SUCCESS", retval: object = None, **more: Any) -> None:
    begin(headers, **more)
    end(state, retval)


def row(probe: CeleryProbe) -> CeleryRow:
    (found,) = probe.read()
    return found


@pytest.mark.usefixtures("hook")
def test_a_run_is_timed_from_its_sending(clock: Clock, probe: CeleryProbe) -> None:
    headers = message()
    clock.tick(5)
    receive(headers)
    clock.tick(2)
    begin(headers)
    clock.tick(1)
    end()
    counted = row(probe)
    assert counted.completed == {("finished", ""): 1}
    assert counted.queue_times["celery"].sum_ns == 7 * SECOND
    assert counted.prefetch_times.sum_ns == 2 * SECOND
    assert counted.run_times["finished"].sum_ns == 1 * SECOND


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize(
    ("state", "retval", "outcome"),
    [
        ("SUCCESS", 1, ("finished", "")),
        ("FAILURE", ValueError(), ("failed", "ValueError")),
        ("RETRY", None, ("retried", "")),
        ("IGNORED", Ignore(), ("ignored", "")),
        ("REJECTED", Reject(requeue=False), ("rejected", "")),
        ("REJECTED", Reject(requeue=True), ("requeued", "")),
    ],
)
def test_each_end_has_its_outcome(
    probe: CeleryProbe, state: str, retval: object, outcome: tuple[str, str]
) -> None:
    run(message(), state, retval)
    assert row(probe).completed == {outcome: 1}
    assert row(probe).retries == (state == "RETRY")


@pytest.mark.usefixtures("hook")
def test_an_exception_that_ends_its_thread_is_a_failure(probe: CeleryProbe) -> None:
    begin(message())
    try:
        raise SystemExit(1)
    except SystemExit:
        end(None)
    assert row(probe).completed == {("failed", "SystemExit"): 1}


@pytest.mark.usefixtures("hook")
def test_a_try_counts_once_and_its_first_end_counts(probe: CeleryProbe, repeats: Repeats) -> None:
    headers = message("a")
    run(headers, "FAILURE", ValueError())
    run(headers, redelivered=True)
    assert row(probe).completed == {("failed", "ValueError"): 1}
    assert (row(probe).duplicates, row(probe).redelivered) == (1, 1)
    assert repeats == [("work", "a", 0, "finished")]


@pytest.mark.usefixtures("hook")
def test_tries_of_both_runs_are_the_same_tries(probe: CeleryProbe, repeats: Repeats) -> None:
    """Both runs ask for another try: its messages differ, and it counts once."""
    first = message()
    run(first, "RETRY")
    retry = message(retries=1, **{HEADER: first[HEADER]})
    run(first, "RETRY", redelivered=True)
    again = message(retries=1, **{HEADER: first[HEADER]})
    run(retry)
    run(again)
    assert row(probe).completed == {("retried", ""): 1, ("finished", ""): 1}
    assert (row(probe).duplicates, row(probe).retries) == (2, 2)
    assert repeats == [("work", "a", 0, "retried"), ("work", "a", 1, "finished")]


@pytest.mark.usefixtures("hook")
def test_an_id_that_is_used_again_is_another_task(clock: Clock, probe: CeleryProbe) -> None:
    run(message("daily"))
    clock.tick(1)
    run(message("daily"))
    assert row(probe).completed == {("finished", ""): 2}


@pytest.mark.usefixtures("hook")
def test_without_a_time_of_sending_only_a_redelivery_can_be_a_duplicate(probe: CeleryProbe) -> None:
    headers = {"id": "a", "retries": 0}
    run(headers)
    run(headers)
    assert (row(probe).completed, row(probe).duplicates) == ({("finished", ""): 2}, 0)
    run(headers, redelivered=True)
    assert (row(probe).completed, row(probe).duplicates) == ({("finished", ""): 2}, 1)
    assert row(probe).queue_times == {}


@pytest.mark.usefixtures("hook")
def test_what_is_put_back_has_not_ended(probe: CeleryProbe) -> None:
    headers = message()
    run(headers, "REJECTED", Reject(requeue=True))
    run(headers, redelivered=True)
    assert row(probe).completed == {("requeued", ""): 1, ("finished", ""): 1}


@pytest.mark.usefixtures("hook")
def test_what_is_to_wait_waits_from_then_on(clock: Clock, probe: CeleryProbe) -> None:
    headers = message(eta="2023-11-14T22:13:30+00:00")  # ten seconds later
    receive(headers)
    clock.tick(13)
    run(headers)
    assert row(probe).queue_times["celery"].sum_ns == 3 * SECOND
    assert row(probe).prefetch_times.sum_ns == 3 * SECOND


@pytest.mark.usefixtures("hook")
def test_a_sender_whose_clock_is_ahead_makes_no_wait(clock: Clock, probe: CeleryProbe) -> None:
    headers = message()
    clock.tick(-5)
    run(headers)
    times = row(probe).queue_times["celery"]
    assert (times.zero_count, times.sum_ns) == (1, 0)


@pytest.mark.usefixtures("hook")
def test_a_task_that_is_just_called_waits_for_nothing(probe: CeleryProbe) -> None:
    headers = {"id": "a", "retries": 0}
    run(headers, is_eager=True)
    run(headers, is_eager=True)
    counted = row(probe)
    assert (counted.completed, counted.duplicates) == ({("finished", ""): 2}, 0)
    assert (counted.queue_times, counted.prefetch_times.count) == ({}, 0)


@pytest.mark.usefixtures("hook")
def test_a_run_that_is_killed_is_told_by_the_main_process(probe: CeleryProbe) -> None:
    """Twice, where it was a time limit: of that, and of the process."""
    error = TimeLimitExceeded(1)
    for _ in range(2):
        signals.task_failure.send(sender=work, task_id="a", exception=error)
    signals.task_failure.send(sender=work, task_id="b", exception=WorkerLostError())
    signals.task_failure.send(sender=work, task_id="c", exception=Reject())  # counted where it ran
    assert row(probe).completed == {
        ("failed", "billiard.exceptions.TimeLimitExceeded"): 1,
        ("failed", "billiard.exceptions.WorkerLostError"): 1,
    }


@pytest.mark.usefixtures("hook")
def test_what_is_revoked_is_counted_unless_it_had_ended(probe: CeleryProbe) -> None:
    ended, waiting = message("a"), message("b")
    run(ended)
    for headers in (ended, waiting, waiting):
        signals.task_revoked.send(sender=work, request=Context(headers), terminated=False)
    assert row(probe).completed == {("finished", ""): 1, ("revoked", ""): 1}


@pytest.mark.usefixtures("hook")
def test_messages_that_no_task_answers_to_are_rejected(probe: CeleryProbe) -> None:
    signals.task_unknown.send(sender=None, message=None, exc=KeyError(), name="nowhere", id="a")
    signals.task_rejected.send(sender=None, message=None, exc=None)
    assert (row(probe).name, row(probe).completed) == (
        "_unknown",
        {("rejected", "celery.exceptions.NotRegistered"): 1, ("rejected", ""): 1},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_knows_what_its_worker_knows(
    hook: CeleryHook, clock: Clock, probe: CeleryProbe, repeats: Repeats
) -> None:
    """The main process receives; the first child runs it to its end, and so a second one does again."""
    worker = type("Worker", (), {})()
    signals.worker_init.send(sender=worker)
    headers = message()
    receive(headers)
    clock.tick(2)
    seen = []
    for redelivered in (False, True):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            probe.reset()
            hook.forked()
            run(headers, redelivered=redelivered)
            counted = row(probe)
            told = (counted.completed, counted.duplicates, counted.prefetch_times.sum_ns, list(repeats))
            os.write(writing, repr(told).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        with os.fdopen(reading) as told_by_child:
            seen.append(told_by_child.read())
    assert seen == [
        repr(({("finished", ""): 1}, 0, 2 * SECOND, [])),
        repr(({}, 1, 2 * SECOND, [("work", "a", 0, "finished")])),
    ]


def test_levels_are_those_of_this_processes_worker(hook: CeleryHook, monkeypatch: pytest.MonkeyPatch) -> None:
    from celery.concurrency.solo import TaskPool
    from celery.worker import state

    assert list(hook.levels()) == []
    worker = type("Worker", (), {})()
    worker.pool = TaskPool()
    signals.worker_init.send(sender=worker)
    monkeypatch.setattr(state, "active_requests", {1})
    monkeypatch.setattr(state, "reserved_requests", {1, 2, 3})
    (level,) = hook.levels()
    assert (level.name, level.kind) == ("solo", "celery")
    assert (level.active, level.idle, level.limit, level.queued) == (1, 0, 1, 2)
    hook.forked()
    assert list(hook.levels()) == []


def test_what_is_installed_twice_is_removed_once(probe: CeleryProbe, hook: CeleryHook) -> None:
    hook.install()
    run(message())
    assert row(probe).completed == {("finished", ""): 1}
    hook.remove()
    hook.remove()
    run({"id": "b", "retries": 0})
    assert row(probe).completed == {("finished", ""): 1}
    assert HEADER not in message()
    hook.install()
    assert HEADER in message()


def test_our_trouble_is_told_once_and_the_run_goes_on(
    hook: CeleryHook, probe: CeleryProbe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*told: object, **more: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(probe, "began", fail)
    with caplog.at_level(logging.INFO):
        run(message("a"))
        run(message("b"))
    assert [record.getMessage() for record in caplog.records] == [
        "A Celery task is not counted as it should be; said once"
    ]
    assert repr(hook) == "<CeleryHook [connected]>"


def test_another_celery_is_left_alone(probe: CeleryProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celery.signals", ModuleType("celery.signals"))
    hook = CeleryHook(probe, print)
    hook.install()
    assert repr(hook) == "<CeleryHook [removed]>"
    hook.remove()
