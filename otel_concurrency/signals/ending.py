"""Every way in which a process ends, and what is exported on each of them."""

from __future__ import annotations

import _thread
import logging
import os
import time
from collections.abc import Callable

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.ending import shutdown_notice
from otel_concurrency.hooks.ending.exit import ExitHook, ImmediateExitHook
from otel_concurrency.hooks.ending.termination import TerminationHook
from otel_concurrency.hooks.logs.export_failures import GIVEN_UP
from otel_concurrency.hooks.processes.child_exit import ChildExitHook, is_child, is_daemonic_child
from otel_concurrency.signals import jobs, late_threads, pipelines, shutdown
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.shutdown_events import ShutdownReport

PROGRESS_S = 1.0
"""How long an exit may take without a word, and then from one word to the next."""

HEARD_WITHIN_S = 1.0
"""How long a signal waits at least for the main thread, however short the time limit."""

_BUSY = ("opentelemetry.sdk.", "opentelemetry.exporter.", "otel_concurrency.signals.", "logging")
"""Whose functions may hold a lock that exporting needs."""

_logger = logging.getLogger(__name__)


class Ending:
    """Gets telemetry out when the process ends, within one time limit, and tells of an end that takes long.

    Args:
        timeout_s: Time for all signals together.
        on_signals: Whether to stand in for the default action of SIGTERM and SIGINT.
        native: Whether the C extension may help with that.
    """

    def __init__(self, timeout_s: float, *, on_signals: bool = True, native: bool = True) -> None:
        self._timeout_s = timeout_s
        self._on_signals = on_signals
        self._pid = 0
        self._spent_by = 0
        self._report = ShutdownReport()
        self._stop_watch: Callable[[], None] = _nothing
        self._forget_fork: Callable[[], None] = _nothing
        self._exit = ExitHook(self._end_of_main, self._shut_down)
        self._immediate = ImmediateExitHook(self._flush, self._is_needed)
        self._children = ChildExitHook(self._begin_child, self._end_child)
        self._termination = TerminationHook(
            lambda name: self._wait_for(lambda: self._flush_at(name)),
            self._is_needed,
            lambda name: jobs.start(lambda: self._flush_at(name)),
            _BUSY,
            heard_within_s=max(timeout_s, HEARD_WITHIN_S) if native else None,
        )

    def __repr__(self) -> str:
        return f"<Ending [{self._timeout_s:g} s] {self._exit}>"

    def install(self) -> None:
        """Attach to every end; a second call changes nothing."""
        self._pid = os.getpid()
        self._exit.install()
        self._immediate.install()
        self._children.install()
        # Whoever ends a child by SIGTERM waits for its end, for ever if the signal is lost.
        if self._on_signals and any(pipelines.current()) and (self._termination.is_heard or not is_child()):
            self._termination.install()
        self._forget_fork()
        self._forget_fork = fork.in_child(self._report.reset)
        default_producer().register(self._report)

    def remove(self) -> None:
        """Leave the end of the process to the providers."""
        for hook in (self._exit, self._immediate, self._children, self._termination):
            hook.remove()
        self._forget_fork()
        default_producer().unregister(self._report)

    def _is_needed(self) -> bool:
        """Whether this process has telemetry of its own, and is not a short-lived fork of such a one."""
        pid = os.getpid()
        return pid != self._spent_by and (pid == self._pid or shutdown.has_unsent())

    def _begin_child(self) -> None:
        self._pid = os.getpid()
        if not self._termination.is_heard:
            self._termination.remove()  # before there is a second thread that it could be given to
        late_threads.wake_all()  # it is there to work: so its metrics come, whatever it does

    def _end_child(self) -> None:
        # A pool that is terminated waits for its workers, and some end in order before its signal comes.
        self._flush(retry=not is_daemonic_child())
        self._pid = 0  # unless something comes after, nothing is left to do at os._exit

    def _end_of_main(self) -> None:
        shutdown_notice.note("exit")
        shutdown.prepare()
        if not is_daemonic_child():
            self._report.begin("exit")
            self._watch()

    def _shut_down(self) -> None:
        if not shutdown.shutdown(self._timeout_s, tell=self._complete) and self._timeout_s > 0:
            _logger.warning(GIVEN_UP, self._timeout_s)  # an exporter that still waits has said nothing yet
        self._pid = 0  # nothing is left to do, at os._exit or for a signal

    def _flush_at(self, signal_name: str) -> None:
        if is_daemonic_child():  # a pool terminates its workers as a matter of course, and waits for them
            shutdown.flush(self._timeout_s, retry=False)
            return
        self._report.begin(signal_name)
        self._report.started()
        self._watch()
        shutdown.flush(self._timeout_s, tell=self._complete)

    def _flush(self, *, retry: bool = True) -> None:
        deadline = time.monotonic() + self._timeout_s
        self._wait_for(lambda: shutdown.flush(self._timeout_s, retry=retry))
        if (
            time.monotonic() >= deadline
        ):  # a process waits once: not for its finalizer and for os._exit as well
            self._spent_by = os.getpid()

    def _wait_for(self, call: Callable[[], object]) -> None:
        """Make a call on another thread: this one may be anywhere, and hold locks that exporting needs."""
        job = jobs.start(call)
        if job is None:
            call()
            return
        try:
            job.wait(time.monotonic() + self._timeout_s)
        except KeyboardInterrupt:  # somebody has waited long enough
            pass

    def _watch(self) -> None:
        """Tell of the shutdown as long as it goes on."""
        self._stop_watch()
        goes_on = _thread.allocate_lock()
        goes_on.acquire()
        pid = os.getpid()

        def watch() -> None:
            while not goes_on.acquire(timeout=PROGRESS_S):
                self._report.started()
                self._report.progress()

        def stop() -> None:
            self._stop_watch = _nothing
            if os.getpid() == pid:
                goes_on.release()

        jobs.start(watch)
        self._stop_watch = stop

    def _complete(self) -> None:
        self._stop_watch()
        self._report.completed()


def _nothing() -> None:
    pass
