"""Where we attach to event loops: around `run_forever` of every loop class, known now or made later.

`run_until_complete`, `asyncio.run` and `Runner.run` all end in it. While a loop of asyncio's kind runs, the
`select` of its selector (or proactor), which CPython's `asyncio/base_events.py::_run_once` calls once an
iteration, is replaced on the instance, and put back afterwards. Where that is `EpollSelector.select`, which
asks its `_selector` once (CPython `selectors.py`), the native timer takes the place of that one, for less.
uvloop gives others a pointer to its libuv loop (`loop.pyx`, `libuv_get_loop_t_ptr`), where handles of ours
sit while it runs.
"""

from __future__ import annotations

import functools
import inspect
import logging
import select
import selectors
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from otel_concurrency.hooks.loops.loop_classes import LoopMethodPatches
from otel_concurrency.hooks.patch import Patch
from otel_concurrency.probes.loop_time import SELECT, UNSEEN, LoopTimes, TimedLoop

_METHODS = (types.FunctionType, types.MethodDescriptorType)
_EPOLL = getattr(select, "epoll", None)
_EPOLL_SELECT = getattr(getattr(selectors, "EpollSelector", None), "select", None)

_logger = logging.getLogger(__name__)


class RunObserver(Protocol):
    """Hears of runs; if it raises, nobody hears of any more."""

    def loop_began(self, timed: TimedLoop) -> None:
        """A run begins, in this thread."""
        ...

    def loop_ended(self, timed: TimedLoop) -> None:
        """It is over."""
        ...


class EventLoopHook:
    """Times every loop while it runs.

    Args:
        times: Where each loop has its timer.

    Attributes:
        observers: Hear of each run of a loop that is timed, in the loop's thread; replaced, never changed.
    """

    def __init__(self, times: LoopTimes) -> None:
        self._times = times
        self.observers: Sequence[RunObserver] = ()
        self._run_forever = LoopMethodPatches(
            "run_forever", self._observe, loss="what it does with its time is not told"
        )
        self._runs: dict[int, _Run] = {}
        self._is_broken = False

    def __repr__(self) -> str:
        return f"<EventLoopHook {len(self._runs)} running, {self._run_forever}>"

    def install(self) -> None:
        """Patch all loop classes; a second call changes nothing. Loops that run are seen next time."""
        self._run_forever.install()

    def remove(self) -> None:
        """Put everything back; a loop that runs goes on untimed, libuv lets go of us at its end."""
        self._run_forever.remove()
        for run in list(self._runs.values()):
            run.put_back()

    def _observe(self, original: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], Callable[[], None]]:
        is_on = True

        def run_forever(self: Any) -> Any:
            run = hook._begin(self) if is_on else None
            if run is None:
                return original(self)
            try:
                return original(self)
            finally:
                hook._end(run)

        hook = self

        def silence() -> None:
            nonlocal is_on
            is_on = False

        return functools.wraps(original)(run_forever), silence

    def _begin(self, loop: Any) -> _Run | None:
        """Time a run that is about to begin in this thread; our own trouble ends that for good."""
        if self._is_broken:
            return None
        try:
            if _is_refused(loop):
                return None
            timed = self._times.timed(loop)
            if timed.is_running:
                return None
            run = _Run(timed, loop)
            self._runs[id(run)] = run
        except Exception:
            self._break()
            return None
        self.began(timed)
        return run

    def _end(self, run: _Run) -> None:
        try:
            self._runs.pop(id(run), None)
            self.ended(run.timed)
            run.end()
        except Exception:
            self._break()

    def began(self, timed: TimedLoop) -> None:
        """Tell the observers of a run, of whatever kind of loop."""
        self._tell(lambda observer: observer.loop_began(timed))

    def ended(self, timed: TimedLoop) -> None:
        """Tell them that it is over."""
        self._tell(lambda observer: observer.loop_ended(timed))

    def _tell(self, what: Callable[[RunObserver], None]) -> None:
        try:
            for observer in self.observers:
                what(observer)
        except Exception:
            self.observers = ()
            _logger.exception(
                "Watching event loops failed and is switched off; the program goes on without it"
            )

    def _break(self) -> None:
        if not self._is_broken:
            self._is_broken = True
            _logger.exception("Timing event loops failed and is switched off; the program goes on without it")


class _Run:
    """One run of one loop, from before `run_forever` to after it."""

    def __init__(self, timed: TimedLoop, loop: Any) -> None:
        self.timed = timed
        self._wait: Patch | None = None
        way = self._attach(loop)
        timed.began(way)

    def _attach(self, loop: Any) -> str:
        selector = getattr(loop, "_selector", None)
        if selector is not None:
            return SELECT if self._replace_wait(selector) else UNSEEN
        libuv = _libuv_of(loop)
        return self.timed.timer.begin_libuv(*libuv) if libuv is not None else UNSEEN

    def _replace_wait(self, selector: Any) -> bool:
        # Somebody's own `select` on the instance is theirs, and a mock's is none: only a method is replaced.
        method = inspect.getattr_static(type(selector), "select", None)
        attributes = getattr(selector, "__dict__", None)
        if not isinstance(method, _METHODS) or attributes is None or "select" in attributes:
            return False
        timer = self.timed.timer
        name, begin = "select", timer.begin_select
        asks_epoll = method is _EPOLL_SELECT and type(attributes.get("_selector")) is _EPOLL
        if asks_epoll and timer.begin_epoll is not None:
            name, begin = "_selector", timer.begin_epoll
        wait = Patch(selector, name, lambda original: (begin(original), _do_nothing))
        try:
            wait.install()
        except (AttributeError, TypeError):  # it lets nothing be set
            timer.end()
            return False
        self._wait = wait
        return True

    def put_back(self) -> None:
        """Let go of the selector; of libuv's handles only the end of the run can."""
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.remove()
            self.timed.ended()

    def end(self) -> None:
        """The run is over."""
        self.put_back()
        if self.timed.is_running:
            self.timed.ended()


def _is_refused(loop: Any) -> bool:
    """Whether the loop is about to refuse to run, or is of a kind that does not even tell that."""
    try:
        return bool(loop.is_running() or loop.is_closed())
    except Exception:
        return True


def _libuv_of(loop: Any) -> tuple[Any, str] | None:
    """Return a pointer to a loop's libuv loop, and the library that knows it."""
    uvloop = sys.modules.get("uvloop.loop")
    library = getattr(uvloop, "__file__", None)
    if uvloop is None or library is None or not isinstance(loop, uvloop.Loop):
        return None
    return uvloop.libuv_get_loop_t_ptr(loop), library


def _do_nothing() -> None:
    pass
