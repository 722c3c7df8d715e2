"""What a task waits for, told by the functions that it waits in.

The locks and streams of AnyIO wait for events of asyncio or of trio, those of trio for a parking lot: what
they are waited for is what the outermost of these functions stands for. Only those that have to wait are
looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

from otel_concurrency.probes.waits import KINDS

NOT_OURS = "not ours"
"""The kind of a wait for I/O or for a task, and of one that counts elsewhere."""


class WaitKinds:
    """The functions that wait inside of others."""

    def __init__(self) -> None:
        self._kinds: dict[int, int | None] = {}  # by the id of the code: to hash one takes long
        self._known: list[CodeType] = []  # these keep their ids

    def __repr__(self) -> str:
        return f"<WaitKinds [{len(self._kinds)} functions]>"

    def learn(self, module: Any, waiting: Iterable[tuple[str, str]]) -> None:
        """Get to know functions of a module.

        Args:
            module: Where they are.
            waiting: For each its name, of a method `Class.method`, and one of `KINDS` or `NOT_OURS`. What a
                version of the library does not have is passed over.
        """
        for name, kind in waiting:
            code = code_of(module, name)
            if code is not None:
                self._known.append(code)
                self._kinds[id(code)] = None if kind == NOT_OURS else KINDS.index(kind)

    def kind(self, frame: FrameType, kind: int) -> int | None:
        """Return what is waited for, or None for a wait that is not to be counted.

        Args:
            frame: Of the function that waits.
            kind: What that function stands for by itself.
        """
        kinds = self._kinds
        found: int | None = kind
        around = frame.f_back
        while around is not None and (code := id(around.f_code)) in kinds:
            found = kinds[code]
            around = around.f_back
        return found


def code_of(module: Any, name: str) -> CodeType | None:
    """Return the code of a function that may be a method, may be decorated, or may not be there."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    found = inspect.unwrap(found) if callable(found) else None
    code: CodeType | None = getattr(getattr(found, "__func__", found), "__code__", None)
    return code
