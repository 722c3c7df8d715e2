"""What a thread's clock makes of what it is told, and of what comes in between."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from otel_concurrency.probes import thread_clock
from otel_concurrency.probes.thread_clock import ThreadClock

MS = 1_000_000


class Machine:
    """A thread that is active all the time, and may lose its CPU while it is looked at; times in ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.cpu = self.queued = 0
        self.preempted: list[int] = []  # for how long, from one look at its activity to the run queue's
        self.reading = 0  # what it takes this thread to read the run queue's file
        monkeypatch.setattr(thread_clock, "cpu_ns", lambda clock: self.cpu * MS)
        monkeypatch.setattr(thread_clock, "runqueue_ns", self.runqueue_ns)
        clock = SimpleNamespace(monotonic_ns=lambda: self.now * MS)
        monkeypatch.setattr(thread_clock, "time", clock)

    def go_on(self, *, cpu: int = 0, queued: int = 0, blocked: int = 0) -> None:
        self.now += cpu + queued + blocked
        self.cpu += cpu
        self.queued += queued

    def runqueue_ns(self, native_id: int) -> int:
        self.go_on(cpu=self.reading)
        return self.queued * MS

    def active_ns(self) -> int:
        active = self.now * MS
        if self.preempted:
            self.go_on(queued=self.preempted.pop(0))
        return active


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize("preempted", [[], [7], [7, 5]])
def test_what_is_read_with_a_pause_in_between_is_read_again(machine: Machine, preempted: list[int]) -> None:
    clock = ThreadClock()
    clock.enter()
    machine.go_on(cpu=30, queued=4, blocked=50)
    machine.preempted = list(preempted)
    clock.look(machine.active_ns)
    assert clock.use == thread_clock.ThreadUse(30 * MS, (4 + sum(preempted)) * MS, 50 * MS)


def test_where_each_time_something_comes_in_between_the_last_one_stands(machine: Machine) -> None:
    clock = ThreadClock()
    clock.enter()
    machine.go_on(cpu=30, blocked=50)
    machine.preempted = [7] * 10
    clock.look(machine.active_ns)
    assert (len(machine.preempted), clock.use.runqueue_ns, clock.use.blocked_ns) == (7, 21 * MS, 43 * MS)
    machine.preempted = []
    clock.look(machine.active_ns)
    assert clock.use.blocked_ns == 50 * MS


def test_what_a_look_itself_takes_is_not_taken_off_what_was_blocked_before_it(machine: Machine) -> None:
    machine.reading = 1
    clock = ThreadClock()
    clock.enter()
    entered = machine.now
    machine.go_on(cpu=30, blocked=50)
    clock.leave((machine.now - entered) * MS)
    assert clock.use == thread_clock.ThreadUse(30 * MS, 0, 50 * MS)

    clock.enter()
    entered = machine.now
    machine.go_on(cpu=30, blocked=50)
    clock.look(lambda: (80 + machine.now - entered) * MS)
    assert clock.use.blocked_ns == 100 * MS
