"""The pure twin of the native `Sent`: a work item on its way to another process."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_concurrency.probes.functions import function_name

if TYPE_CHECKING:
    from otel_concurrency.probes.pure_work import PurePoolProbe


class PureSent:
    """Stands in a function's place and counts what becomes of it; see `Sent`."""

    __slots__ = (
        "_args",
        "_generation",
        "_has_ended",
        "_origin",
        "_otel_concurrency_pool",
        "function",
        "parcel",
    )

    function: Callable[..., Any]

    def __init__(
        self,
        pool: PurePoolProbe,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        capture: Callable[[], dict[str, str]],
    ) -> None:
        self._has_ended = True  # until it is counted as submitted
        self._otel_concurrency_pool = pool
        self._generation = pool.probe.generation
        self.function = function.function if isinstance(function, PureSent) else function
        self._args = args
        submitted_ns = time.monotonic_ns()  # compared with the worker's, so no other clock
        self._origin = None if pool.probe.origin is None else pool.probe.origin.get(None)
        carrier = capture() if self._origin or pool.probe.origin is None else {}
        if type(carrier) is not dict:
            raise TypeError("a carrier is a dict")
        self.parcel = (carrier, submitted_ns, pool.name)
        pool.submitted()
        self._has_ended = False

    def __repr__(self) -> str:
        return repr(self.function)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Arrive as a plain callable where nobody unwraps it."""
        return functools.partial, (self.function,)

    def __del__(self) -> None:
        self.cancel()

    def _ends(self) -> bool:
        """Whether it still counts; from now on it does not."""
        has_ended, self._has_ended = self._has_ended, True
        return not has_ended and self._generation == self._otel_concurrency_pool.probe.generation

    def reject(self) -> None:
        """Count it as refused by its pool."""
        if self._ends():
            pool = self._otel_concurrency_pool
            pool.probe.tell(pool.probe.add, pool.row, "rejected", 1)

    def cancel(self) -> None:
        """Count it as cancelled before it began."""
        if self._ends():
            self._otel_concurrency_pool.done("", queue_ns=-1, run_ns=-1, cancelled=True)

    def abandon(self) -> None:
        """Count it as given up by its pool."""
        if self._ends():
            self._otel_concurrency_pool.abandoned()

    def done(self, now_ns: int, timing: tuple[int, int] | None, error_type: str | None, /) -> None:
        """Count its end."""
        queue_ns, run_ns = timing or (-1, -1)
        transfer_ns = None if timing is None else max(now_ns - self.parcel[1] - queue_ns - run_ns, 0)
        if self._ends():
            self._otel_concurrency_pool.done(
                function_name(self.function, self._args),
                queue_ns=queue_ns,
                run_ns=run_ns,
                transfer_ns=transfer_ns,
                error_type=error_type,
                origin=self._origin,
            )
