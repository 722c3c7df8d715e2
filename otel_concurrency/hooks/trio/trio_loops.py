"""Where we attach to the loop of each `trio.run`: around its wait for events, in trio's I/O manager.

A run makes an I/O manager, calls its `get_events` once an iteration, and closes it at its end, whatever that
end is (`trio/_core/_run.py`, `Runner.close`). Instruments would tell of the waits as well, but not what they
found. A guest run waits in other threads, and its time is its host's: it is left alone. trio is never
imported for our sake.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.loops.event_loops import EventLoopHook
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.probes.loop_time import SELECT, LoopTimes, TimedLoop

_RUN = "trio._core._run"

_logger = logging.getLogger(__name__)


class TrioLoopHook:
    """Times each run of trio.

    Args:
        times: Where each run has its timer.
        loops: Its observers hear of trio's runs as they do of other loops'.
    """

    def __init__(self, times: LoopTimes, loops: EventLoopHook) -> None:
        self._times = times
        self._loops = loops
        self._patches: list[Patch] = []
        self._stop_awaiting: Callable[[], None] | None = None
        self._waits: dict[Any, Callable[[float], Any]] = {}  # by I/O manager
        self._timed: dict[Any, TimedLoop] = {}  # the same, but for guest runs
        self._is_broken = False

    def __repr__(self) -> str:
        state = self._patches or ("awaits its import" if self._stop_awaiting is not None else "removed")
        return f"<TrioLoopHook {len(self._timed)} running, [{state}]>"

    def install(self) -> None:
        """Patch trio, now or when it is imported; a second call changes nothing.

        A run that is under way is timed from its next wait on.
        """
        if self._stop_awaiting is None:
            self._stop_awaiting = when_imported("trio", self._join)

    def remove(self) -> None:
        """Put everything back, last first; runs go on untimed."""
        if self._stop_awaiting is not None:
            self._stop_awaiting()
            self._stop_awaiting = None
        while self._patches:
            self._patches.pop().remove()
        self._waits.clear()
        for manager in list(self._timed):
            self._end(manager)

    def _join(self, trio: ModuleType) -> None:
        run = sys.modules.get(_RUN)
        manager_type = getattr(run, "TheIOManager", None)
        if not hasattr(manager_type, "get_events") or not hasattr(run, "GLOBAL_RUN_CONTEXT"):
            _logger.debug("this trio waits for events in another way than we know; its runs are not timed")
            return
        self._patches = [
            Patch(manager_type, "get_events", switched(functools.partial(self._timing, run))),
            Patch(manager_type, "close", switched(self._ending)),
        ]
        for patch in self._patches:
            patch.install()

    def _timing(self, run: Any, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        waits = self._waits

        @functools.wraps(original)
        def get_events(self: Any, timeout: float) -> Any:
            wait = waits.get(self)
            if wait is None:
                wait = MethodType(original, self)
                if switch.is_on:
                    wait = begin(run, self, wait)
            return wait(timeout)

        begin = self._begin
        return get_events

    def _ending(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def close(self: Any) -> Any:
            if switch.is_on:
                end(self)
            return original(self)

        end = self._end
        return close

    def _begin(self, run: Any, manager: Any, wait: Callable[[float], Any]) -> Callable[[float], Any]:
        """Return what to wait with, from now to the end of the run of this thread."""
        runner = getattr(run.GLOBAL_RUN_CONTEXT, "runner", None)
        if self._is_broken or runner is None or runner.io_manager is not manager:
            return wait
        try:
            if not runner.is_guest:
                timed = self._times.timed(runner)
                if timed.is_running:
                    return wait
                wait = timed.timer.begin_select(wait)
                timed.began(SELECT)
                self._timed[manager] = timed
                self._loops.began(timed)
            self._waits[manager] = wait
        except Exception:
            self._break()
        return wait

    def _end(self, manager: Any) -> None:
        self._waits.pop(manager, None)
        timed = self._timed.pop(manager, None)
        if timed is not None:
            try:
                self._loops.ended(timed)
                timed.ended()
            except Exception:
                self._break()

    def _break(self) -> None:
        if not self._is_broken:
            self._is_broken = True
            _logger.exception(
                "Timing runs of trio failed and is switched off; the program goes on without it"
            )
