"""The process instrumentor: what it gives to readers, and takes away again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_concurrency.instrumentors.process import ProcessInstrumentor
from otel_concurrency.probes import process as probe
from otel_concurrency.probes.process import ProcReader
from otel_concurrency.signals.names import INSTRUMENTS
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.psutil_process import PsutilReader

PREFIXES = ("process.", "python.process.", "python.thread.")
OURS = {each.name for each in INSTRUMENTS if each.name.startswith(PREFIXES)} - {
    "process.shutdown.duration",
    "python.process.cpu.throttled.time",
    "python.thread.sync.waiting",  # only where somebody waits
}


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    assert default_producer().attach(provider)
    yield reader
    default_producer().detach()
    provider.shutdown()


@pytest.fixture
def instrumentor() -> Iterator[ProcessInstrumentor]:
    instrumentor = ProcessInstrumentor()
    instrumentor.instrument()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def heard(reader: InMemoryMetricReader) -> dict[str, list[float]]:
    """The values of each metric of ours about the process, by name."""
    data = reader.get_metrics_data()
    scopes = data.resource_metrics[0].scope_metrics if data else ()
    return {
        metric.name: [point.value for point in metric.data.data_points]
        for scope in scopes
        for metric in scope.metrics
        if metric.name in OURS
    }


@pytest.mark.skipif(not ProcReader().is_readable, reason="no /proc here")
def test_a_reader_hears_of_the_process_until_it_is_removed(
    reader: InMemoryMetricReader, instrumentor: ProcessInstrumentor
) -> None:
    """Everything but Windows handles, and again after a second start."""
    # A process that is old when we come has no utilization yet; how old this one is, nobody knows.
    everything = OURS - {"process.windows.handle.count", "process.cpu.utilization"}
    assert heard(reader).keys() - {"process.cpu.utilization"} == everything
    instrumentor.uninstrument()
    assert heard(reader) == {}
    instrumentor.instrument()
    assert heard(reader).keys() - {"process.cpu.utilization"} == everything


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forks_are_counted_in_the_parent_until_it_is_removed(
    reader: InMemoryMetricReader, instrumentor: ProcessInstrumentor
) -> None:
    def fork() -> None:
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)

    forks = instrumentor._sources[-1]
    fork()
    fork()
    assert heard(reader)["python.process.forks"] == [2]
    instrumentor.uninstrument()
    fork()
    ((reading,),) = [forks.collect()]
    assert reading.points == [({}, 2)]


def test_where_there_is_no_proc_psutil_tells(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What both can read is the same; nothing is made up."""
    monkeypatch.setattr(ProcReader, "is_readable", False)
    instrumentor = ProcessInstrumentor()
    instrumentor.instrument()
    try:
        told = heard(reader)
    finally:
        instrumentor.uninstrument()
    assert {"process.memory.usage", "process.cpu.time", "process.uptime"} <= told.keys() <= OURS
    by_proc, by_psutil = ProcReader().read(), PsutilReader().read()
    assert by_psutil.pid == os.getpid()
    assert (by_psutil.threads, by_psutil.children) == (by_proc.threads, by_proc.children)
    assert by_psutil.resident_bytes == pytest.approx(by_proc.resident_bytes, rel=0.2)
    assert by_psutil.started_unix_ns == pytest.approx(by_proc.started_unix_ns, abs=2_000_000_000)
    assert by_psutil.uptime_ns == pytest.approx(by_proc.uptime_ns, abs=5_000_000_000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_psutil_tells_a_forked_child_of_itself() -> None:
    reader = PsutilReader()
    if not (child := os.fork()):
        os._exit(0 if reader.read().pid == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_numbers_of_getrusage_are_the_same_for_both() -> None:
    """CPU time, switches and faults come from one place."""
    fields = probe.usage().keys()
    row = PsutilReader().read()
    assert all(getattr(row, name) is not None for name in fields)
