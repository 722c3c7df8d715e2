"""What is kept for the span of a task until its end, and the one question that threads may race for."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T", bound="PureStandInState")

_put = object.__setattr__  # who derives from it may hand on what is set


class PureStandInState:
    """The twin of the C type: the same attributes, and the same answer to whoever asks at once."""

    __slots__ = (
        *("_around", "_asked_unix_ns", "_box", "_code", "_continued", "_created_in", "_function", "_maker"),
        *("_otel_concurrency_account", "_real", "_start_unix_ns"),
    )

    _maker: Any
    _real: Any
    _around: Any
    _created_in: Any
    _code: Any
    _function: str
    _continued: Any
    _otel_concurrency_account: Any
    _start_unix_ns: int
    _asked_unix_ns: int
    _box: dict[str, Any]

    def __new__(cls: type[T]) -> T:
        new = object.__new__(cls)
        _put(new, "_box", {})
        _put(new, "_continued", None)
        _put(new, "_otel_concurrency_account", None)
        _put(new, "_asked_unix_ns", 0)
        return new

    @property
    def _settled(self) -> Any:
        """What became of the ids: False while that is open."""
        return self._box.get("ids", False)

    def _settle(self, ids: Any) -> Any:
        """Set what became of the ids, once; return what became of them."""
        # One call of C: no other thread comes between the look and the answer.
        return self._box.setdefault("ids", ids)


def stand_in_state() -> type[PureStandInState]:
    """Return the C type where it is built, else its twin."""
    try:
        from otel_concurrency.probes._native import StandInState
    except ImportError:
        return PureStandInState
    return StandInState  # type: ignore[return-value]
