"""The course of findings from window to window: seen often enough they open, away long enough they close."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from otel_concurrency.diagnosis.evidence import STEADY
from otel_concurrency.diagnosis.finding import SEVERITIES, Finding
from otel_concurrency.diagnosis.rules import in_order

CALM = 6
"""Windows in a row without it, after which a finding is closed."""

MAX_FINDINGS = 100
"""Findings followed at a time."""

Change = Literal["opened", "updated", "closed"]


class News(NamedTuple):
    """What has become of a finding.

    Attributes:
        change: `updated`: it has become worse, or it has another culprit now.
        finding: As of now; a closed one as it was last seen.
    """

    change: Change
    finding: Finding


@dataclass(slots=True)
class _Followed:
    finding: Finding
    seen: int = 1
    missed: int = 0
    is_open: bool = False


class Course:
    """Follows the findings of one process.

    Args:
        steady: Windows in a row in which a finding has to be seen before it is opened; what happened,
            rather than is so, is opened at once.
        calm: Windows in a row without it, after which it is closed.
    """

    def __init__(self, *, steady: int = STEADY, calm: int = CALM) -> None:
        self._steady = steady
        self._calm = calm
        self._followed: dict[tuple[str, str], _Followed] = {}

    @property
    def open(self) -> tuple[Finding, ...]:
        """Those that stand, the weightiest first."""
        return tuple(in_order([each.finding for each in self._followed.values() if each.is_open]))

    @property
    def recheck(self) -> tuple[Finding, ...]:
        """Those that were seen, but not often enough yet."""
        return tuple(in_order([each.finding for each in self._followed.values() if not each.is_open]))

    def go_on(self, findings: Sequence[Finding]) -> list[News]:
        """Take in what was found in the next window; returns what is new, the weightiest first."""
        news: list[News] = []
        seen = {found.key: found for found in findings}
        for key, found in seen.items():
            news += self._see(key, found)
        news += self._miss(key for key in list(self._followed) if key not in seen)
        order = {id(found): place for place, found in enumerate(in_order([each.finding for each in news]))}
        return sorted(news, key=lambda each: order[id(each.finding)])

    def close_all(self) -> list[News]:
        """It is over: nothing is followed any more."""
        news = [News("closed", each.finding) for each in self._followed.values() if each.is_open]
        self._followed.clear()
        return news

    def _see(self, key: tuple[str, str], found: Finding) -> list[News]:
        known = self._followed.get(key)
        if known is None:
            if len(self._followed) >= MAX_FINDINGS:
                return []
            known = self._followed[key] = _Followed(found)
        else:
            known.seen += 1
        known.missed = 0
        before, known.finding = known.finding, _joined(known.finding, found)
        if not known.is_open:
            if found.is_event or known.seen >= self._steady:
                known.is_open = True
                return [News("opened", known.finding)]
            return []
        return [News("updated", known.finding)] if _is_news(before, known.finding) else []

    def _miss(self, keys: Iterable[tuple[str, str]]) -> list[News]:
        news = []
        for key in keys:
            known = self._followed[key]
            known.missed += 1
            if not known.is_open:
                del self._followed[key]
            elif known.missed >= self._calm:
                del self._followed[key]
                news.append(News("closed", known.finding))
        return news


def _joined(before: Finding, now: Finding) -> Finding:
    """Return the finding as it is now, with what it had before: its beginning, its worst, its culprit."""
    traces = tuple(dict.fromkeys((*before.traces, *now.traces)))[-5:]
    return replace(
        now,
        began_unix_ns=before.began_unix_ns or now.began_unix_ns,
        severity=max(before.severity, now.severity, key=SEVERITIES.index),
        culprit=now.culprit if now.culprit.function else before.culprit,
        traces=traces,
        stacks=now.stacks or before.stacks,
    )


def _is_news(before: Finding, now: Finding) -> bool:
    return (now.severity, now.culprit.function) != (before.severity, before.culprit.function)
