"""Snapshots as a trace that Perfetto, and `chrome://tracing`, open.

The format is JSON of Chrome's trace events ("Trace Event Format", read by Perfetto's trace processor). There
is a track for each event loop, with who held it; for each thread, with where it stood; for each task, with
what it did and waited for; and counters. What one snapshot saw is taken to last until the next.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from otel_concurrency.diagnosis.finding import Finding
from otel_concurrency.snapshot.live import LiveLoop, LiveThread, Snapshot
from otel_concurrency.snapshot.live_tasks import LiveTask

LOOP_TRACKS = 1_000_000_000
"""Ids of the tracks of event loops begin here: beyond those of threads."""

_LAST_US = 1_000.0  # what the last snapshot stands for
_FRAMES = 10

Event = dict[str, Any]


def trace_of(
    snapshots: Iterable[Snapshot], findings: Iterable[Finding] = (), *, program: str = ""
) -> dict[str, Any]:
    """Return a trace, ready for `json.dump`.

    Args:
        snapshots: In the order in which they were taken.
        findings: Marks, at the time when they were first seen.
        program: Name of the process in the trace.
    """
    seen = sorted(snapshots, key=lambda each: each.taken_unix_ns)
    if not seen:
        return {"traceEvents": [], "displayTimeUnit": "ms", "otherData": {"snapshots": 0}}
    writer = _Writer(seen[0].pid, seen[0].taken_unix_ns)
    ends = [writer.at(each.taken_unix_ns) for each in seen[1:]]
    ends.append(writer.at(seen[-1].taken_unix_ns) + _LAST_US)
    writer.name_process(program or f"python {seen[0].pid}")
    for snapshot, end in zip(seen, ends, strict=True):
        begin = writer.at(snapshot.taken_unix_ns)
        writer.loops(snapshot.loops, begin, end)
        writer.threads(snapshot.threads, begin, end)
        writer.tasks(snapshot.tasks, begin, end)
        writer.counters(snapshot, begin)
    writer.findings(findings, ends[-1])
    return {
        "traceEvents": writer.finished(),
        "displayTimeUnit": "ms",
        "otherData": {
            "snapshots": len(seen),
            "began_unix_ns": seen[0].taken_unix_ns,
            "python": seen[0].python,
            "left_out_tasks": max(each.left_out for each in seen),
        },
    }


@dataclass(slots=True)
class _Slice:
    """Something that goes on; times in µs of the trace."""

    what: Hashable
    name: str
    begin: float
    end: float
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _TaskTrack:
    name: str
    begin: float
    args: dict[str, Any]
    slices: list[_Slice] = field(default_factory=list)


class _Writer:
    def __init__(self, pid: int, zero_unix_ns: int) -> None:
        self._pid = pid
        self._zero_unix_ns = zero_unix_ns
        self._meta: list[Event] = []
        self._events: list[Event] = []
        self._tracks: dict[int, list[_Slice]] = {}
        self._tasks: dict[tuple[int, str, str], _TaskTrack] = {}

    def at(self, unix_ns: int) -> float:
        return (unix_ns - self._zero_unix_ns) / 1e3

    def name_process(self, name: str) -> None:
        self._meta.append(self._event("M", "process_name", 0, 0.0, args={"name": name}))

    def loops(self, loops: Sequence[LiveLoop], begin: float, end: float) -> None:
        for position, loop in enumerate(loops):
            number = loop.id if loop.id is not None else 100 + position
            track = self._track(LOOP_TRACKS + number, f"event loop {number} ({loop.type})", -1)
            if loop.iteration_s is None:  # it waits for events
                continue
            name = loop.coroutine or "callbacks"
            args = {"iteration_s": loop.iteration_s, "task": loop.task}
            since = begin - loop.iteration_s * 1e6
            # One that lasts longer than the time between two looks is one slice, from its true beginning.
            is_same = bool(track) and track[-1].what == (name, loop.task) and since < track[-1].end
            if is_same:
                track[-1].end, track[-1].args = end, args
            else:
                floor = track[-1].end if track else 0.0
                track.append(_Slice((name, loop.task), name, max(floor, since), end, args))

    def threads(self, threads: Sequence[LiveThread], begin: float, end: float) -> None:
        for thread in threads:
            frame = thread.frames[0].function if thread.frames else ""
            args = {
                "state": thread.state,
                "waits_for": thread.waits_for,
                "frames": [str(each) for each in thread.frames[:_FRAMES]],
            }
            name = f"{thread.waits_for or thread.state}: {frame}" if frame else thread.state
            number = thread.native_id or thread.ident % LOOP_TRACKS
            self._extend(self._track(number, thread.name, 0), name, name, begin, end, args)

    def tasks(self, tasks: Sequence[LiveTask], begin: float, end: float) -> None:
        for task in tasks:
            key = (task.id, task.name, task.coroutine)
            track = self._tasks.get(key)
            if track is None:
                born = begin if task.age_s is None else begin - task.age_s * 1e6
                args = {
                    "task": task.name,
                    "coroutine": task.coroutine,
                    "age_s": task.age_s,
                    "created_at": task.created_at,
                    "created_by": task.created_by,
                    "trace_id": task.trace_id,
                    "span_id": task.span_id,
                }
                told = {name: value for name, value in args.items() if value not in (None, "")}
                track = self._tasks[key] = _TaskTrack(task.coroutine or task.name, max(0.0, born), told)
            self._extend(track.slices, *_doing(task), begin, end, _place(task))

    def counters(self, snapshot: Snapshot, at: float) -> None:
        states = {name: snapshot.states.get(name, 0) for name in ("running", "scheduled", "waiting")}
        self._count("tasks", states, at)
        for pool in snapshot.pools:
            self._count(f"{pool.kind} pool {pool.name}", {"used": pool.used, "pending": pool.pending}, at)
        for executor in snapshot.executors:
            levels = {"active": executor.active or 0, "queued": executor.queued or 0}
            self._count(f"{executor.kind} executor {executor.name}", levels, at)

    def findings(self, findings: Iterable[Finding], end: float) -> None:
        for finding in findings:
            at = min(max(0.0, self.at(finding.began_unix_ns)), end)
            args = {"sentence": finding.sentence, "severity": finding.severity, "advice": finding.advice}
            self._events.append(self._event("i", finding.rule, 0, at, cat="finding", s="p", args=args))

    def finished(self) -> list[Event]:
        for number, slices in self._tracks.items():
            for each in slices:
                event = self._event("X", each.name, number, each.begin, cat="track", args=each.args)
                self._events.append(event | {"dur": round(each.end - each.begin, 3)})
        for number, track in enumerate(self._tasks.values(), 1):
            self._write_task(number, track)
        # Stable: what begins and ends at one time stays in the order in which it nests.
        return [*self._meta, *sorted(self._events, key=lambda event: event["ts"])]

    def _write_task(self, number: int, track: _TaskTrack) -> None:
        def write(phase: str, name: str, at: float, args: dict[str, Any] | None = None) -> None:
            event = self._event(phase, name, 0, at, cat="task", args=args or {})
            self._events.append(event | {"id": hex(number)})

        write("b", track.name, min(track.begin, track.slices[0].begin), track.args)
        for each in track.slices:
            write("b", each.name, each.begin, each.args)
            write("e", each.name, each.end)
        write("e", track.name, track.slices[-1].end)

    def _track(self, number: int, name: str, rank: int) -> list[_Slice]:
        if number not in self._tracks:
            self._tracks[number] = []
            self._meta.append(self._event("M", "thread_name", number, 0.0, args={"name": name}))
            self._meta.append(self._event("M", "thread_sort_index", number, 0.0, args={"sort_index": rank}))
        return self._tracks[number]

    def _extend(
        self, slices: list[_Slice], what: Hashable, name: str, begin: float, end: float, args: dict[str, Any]
    ) -> None:
        """Let the last slice go on if it is of the same; one that was not seen in between was over."""
        if slices and slices[-1].what == what and slices[-1].end >= begin:
            slices[-1].end, slices[-1].args = end, args
        else:
            slices.append(_Slice(what, name, begin, end, args))

    def _count(self, name: str, values: dict[str, int], at: float) -> None:
        self._events.append(self._event("C", name, 0, at, args=values))

    def _event(self, phase: str, name: str, track: int, at: float, **more: Any) -> Event:
        return {"ph": phase, "name": name, "pid": self._pid, "tid": track, "ts": round(at, 3), **more}


def _doing(task: LiveTask) -> tuple[Hashable, str]:
    """Return what tells one thing that a task does from another, and how it is called."""
    wait = task.wait
    if wait is None:
        return task.state, task.state
    name = f"waits: {wait.kind}{f' {wait.target_name}' if wait.target_name else ''}"
    return (name, wait.target), name


def _place(task: LiveTask) -> dict[str, Any]:
    args: dict[str, Any] = {"frames": [str(frame) for frame in task.frames]}
    if task.at is not None:
        args["at"] = str(task.at)
    if task.wait is not None and task.wait.has_timeout:
        args["has_timeout"] = True
    if task.trace_id:
        args["trace_id"] = task.trace_id
    return args
