"""Objects that hold a failure, such as futures: noticed at their end, if nobody has looked until then.

Such an object becomes one of a subclass of its class that looks the same; whoever looks at the failure makes
it what it was. So those that succeed cost nothing, and those that are looked at little.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from otel_concurrency.hooks.failures.failures import FAILURES
from otel_concurrency.probes.pure import type_name

_KEY = "_otel_concurrency_unseen"


class Unseen(NamedTuple):
    """What is known of a failure that nobody has looked at.

    Attributes:
        kind: Of the failure.
        error: What was raised, as the object holds it anyway.
        traceback: What it had for a traceback then.
        pool: The pool's probe, or None.
        origin: As `Failures.note` takes it.
        context: The same.
        carrier: The same.
    """

    kind: str
    error: BaseException
    traceback: Any
    pool: Any = None
    origin: Any = None
    context: Any = None
    carrier: Any = None


class UnseenWatch:
    """Watches objects of some classes.

    Args:
        looks: Names of the methods by which somebody looks.
        looked: Called with the object, the name and what was known, before such a method.
    """

    def __init__(
        self, looks: tuple[str, ...], looked: Callable[[Any, str, Unseen], object] | None = None
    ) -> None:
        self._looks = looks
        self._looked = looked
        self._class_of = functools.lru_cache(maxsize=16)(self._make_class)

    def begin(self, thing: Any, unseen: Unseen) -> None:
        """Watch an object from now on.

        Raises:
            TypeError: Its class cannot be changed.
        """
        kind: Any = type(thing)
        thing.__class__ = self._class_of(kind)
        vars(thing)[_KEY] = unseen

    def _make_class(self, kind: Any) -> type[Any]:
        members: dict[str, Any] = {"__del__": _let_go, "__slots__": (), "__doc__": kind.__doc__}
        for name in self._looks:
            members[name] = self._look(kind, name)
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        return type(kind.__name__, (kind,), members | names)

    def _look(self, kind: Any, name: str) -> Callable[..., Any]:
        original = getattr(kind, name)
        looked = self._looked

        def look(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                self.__class__ = kind
                unseen = vars(self).pop(_KEY, None)
                if unseen is not None and looked is not None:
                    looked(self, name, unseen)
                del unseen
                return original(self, *args, **kwargs)
            finally:
                del self  # as CPython does: the exception's traceback leads here

        return functools.update_wrapper(look, original)


def _let_go(thing: Any) -> None:
    # In a collection, maybe.
    unseen = vars(thing).pop(_KEY, None)
    # Its traceback has grown where somebody, who had called just before we watched, has raised it.
    if unseen is None or unseen.error.__traceback__ is not unseen.traceback:
        return
    if unseen.pool is not None:
        unseen.pool.unretrieved(type_name(type(unseen.error)))
    FAILURES.note(
        unseen.kind,
        unseen.error,
        origin=unseen.origin,
        context=unseen.context,
        carrier=unseen.carrier,
        pool="" if unseen.pool is None else unseen.pool.name,
    )
