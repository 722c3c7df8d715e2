import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

WAY: str

def bucket_position(ns: int, /) -> int: ...
def monotonic_ns() -> int: ...

class TaskProbe:
    def __init__(
        self,
        cancelled_error: type[BaseException],
        *,
        max_coroutines: int,
        max_error_types: int,
        origin: ContextVar[Any] | None = None,
        current_tasks: dict[Any, Any] | None = None,
        foreign: Callable[..., None] | None = None,
    ) -> None: ...
    @property
    def lost(self) -> int: ...
    def create_task(
        self,
        original: Callable[..., asyncio.Future[Any]],
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> asyncio.Future[Any]: ...
    def loop_of(self, loop: asyncio.AbstractEventLoop, /) -> tuple[int | None, str]: ...
    def read_rows(self) -> list[tuple[Any, ...]]: ...
    def read_loops(self) -> list[tuple[Any, ...]]: ...
    def reset(self) -> None: ...
    def running(self) -> list[tuple[int, str, int]]: ...
