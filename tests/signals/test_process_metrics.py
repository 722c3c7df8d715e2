"""This process and its threads, as metrics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from otel_concurrency.probes.process import ProcessRow
from otel_concurrency.probes.thread_states import ThreadSample
from otel_concurrency.signals import names
from otel_concurrency.signals.process_metrics import WINDOW_NS, ForkCount, ProcessMetrics
from otel_concurrency.signals.readings import GaugeReading, SumReading
from otel_concurrency.signals.thread_metrics import ThreadMetrics
from tests.signals.conftest import ManualClock

SECOND = 1_000_000_000
ROW = ProcessRow(
    pid=7,
    started_unix_ns=400,
    uptime_ns=3 * SECOND,
    user_ns=2 * SECOND,
    system_ns=SECOND,
    resident_bytes=1,
    virtual_bytes=2,
    threads=3,
    voluntary_switches=4,
    involuntary_switches=5,
    minor_faults=6,
    major_faults=7,
    read_bytes=8,
    written_bytes=9,
    file_descriptors=10,
    handles=11,
    children=12,
)


@dataclass
class GivenReader:
    """Hands out a row."""

    row: ProcessRow = ROW

    def started_unix_ns(self) -> int | None:
        return self.row.started_unix_ns

    def read(self) -> ProcessRow:
        return self.row


@dataclass
class Process:
    """A process whose time goes by hand."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(now=100 * SECOND))
    reader: GivenReader = field(default_factory=GivenReader)

    def goes_on(self, elapsed_s: float, cpu_s: float, **changes: Any) -> None:
        row, elapsed_ns = self.reader.row, round(elapsed_s * SECOND)
        self.clock.now += elapsed_ns
        self.reader.row = replace(
            row, uptime_ns=row.uptime_ns + elapsed_ns, user_ns=row.user_ns + round(cpu_s * SECOND), **changes
        )

    def metrics(self, **options: Any) -> ProcessMetrics:
        return ProcessMetrics(self.reader, clock=self.clock, cpus=lambda: 2, **options)


@pytest.fixture
def process() -> Process:
    return Process()


def utilization(metrics: ProcessMetrics) -> list[float]:
    points = [
        reading.points for reading in metrics.collect() if reading.instrument is names.PROCESS_CPU_UTILIZATION
    ]
    return [value for each in points for _, value in each]


def test_everything_that_is_known_is_told(process: Process) -> None:
    metrics = process.metrics()
    assert metrics.start_unix_ns == 400
    assert metrics.collect() == [
        SumReading(names.PROCESS_MEMORY_USAGE, [({}, 1)]),
        SumReading(names.PROCESS_MEMORY_VIRTUAL, [({}, 2)]),
        SumReading(
            names.PROCESS_CPU_TIME, [({"cpu.mode": "user"}, 2 * SECOND), ({"cpu.mode": "system"}, SECOND)]
        ),
        SumReading(names.PROCESS_THREAD_COUNT, [({}, 3)]),
        SumReading(
            names.PROCESS_CONTEXT_SWITCHES,
            [
                ({"process.context_switch.type": "voluntary"}, 4),
                ({"process.context_switch.type": "involuntary"}, 5),
            ],
        ),
        SumReading(
            names.PROCESS_PAGING_FAULTS,
            [({"system.paging.fault.type": "minor"}, 6), ({"system.paging.fault.type": "major"}, 7)],
        ),
        SumReading(
            names.PROCESS_DISK_IO, [({"disk.io.direction": "read"}, 8), ({"disk.io.direction": "write"}, 9)]
        ),
        SumReading(names.PROCESS_FILE_DESCRIPTOR_COUNT, [({}, 10)]),
        SumReading(names.PROCESS_HANDLE_COUNT, [({}, 11)]),
        SumReading(names.PROCESS_CHILD_COUNT, [({}, 12)]),
        GaugeReading(names.PROCESS_UPTIME, [({}, 3 * SECOND)]),
        GaugeReading(names.PROCESS_CPU_UTILIZATION, [({}, 0.5)]),
    ]


def test_what_is_unknown_is_left_out(process: Process) -> None:
    """No series with a zero that nobody has measured."""
    process.reader.row = ProcessRow(pid=7, user_ns=1, threads=1)
    told = {reading.instrument.name: reading.points for reading in process.metrics().collect()}
    assert told == {"process.cpu.time": [({"cpu.mode": "user"}, 1)], "process.thread.count": [({}, 1)]}


def test_a_start_that_nobody_knows_is_the_time_we_came(process: Process) -> None:
    process.reader.row = ProcessRow(pid=7)
    assert process.metrics().start_unix_ns > 10**18


def test_what_somebody_else_emits_is_left_out_as_long_as_they_do(process: Process) -> None:
    emitted = {"process.cpu.time", "process.cpu.utilization", "process.uptime"}
    metrics = process.metrics(left_out=lambda: emitted)
    first = {reading.instrument.name for reading in metrics.collect()}
    emitted.clear()
    second = {reading.instrument.name for reading in metrics.collect()}
    assert second - first == {"process.cpu.time", "process.cpu.utilization", "process.uptime"}
    assert len(first) == 9


def test_the_first_utilization_is_that_of_the_time_since_the_start(process: Process) -> None:
    """3 s of CPU time in 3 s, on two CPUs; an hour later it would be no news."""
    assert utilization(process.metrics()) == [0.5]


def test_a_process_that_is_old_when_we_come_is_measured_from_then_on(process: Process) -> None:
    """Its first point waits until there is something to tell, and is no zero."""
    process.goes_on(elapsed_s=3600, cpu_s=0)
    metrics = process.metrics()
    assert utilization(metrics) == []
    process.goes_on(elapsed_s=1, cpu_s=1)
    assert utilization(metrics) == [0.5]


def test_a_later_utilization_is_that_since_the_last_collection(process: Process) -> None:
    metrics = process.metrics()
    process.goes_on(elapsed_s=60, cpu_s=12)
    assert utilization(metrics) == [0.1]
    process.goes_on(elapsed_s=60, cpu_s=120)
    assert utilization(metrics) == [1.0]
    process.goes_on(elapsed_s=60, cpu_s=0)
    assert utilization(metrics) == [0.0]


def test_readers_that_collect_often_take_no_window_from_each_other(process: Process) -> None:
    """Read twice in a moment, the second reading is not of that moment."""
    metrics = process.metrics()
    process.goes_on(elapsed_s=60, cpu_s=60)
    assert utilization(metrics) == utilization(metrics) == [0.5]
    for _ in range(20):
        process.goes_on(elapsed_s=1, cpu_s=0.2)
        last = utilization(metrics)
    assert last == [pytest.approx(0.1)]
    assert len(metrics._cpu_times) <= WINDOW_NS / SECOND + 2


def test_a_forked_child_begins_at_its_own_start(process: Process) -> None:
    """The parent's CPU time is not in its first point."""
    metrics = process.metrics()
    process.goes_on(elapsed_s=60, cpu_s=60)
    metrics.collect()
    process.reader.row = replace(
        ROW, pid=8, started_unix_ns=900, uptime_ns=2 * SECOND, user_ns=SECOND, system_ns=0
    )
    assert metrics.start_unix_ns == 900
    assert utilization(metrics) == [0.25]


def test_forks_are_counted_in_the_process_that_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    forks = ForkCount(clock=lambda: 5)
    forks.add()
    forks.add()
    assert (forks.start_unix_ns, forks.collect()) == (5, [SumReading(names.PROCESS_FORKS, [({}, 2)])])
    monkeypatch.setattr("otel_concurrency.signals.process_metrics.os.getpid", lambda: -1)
    assert forks.collect() == [SumReading(names.PROCESS_FORKS, [({}, 0)])]
    forks.add()
    assert forks.collect() == [SumReading(names.PROCESS_FORKS, [({}, 1)])]


def test_threads_are_told_by_name_and_state() -> None:
    class GivenSampler:
        def sample(self) -> ThreadSample:
            states = {("a", "running"): 1, ("a", "sleep"): 2}
            return ThreadSample(states, {"a": 9, "_unnamed": 8}, True, {"event": 2})

    metrics = ThreadMetrics(GivenSampler(), started_unix_ns=lambda: 400)
    assert metrics.start_unix_ns == 400
    assert metrics.collect() == [
        SumReading(
            names.THREAD_COUNT,
            [
                ({"thread.name": "a", "python.thread.state": "running"}, 1),
                ({"thread.name": "a", "python.thread.state": "sleep"}, 2),
            ],
        ),
        SumReading(names.THREAD_SYNC_WAITING, [({"python.thread.sync.type": "event"}, 2)]),
        SumReading(names.THREAD_CPU_TIME, [({"thread.name": "a"}, 9), ({"thread.name": "_unnamed"}, 8)]),
        GaugeReading(names.MAIN_THREAD_ALIVE, [({}, 1)]),
    ]


def test_process_metrics_are_as_the_semantic_conventions_have_them() -> None:
    """Name, unit and kind, compared with the package; those that it does not know are of `python.*`."""
    from opentelemetry.semconv._incubating.metrics import process_metrics as semconv

    class GivenMeter:
        def __getattr__(self, create: str) -> Any:
            kind = {
                "create_counter": "counter",
                "create_up_down_counter": "updowncounter",
                "create_observable_gauge": "gauge",
            }[create]
            return lambda name, unit, **rest: registered.update({name: (unit, kind)})

    registered: dict[str, tuple[str, str]] = {}
    for name, create in vars(semconv).items():
        if name.startswith("create_process"):
            create(
                GivenMeter(), *([None] if "gauge" in str(create.__annotations__["return"]).lower() else [])
            )
    ours = {
        each.name: (each.unit, each.kind)
        for each in names.INSTRUMENTS
        if each.name.startswith("process.") and each is not names.SHUTDOWN_DURATION
    }
    assert len(ours) == 11
    assert ours.items() <= registered.items()
