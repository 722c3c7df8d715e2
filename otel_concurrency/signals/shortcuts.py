"""The SDK's attributes, for the usual case: text keys, plain values, room for all of them.

For each attribute of each span and each measurement the SDK asks ten times what it is before it copies it
(`opentelemetry/attributes`, `sdk/metrics/_internal/_view_instrument_match.py`, 1.45). That is two fifths of
what a span costs, and a third of a measurement. Here one look at the types says whether that can be left
out. Whatever is unusual (a sequence, a key that is no text, a limit that is reached) takes the SDK's way, and
so does everything where an SDK makes something else of a sample than we do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MappingProxyType, ModuleType
from typing import Any

from opentelemetry.attributes import BoundedAttributes

from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched

_NAMES = {kind: kind.__name__ for kind in (str, int, float, bool, type(None))}
_PLAIN = frozenset(_NAMES)
_TEXT = frozenset((str,))
_MAPPINGS = (dict, MappingProxyType)  # the second is what a sampler hands on
_SAMPLE: dict[str, Any] = {"b": "text", "a": True, "d": 1, "c": 1.5, "e": None, "f": ""}
_logger = logging.getLogger(__name__)


class AttributeShortcuts:
    """Puts the shortcuts in front of the functions of the SDK; one that is not there, or differs, stays."""

    def __init__(self) -> None:
        self._patches: Patches | None = None

    def __repr__(self) -> str:
        return f"<AttributeShortcuts {self._patches or 'off'}>"

    def install(self) -> None:
        """Patch what is there and does what we know; a second call changes nothing."""
        if self._patches is None:
            self._patches = Patches(list(_patches()))
            self._patches.install()

    def remove(self) -> None:
        """Let the SDK go its own way."""
        if self._patches is not None:
            self._patches.remove()
            self._patches = None


def _patches() -> list[Patch]:
    try:
        from opentelemetry.sdk.metrics._internal import _view_instrument_match as matches
        from opentelemetry.sdk.metrics._internal import measurement as measurements
    except ImportError:
        _logger.debug("This SDK keeps measurements elsewhere", exc_info=True)
        return []
    found: list[Patch] = []
    if _sets_as_we_do():
        found.append(Patch(BoundedAttributes, "_set_items", switched(_set_items)))
    if _does_as_we_do(measurements, "_clean_attribute_value", _clean, _SAMPLE, None):
        found.append(Patch(measurements, "_clean_attribute_value", switched(_clean)))
    if _does_as_we_do(matches, "_hash_attributes", _hash, _SAMPLE):
        found.append(Patch(matches, "_hash_attributes", switched(_hash)))
    return found


def _set_items(original: Callable[[Any, Any], None], switch: Switch) -> Callable[[Any, Any], None]:
    def _set_items(self: Any, attributes: Any) -> None:
        copied = _copy(attributes) if switch.is_on and self.max_value_len is None else None
        if copied is not None and not self._immutable:
            with self._lock:
                kept = self._dict
                if self.maxlen is None or len(kept) + len(copied) <= self.maxlen:
                    for key in kept.keys() & copied.keys() if kept else ():
                        del kept[key]  # as the SDK does: what is set again comes last
                    kept.update(copied)
                    return
        original(self, attributes)

    return _set_items


def _clean(original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
    def _clean_attribute_value(value: Any, max_string_value_length: int | None) -> Any:
        copied = _copy(value) if switch.is_on and max_string_value_length is None else None
        return original(value, max_string_value_length) if copied is None else copied

    return _clean_attribute_value


def _hash(original: Callable[[Any], Any], switch: Switch) -> Callable[[Any], Any]:
    def _hash_attributes(value: Any) -> Any:
        if type(value) is not dict or not switch.is_on:
            return original(value)
        if not _PLAIN.issuperset(map(type, value.values())):
            return original(value)
        # They have been cleaned: all keys are text.
        return ("mapping", tuple([(key, (_NAMES[type(value[key])], value[key])) for key in sorted(value)]))

    return _hash_attributes


def _copy(attributes: Any) -> dict[str, Any] | None:
    """Return a copy of plain attributes; None where something is unusual."""
    if type(attributes) not in _MAPPINGS:
        return None
    copied = dict(attributes)
    is_plain = _PLAIN.issuperset(map(type, copied.values())) and _TEXT.issuperset(map(type, copied))
    return copied if is_plain and "" not in copied else None


def _does_as_we_do(module: ModuleType, name: str, make: Callable[..., Any], *sample: Any) -> bool:
    """Whether a function of the SDK is there, and returns what ours does."""
    original = getattr(module, name, None)
    if original is None:
        return False
    try:
        theirs, ours = original(*sample), make(original, Switch())(*sample)
    except Exception:
        return False
    return bool(type(theirs) is type(ours) and repr(theirs) == repr(ours))


def _sets_as_we_do() -> bool:
    """Whether attributes are kept as we know it, and come out the same."""
    if "_set_items" not in vars(BoundedAttributes):
        return False
    try:
        theirs, ours = (BoundedAttributes(9, {"c": 0, "z": 1}, immutable=False) for _ in range(2))
        theirs._set_items(_SAMPLE)
        _set_items(_refuse, Switch())(ours, _SAMPLE)
        return list(theirs.items()) == list(ours.items()) and vars(theirs).keys() == vars(ours).keys()
    except Exception:
        return False


def _refuse(attributes: Any, given: Any) -> None:
    raise TypeError("the usual case was not taken for one")
