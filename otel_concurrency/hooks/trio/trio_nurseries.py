"""In which context a task of trio was created whose exception goes to its nursery.

The nursery raises it again as a part of a group, in a task that may have been in no span at all. It takes
each exception by `Nursery._add_exc`, while the task that it comes from still counts as the one that runs
(`trio/_core/_run.py`). trio is never imported for our sake.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Switch, switched


class TrioNurseryHook:
    """Tells of each exception that a task leaves to its nursery, and where that task was created.

    Args:
        failures: Knows the origin in a context.
        failed: Called with the exception and its origin; must not raise.
    """

    def __init__(self, failures: Failures, failed: Callable[[BaseException, object], object]) -> None:
        self._failures = failures
        self._failed = failed
        self._patch = LatePatch(
            "trio", self._made, loss="what its nurseries raise may be told in the trace of their task"
        )

    def __repr__(self) -> str:
        return f"<TrioNurseryHook {self._patch}>"

    def install(self) -> None:
        """Patch trio, now or when it is imported; a second call changes nothing."""
        self._patch.install()

    def remove(self) -> None:
        """Put everything back."""
        self._patch.remove()

    def _made(self, trio: Any) -> Patch:
        observed = functools.partial(self._observed, trio._core._run.GLOBAL_RUN_CONTEXT, trio.Cancelled)
        return Patch(trio.Nursery, "_add_exc", switched(observed))

    def _observed(
        self, current: Any, cancelled: type[BaseException], original: Callable[..., Any], switch: Switch
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        def _add_exc(nursery: Any, exc: BaseException, *args: Any, **kwargs: Any) -> Any:
            if switch.is_on and not isinstance(exc, cancelled):
                task = getattr(current, "task", None)
                if task is not None:
                    self._failed(exc, self._failures.origin_in(task.context))
            return original(nursery, exc, *args, **kwargs)

        return _add_exc
