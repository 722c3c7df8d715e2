"""The collector calls a hook's callback, and nobody's after removal."""

from __future__ import annotations

import gc
from collections.abc import Mapping

from otel_concurrency.hooks.runtime.gc import GcHook


class Heard:
    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        self.phases.append((phase, info["generation"]))


def collected(heard: Heard) -> list[tuple[str, int]]:
    """What is heard of one full collection; automatic ones are off."""
    gc.disable()
    try:
        heard.phases.clear()
        gc.collect()
        return list(heard.phases)
    finally:
        gc.enable()


def test_it_hears_each_collection_once_until_it_is_removed():
    heard = Heard()
    hook, before = GcHook(heard), list(gc.callbacks)
    hook.install()
    hook.install()
    try:
        assert repr(hook) == "<GcHook [installed]>"
        assert collected(heard) == [("start", 2), ("stop", 2)]
    finally:
        hook.remove()
    hook.remove()
    assert repr(hook) == "<GcHook [removed]>"
    assert collected(heard) == []
    assert gc.callbacks == before
