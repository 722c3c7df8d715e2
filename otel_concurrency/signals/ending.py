"""Every way in which a process ends, and what is exported on each of them."""

from __future__ import annotations

import os
import time

from otel_concurrency.hooks.exit import ExitHook, ImmediateExitHook
from otel_concurrency.hooks.termination import TerminationHook
from otel_concurrency.hooks.worker_exit import WorkerExitHook
from otel_concurrency.signals import jobs, pipelines, shutdown

_BUSY = ("opentelemetry.sdk.", "opentelemetry.exporter.", "otel_concurrency.signals.", "logging")
"""Whose functions may hold a lock that exporting needs."""


class Ending:
    """Gets telemetry out when the process ends, within one time limit.

    Args:
        timeout_s: Time for all signals together.
        on_signals: Whether to stand in for the default action of SIGTERM.
    """

    def __init__(self, timeout_s: float, *, on_signals: bool = True) -> None:
        self._timeout_s = timeout_s
        self._on_signals = on_signals
        self._pid = 0
        self._exit = ExitHook(shutdown.prepare, self._shut_down)
        self._immediate = ImmediateExitHook(self._flush, self._is_needed)
        self._workers = WorkerExitHook(self._claim, self._flush_worker)
        self._termination = TerminationHook(self._flush, self._is_needed, self._flush_in_background, _BUSY)

    def __repr__(self) -> str:
        return f"<Ending [{self._timeout_s:g} s] {self._exit}>"

    def install(self) -> None:
        """Attach to every end; a second call changes nothing."""
        self._claim()
        self._exit.install()
        self._immediate.install()
        self._workers.install()
        if self._on_signals and any(pipelines.current()):
            self._termination.install()

    def remove(self) -> None:
        """Leave the end of the process to the providers."""
        for hook in (self._exit, self._immediate, self._workers, self._termination):
            hook.remove()

    def _claim(self) -> None:
        """Take this process for one that has telemetry of its own, not a short-lived fork of such a one."""
        self._pid = os.getpid()

    def _is_needed(self) -> bool:
        return os.getpid() == self._pid or shutdown.has_unsent()

    def _shut_down(self) -> None:
        self._pid = 0  # nothing is left to do at os._exit
        shutdown.shutdown(self._timeout_s)

    def _flush_worker(self) -> None:
        self._flush()
        self._pid = 0  # unless something comes after, nothing is left to do at os._exit

    def _flush_in_background(self) -> None:
        jobs.start(lambda: shutdown.flush(self._timeout_s))

    def _flush(self) -> None:
        """Flush on another thread: this one may be anywhere, and hold locks that exporting needs."""
        job = jobs.start(lambda: shutdown.flush(self._timeout_s))
        if job is None:
            shutdown.flush(self._timeout_s)
            return
        try:
            job.wait(time.monotonic() + self._timeout_s)
        except KeyboardInterrupt:  # somebody has waited long enough
            pass
