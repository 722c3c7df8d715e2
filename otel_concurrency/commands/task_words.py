"""What is said of a live task, in few words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_concurrency.console.text import duration

_LIBRARIES = re.compile(r"[/\\](site-packages|dist-packages|[Ll]ib[/\\](python3[^/]*[/\\])?asyncio)[/\\]")

if TYPE_CHECKING:
    from otel_concurrency.snapshot.live_tasks import LiveTask, Wait


def wait_words(wait: Wait | None) -> str:
    """Say what a task waits for, and for how long."""
    if wait is None:
        return ""
    words = wait.kind if not wait.has_timeout or wait.kind == "timeout" else f"{wait.kind} (timeout)"
    if wait.target_name:
        words += f" {wait.target_name}"
    if wait.for_s is None:
        return words
    return f"{words} {'' if wait.is_exact else '≥ '}{duration(wait.for_s)}"


def place_words(task: LiveTask) -> str:
    """Say where it stands in the application, if that is known; `file:line`, without folders."""
    frames = [frame for frame in task.frames if not _LIBRARIES.search(frame.file)]
    place = task.at or next(iter(frames or task.frames), None)
    if place is None:
        return ""
    return (
        f"{place.file.replace(chr(92), '/').rpartition('/')[2]}:{place.line}"
        if place.file
        else place.function
    )


def state_words(task: LiveTask) -> str:
    """Say what it does, and what is wrong with it."""
    words: list[str] = [task.state]
    if task.is_orphan:
        words.append("orphan")
    if task.cancel_requests:
        words.append("cancelling")
    return ",".join(words)
