"""A program's process and threads are told of, under `opentelemetry-instrument`, in forked children too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import Run, environ_for

OURS_ALONE = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics"}
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "60000"}  # by hand, and at the end

needs_proc = pytest.mark.skipif(not os.access("/proc/self/stat", os.R_OK), reason="no /proc here")
needs_syscalls = pytest.mark.skipif(
    not os.access("/proc/self/syscall", os.R_OK), reason="this kernel does not tell what threads wait in"
)

Key = tuple[str, ...]  # the name of a metric, then the values of its attributes


def points(exported: Iterable[Any]) -> list[tuple[str, str, Key, float, int]]:
    """Every number: scope, service instance, name and attribute values, value, start of its total."""
    found = []
    for each in exported:
        resource = {pair.key: pair.value.string_value for pair in each.resource.attributes}
        data = each.metric.gauge if each.metric.HasField("gauge") else each.metric.sum
        found += [
            (
                each.scope.name,
                resource["service.instance.id"],
                (each.metric.name, *(pair.value.string_value for pair in point.attributes)),
                point.as_double or point.as_int,
                point.start_time_unix_nano,
            )
            for point in data.data_points
        ]
    return found


def last(exported: Iterable[Any]) -> Mapping[Key, float]:
    """The last value of each series of a program with one process."""
    return {key: value for _, _, key, value, _ in points(exported)}


SPIN = """
    import json, os, time
    from opentelemetry.metrics import get_meter_provider

    began = os.times()
    while os.times().user - began.user < 0.5:
        pass
    get_meter_provider().force_flush()
    print(json.dumps({"cpu": sum(os.times()[:2]), "pid": os.getpid()}))
"""


@needs_proc
def test_the_process_is_told_of(run: Run, receiver: OtlpProtoTestServer) -> None:
    """CPU time is what the program took, and the first utilization is no zero."""
    ended = run(SPIN, env=environ_for(receiver) | OURS_ALONE)
    assert (ended.code, ended.err) == (0, "")
    exported = points(receiver.drain_metrics())
    first = dict(reversed([(key, value) for _, _, key, value, _ in exported]))
    told = {key for key in first if key[0].startswith(("process.", "python.process."))}
    assert told - {("python.process.cpu.throttled.time",)} == {  # where a cgroup limits the CPU
        ("process.memory.usage",),
        ("process.memory.virtual",),
        ("process.cpu.time", "user"),
        ("process.cpu.time", "system"),
        ("process.cpu.utilization",),
        ("process.thread.count",),
        ("process.context_switches", "voluntary"),
        ("process.context_switches", "involuntary"),
        ("process.paging.faults", "minor"),
        ("process.paging.faults", "major"),
        ("process.disk.io", "read"),
        ("process.disk.io", "write"),
        ("process.unix.file_descriptor.count",),
        ("process.uptime",),
        ("python.process.child.count",),
        ("python.process.forks",),
    }
    cpu_time = first["process.cpu.time", "user"] + first["process.cpu.time", "system"]
    assert cpu_time >= 0.5
    # What the program says has the export too, and is rounded to the clock's ticks.
    assert 0.7 * ended.said()["cpu"] <= cpu_time <= ended.said()["cpu"] + 0.05
    assert 0 < first["process.cpu.utilization",] <= 1
    assert 10e6 < first["process.memory.usage",] < first["process.memory.virtual",]
    # The main thread took nearly all of it: what starts an interpreter is the main thread as well.
    assert 0.5 <= first["python.thread.cpu.time", "MainThread"] <= cpu_time


FORK = """
    import json, os, time
    from opentelemetry.metrics import get_meter_provider

    def spin(seconds):
        began = os.times()
        while os.times().user - began.user < seconds:
            pass

    ballast = bytearray(64 << 20)
    for place in range(0, len(ballast), 4096):
        ballast[place] = 1
    spin(0.5)
    get_meter_provider().force_flush()
    if (child := os.fork()) == 0:
        del ballast
        spin(0.2)
        get_meter_provider().force_flush()
        os._exit(0)
    os.waitpid(child, 0)
    print(json.dumps(sum(os.times()[:2])))
"""


@needs_proc
def test_a_forked_child_tells_of_itself(run: Run, receiver: OtlpProtoTestServer) -> None:
    """Its CPU time begins at nothing, memory and uptime are its own; the fork counts in the parent."""
    ended = run(FORK, env=environ_for(receiver) | OURS_ALONE)
    assert ended.code == 0
    by_instance: dict[str, dict[Key, tuple[float, int]]] = {}
    for _, instance, key, value, start in points(receiver.drain_metrics()):
        by_instance.setdefault(instance, {})[key] = (value, start)
    parent, child = sorted(by_instance.values(), key=lambda each: each["process.uptime",], reverse=True)

    def value(process: dict[Key, tuple[float, int]], *key: str) -> float:
        return process[key][0]

    def start(process: dict[Key, tuple[float, int]], *key: str) -> int:
        return process[key][1]

    assert 0.2 <= value(child, "process.cpu.time", "user") < 0.45
    assert value(parent, "process.cpu.time", "user") > 0.5
    assert start(child, "process.cpu.time", "user") - start(parent, "process.cpu.time", "user") > 400_000_000
    took = value(child, "process.cpu.time", "user") + value(child, "process.cpu.time", "system")
    assert 0.2 <= value(child, "python.thread.cpu.time", "MainThread") <= 1.1 * took
    assert value(parent, "process.memory.usage") - value(child, "process.memory.usage") > 50e6
    assert 0 < value(child, "process.cpu.utilization") <= 1
    assert value(child, "process.uptime") < value(parent, "process.uptime")
    assert value(parent, "python.process.forks") == 1
    assert value(child, "python.process.forks") == 0


THREADS = """
    import json, socket, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from opentelemetry.metrics import get_meter_provider

    lock = threading.Lock()
    lock.acquire()
    ours, theirs = socket.socketpair()
    ends = threading.Event()

    def sleep():
        while not ends.is_set():
            time.sleep(0.2)

    def receive():
        theirs.recv(1)

    def spin():
        while time.thread_time() < 0.3:
            pass
        spun.set()
        while not ends.is_set():
            pass

    spun = threading.Event()
    pool = ThreadPoolExecutor(1, thread_name_prefix="pool")
    pool.submit(int).result()
    functions = {"sleeper": sleep, "spinner": spin, "locker": lock.acquire, "receiver": receive}
    threads = [threading.Thread(target=function, name=name) for name, function in functions.items()]
    for thread in threads:
        thread.start()
    spun.wait()
    for _ in range(10):  # a machine under load may catch a thread between two states
        get_meter_provider().force_flush()
    ends.set()
    lock.release()
    ours.send(b".")
    for thread in threads:
        thread.join()
    pool.shutdown()
"""


@needs_syscalls
def test_what_threads_do_is_seen(run: Run, receiver: OtlpProtoTestServer) -> None:
    """And nothing is said of the SDK's threads, which were there all the time."""
    ended = run(THREADS, env=environ_for(receiver) | OURS_ALONE)
    assert (ended.code, ended.err) == (0, "")
    exported = [(key, value) for _, _, key, value, _ in points(receiver.drain_metrics())]
    states = {key[1:] for key, _ in exported if key[0] == "python.thread.count"}
    assert states >= {
        ("MainThread", "running"),
        ("sleeper", "sleep"),
        ("spinner", "running"),
        ("locker", "lock_or_gil"),
        ("receiver", "syscall"),
        ("pool", "idle_worker"),
    }
    named = {"MainThread", "sleeper", "spinner", "locker", "receiver", "pool"}
    assert {name for name, _ in states} <= named
    cpu_time = dict(exported)
    assert cpu_time["python.thread.cpu.time", "spinner"] >= 0.3
    assert cpu_time["python.thread.cpu.time", "sleeper"] < 0.1
    assert cpu_time["python.thread.main.alive",] == 1


def test_process_metrics_can_be_turned_off(run: Run, receiver: OtlpProtoTestServer) -> None:
    env = environ_for(receiver) | OURS_ALONE | {"OTEL_PYTHON_CONCURRENCY_PROCESS_METRICS": "false"}
    env["OTEL_PYTHON_CONCURRENCY_RUNTIME_METRICS"] = "false"
    assert run(SPIN, env=env).code == 0
    assert {key[0].split(".")[0] for key in last(receiver.drain_metrics())} <= {"otel_concurrency", "asyncio"}


FORK_BESIDE_UPSTREAM = """
    import json, os, time
    from opentelemetry.metrics import get_meter_provider

    while os.times().user < 1:
        pass
    if (child := os.fork()) == 0:
        while os.times().user < 0.3:
            pass
        get_meter_provider().force_flush()
        os._exit(0)
    os.waitpid(child, 0)
    print(child)
"""


@needs_proc
def test_beside_upstreams_system_metrics_nothing_is_told_twice(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    """What it emits comes from it alone, and in a forked child it is true there."""
    excluded = "system.*,cpython.*,process.runtime.*,process.memory.usage"
    env = environ_for(receiver) | {"OTEL_PYTHON_SYSTEM_METRICS_EXCLUDED_METRICS": excluded}
    ended = run(FORK_BESIDE_UPSTREAM, env=env)
    assert ended.code == 0
    upstreams, ours, by_instance = set(), set(), {}
    for scope, instance, key, value, _ in points(receiver.drain_metrics()):
        (ours if scope == "otel_concurrency" else upstreams).add(key[0])
        by_instance.setdefault(instance, {})[key] = value
    assert not ours & upstreams
    assert {"process.cpu.time", "process.cpu.utilization", "process.thread.count"} <= upstreams
    assert {"process.memory.usage", "process.uptime", "process.paging.faults"} <= ours
    child, parent = sorted(by_instance.values(), key=lambda each: each["process.uptime",])
    assert 0.25 <= child["process.cpu.time", "user"] < 0.8
    assert parent["process.cpu.time", "user"] >= 1
    assert child["process.cpu.utilization",] > 0
