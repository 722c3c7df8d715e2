"""What is made of a watched loop: which stalls there are, why, and who is to blame.

While a stall is on, its thread's frames are sampled some 40 times a second (`thread_frames`), with the
thread's CPU time, its wait for a CPU, and what the kernel says that it does. Of frames only text is kept, and
what it takes to look into the source: that lets go of the GIL, so it is done after the stall was told.
"""

from __future__ import annotations

import platform
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from otel_concurrency.hooks.loops.spins import SpinWatch
from otel_concurrency.hooks.loops.stalls import Culprits, Incident, Stall, StallListener
from otel_concurrency.hooks.loops.watchdog import Runs, WatchedRun
from otel_concurrency.probes.gc_pauses import GcPauses
from otel_concurrency.probes.loop_time import TimerReading
from otel_concurrency.probes.process import PROC, read_file
from otel_concurrency.probes.stacks import Stack, look_at_thread
from otel_concurrency.probes.stall_cause import MAJORITY, UNKNOWN, Evidence, cause_of
from otel_concurrency.probes.tasks import SlowStep
from otel_concurrency.probes.thread_clock import cpu_ns, runqueue_ns
from otel_concurrency.probes.thread_states import UNKNOWN as UNKNOWN_STATE
from otel_concurrency.probes.thread_states import call_classifier
from otel_concurrency.probes.watch import UNSEEN, Seen, Wake

SAMPLE_S = 0.025
"""How often a stall that is on is looked at."""

ARMED_NS = 30_000_000_000
"""For how long after a stall the next one is looked for as often, where nobody looks without the GIL."""

_AT_ONCE_NS = 2_000_000  # what is read within this time is of one instant
_TRIES = 3  # a busy machine may come in between each time
_TOLERANCE_NS = 5_000_000
_RECENT = 16


class _Look(NamedTuple):
    at_ns: int
    active_ns: int
    cpu_ns: int | None
    runqueue_ns: int | None
    stack: Stack | None = None
    state: str = UNKNOWN_STATE


class StallWatch:
    """Follows stalls, one of each loop at a time; what `Watchdog` calls.

    Args:
        listener: Hears of them.
        threshold_ns: From when on an iteration is a stall.
        gc_pauses: Tells of the garbage collector.
        culprits: Names who runs in a thread.
        slow_steps: Returns the long steps since it was last asked: of a stall that was too short to be seen,
            or that kept everybody from looking, they name who it was.
        step_counts: Returns how many steps there were of each coroutine function.
        sees_stalls: Whether the wait ends when a loop stalls.
        read: Reads a small file, if it can without letting go of the GIL.
        clock: Monotonic time, ns.
    """

    def __init__(
        self,
        listener: StallListener,
        *,
        threshold_ns: int,
        gc_pauses: GcPauses,
        culprits: Culprits,
        slow_steps: Callable[[], list[SlowStep]] = list,
        step_counts: Callable[[], dict[str, int]] = dict,
        sees_stalls: bool = True,
        read: Callable[[str], bytes | None] = read_file,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._listener = listener
        self._threshold_ns = threshold_ns
        self._gc_pauses = gc_pauses
        self._culprits = culprits
        self._spins = SpinWatch(listener, step_counts)
        self._slow_steps = slow_steps
        self._sees_stalls = sees_stalls
        self._read = read
        self._clock = clock
        self._state_of_call = call_classifier(platform.machine())
        self._incidents: dict[WatchedRun, Incident] = {}
        self._seen: dict[WatchedRun, _Look] = {}
        self._told: deque[tuple[int, int, int]] = deque(maxlen=_RECENT)  # thread, begin, end of what was told
        self._armed_until_ns = 0

    def __repr__(self) -> str:
        return f"<StallWatch [{len(self._incidents)} stalls]>"

    def tick(self, runs: Runs, wake: Wake, ended: Runs = ()) -> float | None:
        """Look at all loops that run; see `Listener`."""
        before = dict(self._seen)
        self._forget_all_but(runs)
        for position, run in enumerate(runs):
            self._look(run, wake, wake.seen[position])
        self._tell_unseen(runs, ended, wake, before)
        now_ns = self._clock()
        if self._incidents:
            self._armed_until_ns = now_ns + ARMED_NS
        return SAMPLE_S if self._incidents or self._is_armed(now_ns) else None

    def catch_up(self, runs: Runs, ended: Runs) -> None:
        """Tell of what is over; see `Listener`."""
        before = dict(self._seen)
        self._forget_all_but(runs)
        for run in list(self._incidents):
            self._end_if_over(run, run.timed.timer.read(), self._clock())
        self._tell_unseen(runs, ended, None, before)

    def stop(self) -> None:
        """Forget what is on: the thread ends."""
        for run in list(self._incidents):
            self._end(run, self._clock())
        for run in list(self._seen):
            self._spins.forget(run, run.timed.timer.read(), self._clock())

    def _forget_all_but(self, runs: Runs) -> None:
        for known in [known for known in (*self._incidents, *self._seen) if known not in runs]:
            ended_ns = known.ended_ns or self._clock()
            self._end(known, ended_ns)
            self._spins.forget(known, known.timed.timer.read(), ended_ns)
            self._seen.pop(known, None)

    def _is_armed(self, now_ns: int) -> bool:
        return not self._sees_stalls and now_ns < self._armed_until_ns

    def _look(self, run: WatchedRun, wake: Wake, seen: Seen) -> None:
        reading, look = self._look_at_once(run)
        now_ns = look.at_ns
        began_ns = now_ns - reading.iteration_ns
        self._end_if_over(run, reading, now_ns)
        incident = self._incidents.get(run)
        if reading.iteration_ns >= self._threshold_ns:
            if incident is None:
                incident = self._incidents[run] = self._begin(run, began_ns, look, seen)
            incident.durations_ns = reading.durations.sum_ns
            self._sample(incident, run, look, wake.gil_ns, seen.kept_ns)
            return
        self._seen[run] = look
        self._spins.look(run, reading, now_ns)

    def _look_at_once(self, run: WatchedRun) -> tuple[TimerReading, _Look]:
        """Read a loop, its thread's clocks, and in a stall its frames, all of one instant.

        Nothing here lets go of the GIL, but it may be taken from us, and so may the CPU: then once more.
        """
        left = _TRIES
        while True:
            left -= 1
            at_ns = self._clock()
            reading = run.timed.timer.read()
            look = _Look(at_ns, reading.active_ns, None, None)
            if reading.iteration_ns >= self._threshold_ns:
                # Frames first: where reading files is not native, it lets the thread go on.
                look = look._replace(stack=look_at_thread(run.ident))
                look = look._replace(state=self._state(run))
            look = look._replace(cpu_ns=cpu_ns(run.cpu_clock), runqueue_ns=self._runqueue_ns(run))
            if not left or self._clock() - at_ns < _AT_ONCE_NS:
                return reading, look

    def _end_if_over(self, run: WatchedRun, reading: TimerReading, now_ns: int) -> None:
        incident = self._incidents.get(run)
        if incident is not None and (
            reading.iteration_ns < 0 or now_ns - reading.iteration_ns > incident.began_ns + _TOLERANCE_NS
        ):
            # Not `now_ns`, which is from before the reading: a busy machine may have made us wait in between.
            self._end(run, self._clock(), reading.durations.sum_ns)

    def _begin(self, run: WatchedRun, began_ns: int, look: _Look, seen: Seen) -> Incident:
        began_unix_ns = time.time_ns() - (self._clock() - began_ns)
        stall = Stall(run.timed.loop_id, run.timed.loop_type, run.ident, began_unix_ns)
        if seen.is_on and seen.cpu_ns >= 0:  # the wait has seen it before we had the GIL to look
            queued_ns = seen.runqueue_ns if seen.runqueue_ns >= 0 else None
            incident = Incident(
                stall, self._threshold_ns, began_ns, began_ns + seen.age_ns, seen.cpu_ns, queued_ns
            )
        else:
            incident = Incident(
                stall, self._threshold_ns, began_ns, look.at_ns, look.cpu_ns, look.runqueue_ns
            )
        return incident

    def _sample(
        self, incident: Incident, run: WatchedRun, look: _Look, gil_wait_ns: int, kept_ns: int
    ) -> None:
        stall = incident.stall
        if not stall.is_placed:
            self._culprits.name(stall, run)
        incident.add(look.stack, look.state, gil_wait_ns, kept_ns if kept_ns >= 0 else None)
        incident.measure(
            look.at_ns,
            look.cpu_ns,
            look.runqueue_ns,
            self._gc_pauses.paused_ns(incident.began_ns, look.at_ns),
        )
        if incident.is_told:
            incident.name_call()
            self._listener.stall_goes_on(stall)
        elif stall.cause != UNKNOWN or stall.looks > 1:
            incident.is_told = True
            self._listener.stall_seen(stall)
            if incident.name_call():  # after: its span may have ended by the time that the source is read
                self._listener.stall_goes_on(stall)

    def _state(self, run: WatchedRun) -> str:
        return self._state_of_call(self._read(f"{PROC}/task/{run.native_id}/syscall") or b"")

    def _runqueue_ns(self, run: WatchedRun) -> int | None:
        return runqueue_ns(run.native_id, self._read)

    def _queued_since(self, run: WatchedRun, before: _Look) -> int | None:
        queued_ns = self._runqueue_ns(run)
        return None if queued_ns is None or before.runqueue_ns is None else queued_ns - before.runqueue_ns

    def _end(self, run: WatchedRun, now_ns: int, durations_ns: int | None = None) -> None:
        incident = self._incidents.pop(run, None)
        if incident is None:
            return
        stall = incident.stall
        took_ns = now_ns - incident.began_ns
        if (
            durations_ns is not None
        ):  # what came after it is in there, too, but took less than a look's distance
            took_ns = min(took_ns, durations_ns - incident.durations_ns)
        stall.duration_ns = max(stall.duration_ns, took_ns)
        self._told.append((run.ident, incident.began_ns, now_ns))
        self._listener.stall_ended(stall)

    def _tell_unseen(
        self, runs: Runs, ended: Runs, wake: Wake | None, looks: dict[WatchedRun, _Look]
    ) -> None:
        """Tell of the stalls that left nothing but the note of a long step."""
        for step in self._slow_steps():
            run = next((run for run in (*ended, *runs) if _had(run, step)), None)
            began_ns = step.ended_ns - step.busy_ns
            if run is None or self._is_told(step.thread_ident, began_ns, step.ended_ns):
                continue
            found = wake if wake is not None and wake.loop >= 0 and runs[wake.loop] is run else None
            stall = Stall(
                run.timed.loop_id,
                run.timed.loop_type,
                step.thread_ident,
                time.time_ns() - (self._clock() - began_ns),
                duration_ns=step.busy_ns,
                function=step.function,
                origin=step.origin,
            )
            stall.cause = self._cause_of_unseen(step, run, found, looks.get(run))
            self._told.append((step.thread_ident, began_ns, step.ended_ns))
            self._listener.stall_ended(stall)

    def _is_told(self, ident: int, began_ns: int, ended_ns: int) -> bool:
        open_ones = ((run.ident, each.began_ns, ended_ns) for run, each in self._incidents.items())
        return any(
            thread == ident and begin <= ended_ns and began_ns <= end
            for thread, begin, end in (*self._told, *open_ones)
        )

    def _cause_of_unseen(
        self, step: SlowStep, run: WatchedRun, found: Wake | None, before: _Look | None
    ) -> str:
        began_ns = step.ended_ns - step.busy_ns
        evidence = Evidence(
            step.busy_ns, self._threshold_ns, gc_ns=self._gc_pauses.paused_ns(began_ns, step.ended_ns)
        )
        seen = UNSEEN if found is None else found.seen[found.loop]
        if found is not None and seen.cpu_ns >= 0 and step.cpu_ns >= 0:
            queued_ns = self._runqueue_ns(run)
            evidence = replace(
                evidence,
                watched_ns=max(0, step.busy_ns - seen.age_ns),
                cpu_ns=step.cpu_ns - seen.cpu_ns,
                runqueue_ns=None if queued_ns is None else queued_ns - seen.runqueue_ns,
                gil_waits_ns=(found.gil_ns,),
                kept_ns=min(found.gil_ns, step.cpu_ns - seen.cpu_ns, seen.kept_ns),
            )
        elif before is not None and before.cpu_ns is not None and step.cpu_ns >= 0:
            # Of the time since the look before only the sums are known; what of it was no wait for events may
            # have been busy, too.
            taken_ns = step.cpu_ns - before.cpu_ns
            active_ns = run.timed.timer.read().active_ns - before.active_ns
            rest_ns = max(0, min(step.ended_ns - before.at_ns, active_ns) - step.busy_ns)
            queued_ns = self._queued_since(run, before)
            own_ns = step.busy_ns - min(queued_ns or 0, step.busy_ns)
            if taken_ns - rest_ns < MAJORITY * own_ns <= taken_ns:
                return cause_of(evidence)
            evidence = replace(
                evidence, watched_ns=step.busy_ns, cpu_ns=min(taken_ns, step.busy_ns), runqueue_ns=queued_ns
            )
        return cause_of(evidence)


def _had(run: WatchedRun, step: SlowStep) -> bool:
    """Whether a step was one of that run: a thread may run one loop after the other."""
    return run.ident == step.thread_ident and (not run.ended_ns or step.ended_ns <= run.ended_ns)
