"""What this process costs: recorded files, and the process that runs these tests."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from otel_concurrency.probes import process as module
from otel_concurrency.probes.process import ProcessRow, ProcReader, usage

RECORDED = Path(__file__).parent / "proc" / "x86_64"
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
STARTED_NS = 146_709 * 1_000_000_000 // TICKS  # after boot, as recorded

needs_proc = pytest.mark.skipif(not ProcReader().is_readable, reason="no /proc here")


@pytest.fixture(autouse=True)
def _usage(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "recorded" in request.fixturenames:
        monkeypatch.setattr(module, "usage", lambda: {"user_ns": 5, "system_ns": 7})


@pytest.fixture
def recorded() -> ProcReader:
    return ProcReader(str(RECORDED), boot_clock=lambda: STARTED_NS + 90, wall_clock=lambda: 1_000)


def test_recorded_files_are_read_field_by_field(recorded: ProcReader) -> None:
    """The name of the process has blanks and brackets, as it may."""
    assert recorded.read() == ProcessRow(
        pid=os.getpid(),
        started_unix_ns=1_000 - 90,
        uptime_ns=90,
        user_ns=5,
        system_ns=7,
        resident_bytes=3_809 * PAGE,
        virtual_bytes=139_933 * PAGE,
        threads=7,
        read_bytes=4_096,
        written_bytes=8_192,
        file_descriptors=os.stat(RECORDED / "fd").st_size,
        children=3,
    )


def test_what_is_not_there_stays_unknown(tmp_path: Path) -> None:
    """A kernel that is built without them, or a folder that is closed to us."""
    reader = ProcReader(str(tmp_path))
    row = reader.read()
    assert not reader.is_readable
    assert row == ProcessRow(pid=os.getpid(), **{name: getattr(row, name) for name in usage()})


@needs_proc
def test_nothing_is_opened_while_a_standard_stream_is_being_replaced() -> None:
    """It would be in its place: replaced by the program, and then the program's closed by us."""
    program = """
        import json, os
        from otel_concurrency.probes.process import ProcReader

        def seen():
            row = reader.read()
            return [row.threads, row.resident_bytes is None, row.children, row.started_unix_ns is None]

        reader = ProcReader()
        kept = os.dup(1)
        os.close(1)
        meanwhile = seen()
        os.dup2(kept, 1)
        print(json.dumps([meanwhile, seen(), os.get_inheritable(1)]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=True)
    assert json.loads(done.stdout) == [[None, True, None, True], [1, False, 0, False], True]


@needs_proc
def test_a_stream_that_was_never_there_is_not_waited_for() -> None:
    program = "from otel_concurrency.probes.process import ProcReader; print(ProcReader().read().threads)"
    command = f'exec {shlex.quote(sys.executable)} -c "{program}" <&-'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(("name", "text"), [("stat", "12 (half"), ("statm", "12"), ("io", "rchar: 12")])
def test_a_shorter_file_is_no_number(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    row = ProcReader(str(tmp_path)).read()
    assert (row.threads, row.resident_bytes, row.read_bytes, row.uptime_ns) == (None, None, None, None)


def test_with_too_many_threads_children_are_not_counted(
    recorded: ProcReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are listed with their thread: a part of the threads would give a part of the children."""
    monkeypatch.setattr(module, "MAX_THREADS_READ", 6)
    assert recorded.read().children is None


@needs_proc
def test_the_numbers_are_those_of_this_process() -> None:
    import psutil

    row, judge = ProcReader().read(), psutil.Process()
    assert row.started_unix_ns is not None
    assert abs(row.started_unix_ns / 1e9 - judge.create_time()) < 1.1  # psutil's boot time has whole seconds
    assert row.threads == judge.num_threads()
    assert row.file_descriptors == judge.num_fds() - 1  # psutil counts what it counts with
    assert row.children == len(judge.children())
    assert row.resident_bytes == pytest.approx(judge.memory_info().rss, rel=0.05)
    assert row.virtual_bytes == pytest.approx(judge.memory_info().vms, rel=0.05)


@needs_proc
def test_files_threads_and_children_that_come_are_counted() -> None:
    reader, ended = ProcReader(), threading.Event()
    before = reader.read()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    with (
        open(os.devnull),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
    ):
        during = reader.read()
        assert child.stdin is not None
        child.stdin.close()
    ended.set()
    thread.join()
    assert during.children == before.children + 1
    assert during.file_descriptors == before.file_descriptors + 2  # the file, and the pipe to the child
    assert during.threads == before.threads + 1


def test_cpu_time_and_switches_are_those_of_all_threads() -> None:
    """Another thread spins and switches, and ends; what it took stays."""
    before, began = usage(), time.thread_time_ns()

    def work() -> None:
        nonlocal began
        while time.thread_time_ns() < 50_000_000:
            pass
        for _ in range(20):
            time.sleep(0.0001)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    after = usage()
    assert after["user_ns"] + after["system_ns"] - before["user_ns"] - before["system_ns"] >= 49_000_000
    assert after["voluntary_switches"] - before["voluntary_switches"] >= 20


def test_without_getrusage_there_is_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr(module, "resource", None)
    spent_ns = resource.getrusage(resource.RUSAGE_SELF).ru_utime * 1e9
    assert usage().keys() == {"user_ns", "system_ns"}
    assert usage()["user_ns"] == pytest.approx(spent_ns, abs=50_000_000)


FORKED = """
import json, os, time
from otel_concurrency.probes.process import ProcReader
reader = ProcReader()
ballast = bytearray(64 << 20)
for place in range(0, len(ballast), 4096):
    ballast[place] = 1
while time.process_time() < 0.3:
    pass
parent = reader.read()
out, into = os.pipe()
if (child := os.fork()) == 0:
    row = reader.read()
    told = [row.pid, row.user_ns + row.system_ns, row.started_unix_ns, row.threads]
    os.write(into, json.dumps(told).encode())
    os._exit(0)
pid, cpu_ns, started_ns, threads = json.loads(os.read(out, 1000))
os.waitpid(child, 0)
print(json.dumps({
    "pid": pid == child, "cpu": cpu_ns < 200_000_000 < parent.user_ns + parent.system_ns,
    "later": (started_ns - parent.started_unix_ns) / 1e9, "threads": threads,
    "same": reader.read().pid == os.getpid(),
}))
"""


@needs_proc
def test_a_forked_child_is_told_of_itself() -> None:
    """By the reader that its parent made: own id, own start, CPU time from its own beginning."""
    ended = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    told = json.loads(ended.stdout)
    later = told.pop("later")
    assert told == {"pid": True, "cpu": True, "threads": 1, "same": True}
    assert later > 0.25
