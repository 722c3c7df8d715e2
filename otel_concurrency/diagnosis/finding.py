"""What a rule has found: a verdict that can be checked, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from otel_concurrency.diagnosis import records

Severity = Literal["info", "warn", "crit"]
SEVERITIES: tuple[Severity, ...] = ("info", "warn", "crit")

IO_WAIT, GIL, CONTENTION, GRANULARITY = "io_wait", "gil", "contention", "granularity"
CLASSES = {
    IO_WAIT: "I/O wait",
    GIL: "GIL",
    CONTENTION: "shared-resource contention",
    GRANULARITY: "task granularity",
}
"""The four classes of bottlenecks, and how a person calls them; what is of none of them has none."""

EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One number that speaks for the finding.

    Attributes:
        name: What it is, in words.
        value: As measured.
        unit: UCUM: `s`, `1`, `{task}`.
        threshold: From where on it counts; None: it is told, and not judged.
    """

    name: str
    value: float
    unit: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class StackCount:
    """A stack that was seen more than once.

    Attributes:
        frames: The innermost first, `module.qualname (file:line)`.
        count: In how many looks.
    """

    frames: tuple[str, ...]
    count: int = 1


@dataclass(frozen=True, slots=True)
class Culprit:
    """Who did it, as far as that is known; what is not is empty.

    Attributes:
        function: `module.qualname`.
        call: What it was calling.
        file: Where in the application.
        line: The same.
        thread: Name of a thread.
        task: Name of a task.
        resource: A pool, a lock, an executor, by its name.
    """

    function: str = ""
    call: str = ""
    file: str = ""
    line: int = 0
    thread: str = ""
    task: str = ""
    resource: str = ""

    def __str__(self) -> str:
        """Say it in a few words."""
        who = self.function or self.resource or (f"thread {self.thread}" if self.thread else "") or self.task
        return f"{who} in {self.call}" if who and self.call else who or "nobody was seen"


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict about one thing, as of one window.

    Attributes:
        rule: `cpu_starvation` and so on; see `rules.RULES`.
        subject: What it is about: `loop 0`, `process`, a pool's name.
        severity: `info`, `warn` or `crit`; what hurt nobody is never `crit` where the rule asks that.
        sentence: The finding, for a person.
        bottleneck: One of `CLASSES`, or empty.
        evidence: The numbers, those that are judged first.
        culprit: Who did it.
        stacks: At most three, those that were seen most often first.
        traces: Ids of traces that were affected, hexadecimal.
        advice: The next step.
        suppressed: Rules that this one explains away.
        confidence: `exact`, or `sampled n=…`.
        is_event: Whether it happened, rather than being so: then nobody waits for it to be so again.
        began_unix_ns: When the window began in which it was first seen.
        seen_unix_ns: When the window ended in which it was last seen.
    """

    rule: str
    subject: str
    severity: Severity
    sentence: str
    bottleneck: str = ""
    evidence: tuple[Evidence, ...] = ()
    culprit: Culprit = field(default_factory=Culprit)
    stacks: tuple[StackCount, ...] = ()
    traces: tuple[str, ...] = ()
    advice: str = ""
    suppressed: tuple[str, ...] = ()
    confidence: str = EXACT
    is_event: bool = False
    began_unix_ns: int = 0
    seen_unix_ns: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Findings with the same one are the same finding, seen again."""
        return self.rule, self.subject

    def with_(self, **changes: Any) -> Finding:
        """Return it changed."""
        return replace(self, **changes)

    def to_data(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return records.to_data(self)

    def to_json(self) -> str:
        """Return one line of JSON."""
        return records.to_json(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Finding:
        """Return what `to_data` was called on."""
        return records.from_data(cls, data)

    @classmethod
    def from_json(cls, text: str) -> Finding:
        """Return what `to_json` was called on."""
        return records.from_json(cls, text)


def sampled(count: int) -> str:
    """Return the confidence of what so many looks say."""
    return f"sampled n={count}"
