"""Where we attach to programs that are started: they get the context in their environment.

`subprocess.run`, `call`, `check_output`, `os.popen` and, on asyncio's loops, `create_subprocess_exec` and
`_shell` all make a `subprocess.Popen` (CPython `subprocess.py`, `asyncio/unix_events.py`). uvloop starts
processes in C: there the loop's two methods are the way in (uvloop `loop.pyx`, `__subprocess_run`).

Left alone: `os.posix_spawn` and `os.exec*` with an environment, whose callers have just said what it shall
be; `os.system`, `os.exec*` and `os.spawn*` without one, where only a change of `os.environ`, for all threads,
would tell them; what multiprocessing starts, which has a way of its own (`hooks/processes/processes.py`).
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch
from otel_concurrency.hooks.processes.child_environment import changes, variable, with_context

_ENV, _PREEXEC = "env", "preexec_fn"  # arguments of `Popen` and of uvloop

_logger = logging.getLogger(__name__)


class SubprocessHook:
    """Puts the context of whoever starts a program into that program's environment.

    Args:
        capture: Returns what the current context has to carry to another process, by field.
        fields: Returns all fields that there may be.
    """

    def __init__(self, capture: Callable[[], Mapping[str, str]], fields: Callable[[], Iterable[str]]) -> None:
        self._capture = capture
        self._fields = fields
        self._at_start: dict[str, str] = {}
        self._patches: list[Patch] = []
        self._take_back: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<SubprocessHook {self._patches}>"

    def install(self) -> None:
        """Patch `Popen` and uvloop's loop, each when it is imported; a second call changes nothing."""
        if self._take_back:
            return
        names = map(variable, self._fields())
        self._at_start = {name: os.environ[name] for name in names if name in os.environ}
        self._take_back = [
            when_imported("subprocess", self._patch_popen),
            when_imported("uvloop", self._patch_uvloop),
        ]

    def remove(self) -> None:
        """Put everything back, last first."""
        while self._take_back:
            self._take_back.pop()()
        while self._patches:
            self._patches.pop().remove()

    def _patch_popen(self, module: ModuleType) -> None:
        self._patch(getattr(module, "Popen", None), "__init__", self._popen)

    def _patch_uvloop(self, module: ModuleType) -> None:
        loop_class = getattr(module, "Loop", None)
        for name in ("subprocess_exec", "subprocess_shell"):
            self._patch(loop_class, name, self._loop_method)

    def _patch(self, owner: Any, name: str, make: Callable[[Any], tuple[Any, Callable[[], None]]]) -> None:
        patch = Patch(owner, name, make)
        try:
            patch.install()
        except (AttributeError, TypeError, ValueError):
            _logger.warning("%r.%s is not as we know it; its programs start without context", owner, name)
        else:
            self._patches.append(patch)

    def _popen(self, original: Callable[..., None]) -> tuple[Callable[..., None], Callable[[], None]]:
        names = list(inspect.signature(original).parameters)
        positions = {name: names.index(name) - 1 for name in (_ENV, _PREEXEC)}
        is_active = True

        @functools.wraps(original)
        def __init__(self_: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            if is_active:
                given = {
                    name: args[position] if len(args) > position else kwargs.get(name)
                    for name, position in positions.items()
                }
                for name, value in self._completed(given).items():
                    position = positions[name]
                    if len(args) > position:
                        args = (*args[:position], value, *args[position + 1 :])
                    else:
                        kwargs[name] = value
            original(self_, *args, **kwargs)

        if sys.flags.warn_default_encoding:
            _place_beside(original, __init__)

        def silence() -> None:
            nonlocal is_active
            is_active = False

        return __init__, silence

    def _loop_method(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        is_active = True

        @functools.wraps(original)
        def method(self_: Any, *args: Any, **kwargs: Any) -> Any:
            # uvloop takes a dict and nothing else; what it refuses stays for it to refuse.
            if is_active and type(kwargs.get(_ENV)) in (dict, type(None)):
                given = {name: kwargs.get(name) for name in (_ENV, _PREEXEC)}
                kwargs.update(self._completed(given))
            return original(self_, *args, **kwargs)

        def silence() -> None:
            nonlocal is_active
            is_active = False

        return method, silence

    def _completed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments to start the program with, where they differ from what was given."""
        env, preexec_fn = given[_ENV], given[_PREEXEC]
        try:
            carrier = self._capture() if env is None or isinstance(env, Mapping) else None
            if not carrier:
                return {}
            fields = self._fields()
            environment = with_context(env, carrier, fields, self._at_start)
            if environment is env or environment is None:
                return {}
            if env is None and callable(preexec_fn):
                return {_PREEXEC: _before(preexec_fn, changes(environment, {*fields, *carrier}))}
            return {_ENV: environment}
        except Exception:
            _logger.debug("A program starts without its context", exc_info=True)
            return {}


def _place_beside(original: Callable[..., None], function: Any) -> None:
    """Say of a function that its code is where the original's is.

    `python -X warn_default_encoding` blames the first frame that is not in `subprocess.py` for a missing
    encoding (`subprocess._text_encoding`): it has to be the program's.
    """
    code = getattr(original, "__code__", None)
    if code is not None:
        function.__code__ = function.__code__.replace(
            co_filename=code.co_filename, co_firstlineno=code.co_firstlineno
        )


def _before(preexec_fn: Callable[[], object], variables: Mapping[str, str | None]) -> Callable[[], None]:
    """Set variables in the child first: what it inherits is its own to change there, and it may do so."""

    def preexec() -> None:
        for name, value in variables.items():
            if value is None:
                os.unsetenv(name)
            else:
                os.putenv(name, value)
        preexec_fn()

    return preexec
