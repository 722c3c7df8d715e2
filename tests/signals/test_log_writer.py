"""Lines through a bounded queue: all that was offered is written, waiting or counted as dropped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_concurrency.signals.log_targets import FileTarget, StreamTarget, target_of, write_all
from otel_concurrency.signals.log_writer import LogLines, LogWriter

SOON_S = 10.0


class Gate:
    """A target that takes nothing until it is opened."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.opened = threading.Event()
        self.reached = threading.Event()
        self.data = b""
        if is_open:
            self.opened.set()

    def write(self, data: bytes, deadline: float | None) -> int:
        self.reached.set()
        if not self.opened.wait(None if deadline is None else deadline - time.monotonic()):
            return 0
        self.data += data
        return len(data)


def notice(number: int) -> bytes:
    return b"%d missing\n" % number


def writer_to(target: object, max_waiting: int = 10) -> LogWriter:
    return LogWriter(target, max_waiting=max_waiting, notice=notice)  # type: ignore[arg-type]


def offer(writer: LogWriter, *lines: bytes) -> None:
    for line in lines:
        if writer.has_room():
            writer.put(line)


def soon(claim: object) -> bool:
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline and not claim():  # type: ignore[operator]
        time.sleep(0.001)
    return bool(claim())  # type: ignore[operator]


def in_time() -> float:
    return time.monotonic() + SOON_S


def test_lines_are_written_in_order_by_another_thread() -> None:
    gate = Gate(is_open=True)
    writer = writer_to(gate)
    offer(writer, b"one\n", b"two\n")
    assert soon(lambda: writer.written == 2)
    offer(writer, b"three\n")  # it had gone to sleep
    assert soon(lambda: writer.written == 3)
    assert gate.data == b"one\ntwo\nthree\n"
    assert (writer.offered, writer.dropped, writer.waiting) == (3, 0, 0)


def test_what_finds_the_queue_full_is_dropped_and_told_at_the_end() -> None:
    gate = Gate()
    writer = writer_to(gate, max_waiting=3)
    offer(writer, b"0\n")
    assert gate.reached.wait(SOON_S)  # the thread has taken it, and is stuck
    offer(writer, *(b"%d\n" % number for number in range(1, 9)))
    assert (writer.offered, writer.written, writer.dropped, writer.waiting) == (9, 0, 5, 4)
    gate.opened.set()
    assert soon(lambda: gate.data.endswith(b"missing\n"))
    assert gate.data == b"0\n1\n2\n3\n5 missing\n"
    assert (writer.offered, writer.written, writer.dropped, writer.waiting) == (9, 4, 5, 0)


@pytest.mark.parametrize("threads", [1, 8])
def test_every_record_is_written_or_counted_whoever_logs(tmp_path: Path, threads: int) -> None:
    """At full speed from several threads, with a queue that is much too short."""
    path = tmp_path / "log"
    writer = writer_to(FileTarget(str(path)), max_waiting=50)
    each = 40_000 // threads
    gate = threading.Barrier(threads)

    def log() -> None:
        gate.wait()
        for number in range(each):
            offer(writer, b"%d\n" % number)

    running = [threading.Thread(target=log) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert writer.drain(in_time())
    assert soon(lambda: writer.waiting == 0)
    lines = path.read_bytes().splitlines()
    told = sum(int(line.split()[0]) for line in lines if line.endswith(b"missing"))
    written = sum(not line.endswith(b"missing") for line in lines)
    assert (writer.offered, writer.written) == (40_000, written)
    assert writer.dropped > 0
    assert written + writer.dropped == 40_000
    assert writer.drain(in_time())
    assert told <= writer.dropped


def test_a_target_that_fails_costs_lines_and_they_are_counted() -> None:
    class Failing:
        def write(self, data: bytes, deadline: float | None) -> int:
            return 5  # the disk is full

    writer = writer_to(Failing())
    offer(writer, b"one\n", b"two\n", b"three\n")
    assert soon(lambda: writer.waiting == 0)
    assert (writer.offered, writer.written, writer.dropped) == (3, 1, 2)


def test_the_end_of_the_process_writes_what_waits_within_its_time() -> None:
    gate = Gate()
    writer = writer_to(gate)
    pipeline = LogLines(writer)
    assert not pipeline.has_unsent
    offer(writer, b"one\n")
    assert gate.reached.wait(SOON_S)
    offer(writer, b"two\n")
    assert pipeline.has_unsent
    began = time.monotonic()
    assert not pipeline.wait(began + 0.05)
    assert time.monotonic() - began < SOON_S
    gate.opened.set()
    pipeline.close()
    assert pipeline.wait(in_time())
    assert (gate.data, pipeline.has_unsent) == (b"one\ntwo\n", False)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for end in (read_end, write_end):
        try:
            os.close(end)
        except OSError:
            pass


@pytest.mark.skipif(os.name == "nt", reason="pipes are polled")
def test_a_reader_that_is_stuck_keeps_nobody_for_longer_than_the_deadline(pipe: tuple[int, int]) -> None:
    """What did not fit stays, and comes out whole when the reader goes on."""
    read_end, write_end = pipe
    writer = writer_to(StreamTarget(write_end), max_waiting=1_000)
    writer._has_thread, writer._is_idle = True, False  # nobody writes but us
    lines = [b"%05d" % number + b"." * 994 + b"\n" for number in range(200)]
    offer(writer, *lines)
    began = time.monotonic()
    assert not writer.drain(began + 0.05)
    assert time.monotonic() - began < SOON_S
    assert 0 < writer.written < 200
    assert writer.written + writer.waiting == 200
    arrived = b""
    while writer.waiting:
        arrived += os.read(read_end, 1 << 20)
        writer.drain(time.monotonic() + 0.05)
    os.close(write_end)
    while more := os.read(read_end, 1 << 20):
        arrived += more
    assert arrived == b"".join(lines)
    assert writer.written == 200


@pytest.mark.skipif(os.name == "nt", reason="pipes block there")
def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    os.set_blocking(write_end, False)
    data = b"x" * 1_000_000
    arrived: list[bytes] = []

    def read() -> None:
        while sum(map(len, arrived)) < len(data):
            arrived.append(os.read(read_end, 1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    assert write_all(write_end, data, None) == len(data)
    reader.join(SOON_S)
    assert b"".join(arrived) == data


def test_a_file_that_is_moved_away_is_made_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    target = FileTarget(str(path))
    assert target.write(b"one\n", None) == 4
    path.rename(moved)
    assert target.write(b"two\n", None) == 4  # nobody has looked yet
    target._next_look = 0.0
    assert target.write(b"three\n", None) == 6
    assert (moved.read_bytes(), path.read_bytes()) == (b"one\ntwo\n", b"three\n")


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    assert target_of(str(path)).write(b"after\n", None) == 6
    assert path.read_bytes() == b"before\nafter\n"


def test_a_file_that_cannot_be_opened_takes_nothing(tmp_path: Path) -> None:
    target = FileTarget(str(tmp_path / "nowhere" / "log"))
    assert target.write(b"one\n", None) == 0
    assert isinstance(target.trouble, FileNotFoundError)


def test_the_standard_streams_go_by_their_names() -> None:
    assert [repr(target_of(name)) for name in ("stdout", "stderr")] == [
        "<StreamTarget 1>",
        "<StreamTarget 2>",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_writes_its_own_lines_and_none_of_its_parents(tmp_path: Path) -> None:
    gate = Gate()
    writer = writer_to(gate)
    offer(writer, b"parent's\n")
    assert gate.reached.wait(SOON_S)  # its thread holds the lock now
    offer(writer, b"parent's, too\n")
    child = os.fork()
    if not child:
        signal.alarm(20)
        code = 1
        try:
            writer.begin()
            gate.opened.set()
            gate.data = b""
            offer(writer, b"child's\n")
            is_done = writer.drain(in_time()) and soon(lambda: writer.written == 1)
            code = 0 if (is_done, gate.data, writer.offered) == (True, b"child's\n", 1) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.opened.set()
    assert soon(lambda: writer.written == 2)
    assert Counter(gate.data.splitlines()) == Counter([b"parent's", b"parent's, too"])


def test_a_record_that_is_logged_while_one_is_logged_is_counted_like_any_other() -> None:
    """By a signal handler, or a finaliser: nothing on the way in is locked."""
    gate = Gate()
    writer = writer_to(gate, max_waiting=3)
    assert writer.has_room()
    offer(writer, b"in between\n")
    writer.put(b"first\n")
    gate.opened.set()
    assert soon(lambda: writer.written == 2)
    assert writer.offered == 2
