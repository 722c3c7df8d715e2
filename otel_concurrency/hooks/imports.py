"""A word when the program imports a module, so that nobody pays for one that the program never uses.

`concurrent.futures.process` and `multiprocessing` take milliseconds to import; most programs have no process
pool. Where a module is not there yet, one finder of ours stands first in `sys.meta_path` until the last
awaited module has come. It finds nothing itself: it asks the finders after it, and lets their loader tell us
when the module's code has run. What the program sees of the module is what those finders made.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

Callback = Callable[[ModuleType], None]
Around = Callable[[], AbstractContextManager[object]]

_logger = logging.getLogger(__name__)


class _Awaiting(NamedTuple):
    callback: Callback
    around: Around


def when_imported(name: str, callback: Callback, *, around: Around = nullcontext) -> Callable[[], None]:
    """Call back with a module: now if it has been imported, else as soon as its code has run.

    Args:
        name: The module's full name.
        callback: Called once at most, on the thread that imports; what it raises is logged.
        around: Makes the context that the module's code runs in; must not raise.

    Returns:
        What takes it back; nothing where the module has come.
    """
    module = sys.modules.get(name)
    if module is not None and not _is_being_imported(module):
        _tell(callback, module)
        return _do_nothing
    _finder.add(name, _Awaiting(callback, around))
    return lambda: _finder.drop(name, callback)


class _Finder:
    """Stands first in `sys.meta_path` while something is awaited."""

    def __init__(self) -> None:
        self._awaited: dict[str, tuple[_Awaiting, ...]] = {}

    def __repr__(self) -> str:
        return f"<finder of otel_concurrency awaiting {', '.join(self._awaited) or 'nothing'}>"

    def add(self, name: str, awaiting: _Awaiting) -> None:
        self._awaited[name] = (*self._awaited.get(name, ()), awaiting)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def drop(self, name: str, callback: Callback) -> None:
        left = tuple(each for each in self._awaited.pop(name, ()) if each.callback is not callback)
        if left:
            self._awaited[name] = left
        self._leave_if_done()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the next finders answer, and have their loader tell us; None for what nobody awaits."""
        if name not in self._awaited:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                self._listen(name, spec.loader)
                return spec
        return None

    def _listen(self, name: str, loader: Any) -> None:
        exec_module = getattr(loader, "exec_module", None)
        if exec_module is None or isinstance(loader, type) or not hasattr(loader, "__dict__"):
            _logger.debug("%s comes from %r, which is shared and cannot tell us", name, loader)
            return

        def exec_and_tell(module: ModuleType) -> None:
            if module.__name__ != name:  # a loader of many modules, such as a zip file's
                exec_module(module)
                return
            if vars(loader).get("exec_module") is exec_and_tell:
                del loader.exec_module
            with ExitStack() as stack:
                for awaiting in self._awaited.get(name, ()):
                    stack.enter_context(awaiting.around())
                exec_module(module)
            self._came(name, module)

        loader.exec_module = exec_and_tell

    def _came(self, name: str, module: ModuleType) -> None:
        awaited = self._awaited.pop(name, ())
        self._leave_if_done()
        for awaiting in awaited:
            _tell(awaiting.callback, module)

    def _leave_if_done(self) -> None:
        if not self._awaited and self in sys.meta_path:
            sys.meta_path.remove(self)


_finder = _Finder()


def _is_being_imported(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _tell(callback: Callback, module: ModuleType) -> None:
    try:
        callback(module)
    except Exception:
        _logger.exception("%r failed when %s was imported", callback, module.__name__)


def _do_nothing() -> None:
    pass
