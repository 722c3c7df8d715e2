"""Where we attach to `multiprocessing.Process`: what its caller is about is what its child is about.

Every way in passes through `BaseProcess.start` in the parent and `BaseProcess._bootstrap` in the child, a
subclass with a `run` of its own too (CPython `multiprocessing/process.py`; billiard has the same two). Under
fork the context is in the child's memory. Under spawn and forkserver a carrier, plain text, travels in the
private dict that a process inherits its settings by (`_config`), under a key of ours: how the program's own
target is pickled, or refuses to be, stays as it was. A child that knows nothing of us leaves the key alone.

Workers that the standard library starts for itself (of pools, managers) get none: they serve many, and each
item brings its own.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch

KEY = "otel_concurrency.context"  # in `_config`; its value is of this process alone, see `_taken`
_MODULES = ("multiprocessing.process", "billiard.process")
_SERVES_MANY = ("multiprocessing.", "concurrent.futures.", "billiard.", "joblib.externals.loky.", "loky.")

_logger = logging.getLogger(__name__)
# In a forked child, this still says which process was being started.
_starting: ContextVar[object] = ContextVar("otel_concurrency.starting", default=None)


class ProcessHook:
    """Takes the context of whoever calls `start()` into the child.

    Args:
        capture: Returns what the current context has to carry to another process, as text.
        restore: Makes the context that such text describes.
        inherit: Makes a forked child's context from the one that it found in its memory.
    """

    def __init__(
        self,
        capture: Callable[[], Mapping[str, str]],
        restore: Callable[[dict[str, str]], Context],
        inherit: Callable[[], Context],
    ) -> None:
        self._capture = capture
        self._restore = restore
        self._inherit = inherit
        self._patches: list[Patch] = []
        self._take_back: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<ProcessHook {self._patches}>"

    def install(self) -> None:
        """Patch the classes, each when the program has imported it; a second call changes nothing."""
        if not self._take_back:
            self._take_back = [when_imported(name, self._patch) for name in _MODULES]

    def remove(self) -> None:
        """Put everything back, last first."""
        while self._take_back:
            self._take_back.pop()()
        while self._patches:
            self._patches.pop().remove()

    def _patch(self, module: ModuleType) -> None:
        base = getattr(module, "BaseProcess", None)
        for name, make in (("_bootstrap", self._arriving), ("start", self._leaving)):
            patch = Patch(base, name, make)
            try:
                patch.install()
            except (AttributeError, TypeError):
                _logger.warning("%s has no BaseProcess.%s as we know it", module.__name__, name)
                return
            self._patches.append(patch)

    def _leaving(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        is_active = True

        @functools.wraps(original)
        def start(self_: Any, *args: Any, **kwargs: Any) -> Any:
            config = self._packed(self_) if is_active else None
            if config is None:
                return original(self_, *args, **kwargs)
            token = _starting.set(self_)
            try:
                return original(self_, *args, **kwargs)
            finally:
                _starting.reset(token)
                config.pop(KEY, None)

        def silence() -> None:
            nonlocal is_active
            is_active = False

        return start, silence

    def _packed(self, process: Any) -> dict[str, Any] | None:
        """Put the carrier where the child will find it; None where there is nothing to carry."""
        try:
            config = process._config
            if _serves_many(process):
                return None
            carrier = dict(self._capture())
            if not carrier:
                return None
            config[KEY] = (process._parent_pid, carrier)
        except Exception:
            _logger.debug("A process starts without its context", exc_info=True)
            return None
        return config  # type: ignore[no-any-return]

    def _arriving(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        is_active = True

        @functools.wraps(original)
        def _bootstrap(self_: Any, *args: Any, **kwargs: Any) -> Any:
            context = self._unpacked(self_) if is_active else None
            if context is None:
                return original(self_, *args, **kwargs)
            return context.run(original, self_, *args, **kwargs)

        def silence() -> None:
            nonlocal is_active
            is_active = False

        return _bootstrap, silence

    def _unpacked(self, process: Any) -> Context | None:
        try:
            carrier = _taken(process)
            if carrier is None:
                return None
            return self._inherit() if _starting.get() is process else self._restore(carrier)
        except Exception:
            _logger.debug("A process begins without its context", exc_info=True)
            return None


def _taken(process: Any) -> dict[str, str] | None:
    """Take the carrier out, so that children of this child do not inherit it.

    A parent in which we are switched off hands on what it inherited: that is of another process, and ignored.
    """
    parent, carrier = process._config.pop(KEY, (None, None))
    return carrier if parent == process._parent_pid else None


def _serves_many(process: Any) -> bool:
    # A worker's target is a function of the library itself, or an object of its classes.
    target = getattr(process, "_target", None)
    module = getattr(target, "__module__", None) or type(target).__module__
    return str(module).startswith(_SERVES_MANY)
