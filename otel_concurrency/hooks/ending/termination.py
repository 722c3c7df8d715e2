"""SIGTERM and SIGINT at their default action: called first, then the process ends by the signal.

At its start Python leaves SIGTERM at that, and SIGINT only if the program says so: as a rule Ctrl-C raises
`KeyboardInterrupt`, and the process ends in order.

Everybody else sees the default: `signal.getsignal` says `SIG_DFL`, `signal.signal` returns it as what was
there before, and setting it makes ours stand for it again. So a program that sets a handler of its own has
that one alone, and one that restores the default and raises the signal once more, as uvicorn does at its end,
comes to us. What a process executes starts with the real default.

Python runs handlers in the main thread, between two instructions. A signal that finds this thread on its way
into a wait is noted and wakes nobody; one that finds it in a call of C code waits for its end. Where the C
extension serves, the signal therefore comes again until it is heard, for so long; then the default action
ends the process, unheard.
"""

from __future__ import annotations

import _thread
import functools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from otel_concurrency.hooks.ending.held_signals import hold_at_forks
from otel_concurrency.hooks.ending.shutdown_notice import note
from otel_concurrency.hooks.patch import Patch

SIGNALS = (signal.SIGTERM, signal.SIGINT)

INIT = 1
"""The kernel lets no default action end this process: the first of a container."""

REPEAT_S = 0.05
"""After how long a signal comes again that the main thread has not heard."""

TRIES = 20
TRY_AGAIN_S = 0.005
"""How often, and after how long, a signal is put off that comes while the main thread is busy."""

_DEPTH = 60  # frames looked at; a program's own depth is no reason to be slow


class TerminationHook:
    """Calls before one of `SIGNALS` ends the process.

    Args:
        before: Called with the signal's name in the main thread, wherever that was interrupted; what it
            raises is kept back.
        is_needed: Must be quick, and hold no lock: a short-lived fork of the process may ask.
        in_background: Called in place of `before` where the process will not end.
        busy: Beginnings of module names. While a function of such a module runs in the main thread, it may
            hold a lock that `before` needs: the signal waits for a moment.
        heard_within_s: How long a signal may wait for the main thread; None leaves that to CPython.
    """

    def __init__(
        self,
        before: Callable[[str], object],
        is_needed: Callable[[], bool],
        in_background: Callable[[str], object],
        busy: tuple[str, ...] = (),
        heard_within_s: float | None = None,
    ) -> None:
        self._before = before
        self._is_needed = is_needed
        self._in_background = in_background
        self._busy = busy
        self._repeat, self._heard = _repeating(heard_within_s)
        self._handler = self._terminate  # one object, to be recognised by
        self._set_handler: Callable[..., Any] = signal.signal
        self._get_handler: Callable[..., Any] = signal.getsignal
        self._put_off = 0
        self._is_active = False
        self._stop_holding: Callable[[], None] = _nothing
        self._patches = [
            Patch(signal, "signal", self._around_signal),
            Patch(signal, "getsignal", self._around_getsignal),
            Patch(_thread, "interrupt_main", self._around_interrupt),
        ]

    @property
    def is_heard(self) -> bool:
        """Whether a signal comes again until it is heard; else one may be lost."""
        return self._repeat is not _nothing

    def __repr__(self) -> str:
        return f"<TerminationHook [{'installed' if self._is_active else 'removed'}]>"

    def install(self) -> None:
        """Stand in for the default action; not possible off the main thread, or on Windows."""
        is_main = threading.current_thread() is threading.main_thread()
        if self._is_active or sys.platform == "win32" or not is_main:
            return
        self._set_handler, self._get_handler = signal.signal, signal.getsignal
        try:
            for each in SIGNALS:
                if self._get_handler(each) == signal.SIG_DFL:
                    self._set_handler(each, self._handler)
                    self._repeat(each)
        except ValueError:  # in another interpreter than the main one
            return
        self._is_active = True
        self._stop_holding = hold_at_forks(self._handled)
        for patch in self._patches:
            patch.install()

    def remove(self) -> None:
        """Put everything back; off the main thread the handler stays, and does what the default does."""
        self._is_active = False
        self._stop_holding()
        for patch in self._patches:
            patch.remove()
        handled = self._handled()
        if not handled:
            return
        # Blocked, for one that comes meanwhile is not to be noted: the default action would not take place.
        held = set(handled).difference(signal.pthread_sigmask(signal.SIG_BLOCK, handled))
        try:
            for each in handled:
                self._set_handler(each, signal.SIG_DFL)
        except ValueError:
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, held)

    def _handled(self) -> list[int]:
        """Tell which signals are ours now."""
        return [each for each in SIGNALS if self._get_handler(each) is self._handler]

    def _around_signal(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        @functools.wraps(original)
        def set_handler(signalnum: Any, handler: Any) -> Any:
            is_default = isinstance(handler, int) and handler == signal.SIG_DFL
            if not (is_default and signalnum in SIGNALS and self._is_active):
                return self._as_seen(original(signalnum, handler))
            before = original(signalnum, self._handler)
            self._repeat(signalnum)
            return self._as_seen(before)

        return set_handler, _nothing

    def _around_getsignal(
        self, original: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[[], None]]:
        @functools.wraps(original)
        def getsignal(signalnum: Any) -> Any:
            return self._as_seen(original(signalnum))

        return getsignal, _nothing

    def _around_interrupt(
        self, original: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[[], None]]:
        @functools.wraps(original)
        def interrupt_main(signum: Any = signal.SIGINT, /) -> None:
            try:
                is_ours = self._get_handler(signum) is self._handler
            except (TypeError, ValueError):
                is_ours = False
            if not is_ours:  # it does nothing where the default action stands
                original(signum)

        return interrupt_main, _nothing

    def _as_seen(self, handler: Any) -> Any:
        return signal.SIG_DFL if handler is self._handler else handler

    def _terminate(self, signum: int, frame: FrameType | None) -> None:
        self._heard(signum)
        if self._is_active and self._put_off < TRIES and self._is_busy(frame):
            self._put_off += 1
            try:
                _thread.start_new_thread(_send_again, (signum,))
                return
            except RuntimeError:  # no thread to be had, so now or never
                pass
        self._put_off = 0
        if os.getpid() == INIT:
            if self._is_active:
                _quietly(lambda: self._in_background(signal.Signals(signum).name))
            return
        note(signal.Signals(signum).name)
        self._set_handler(signum, signal.SIG_DFL)  # whoever sends it a second time does not want to wait
        if self._is_active:
            _quietly(lambda: self._before_the_end(signal.Signals(signum).name))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
        signal.raise_signal(signum)

    def _before_the_end(self, name: str) -> None:
        if self._is_needed():
            self._before(name)

    def _is_busy(self, frame: FrameType | None) -> bool:
        for _ in range(_DEPTH):
            if frame is None:
                return False
            if str(frame.f_globals.get("__name__")).startswith(self._busy or ("\0",)):
                return True
            frame = frame.f_back
        return False


def _repeating(within_s: float | None) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """Return what makes a signal come again, and what stops it."""
    if within_s is None:
        return _nothing, _nothing
    try:
        from otel_concurrency.probes._native import repeat_signal, signal_heard
    except ImportError:  # not built, or not for this system
        return _nothing, _nothing
    tries = math.ceil(within_s / REPEAT_S)
    return lambda signum: repeat_signal(signum, tries, round(REPEAT_S * 1e9)), signal_heard


def _send_again(signum: int) -> None:
    time.sleep(TRY_AGAIN_S)
    os.kill(os.getpid(), signum)


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:  # the process ends whatever happens to us
        pass


def _nothing(*_: object) -> None:
    pass
