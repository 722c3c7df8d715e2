"""Something done before a method of one object is called for the first time, at no price afterwards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger(__name__)


def before_first_call(owner: Any, name: str, action: Callable[[], None]) -> None:
    """Run an action before the next call of a method of this object, once.

    The object carries a stand-in until then, and is as it was afterwards. Set again before that call, the
    newer action runs and the older does not. What an action raises is logged.

    Args:
        owner: The object; other objects of its class are not touched.
        name: The method.
        action: Other threads that call the method meanwhile wait for its end.
    """
    before = vars(owner).get(name)
    if isinstance(before, _FirstCall):
        before = before.before
    vars(owner)[name] = _FirstCall(owner, name, before, action)


class _FirstCall:
    def __init__(self, owner: Any, name: str, before: Any, action: Callable[[], None]) -> None:
        self.before = before
        self._owner = owner
        self._name = name
        self._action: Callable[[], None] | None = action
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            action, self._action = self._action, None
            if action is not None:
                self._step_aside()
                try:
                    action()
                except Exception:
                    _logger.exception("%r failed before the first %s", action, self._name)
        method = self.before or getattr(type(self._owner), self._name).__get__(self._owner)
        return method(*args, **kwargs)

    def _step_aside(self) -> None:
        attributes = vars(self._owner)
        if attributes.get(self._name) is self:  # else somebody has wrapped us, and goes on calling us
            if self.before is None:
                del attributes[self._name]
            else:
                attributes[self._name] = self.before
