"""What an examination comes to: sections of checks, JSON both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "info", "warn", "fail"]
STATUSES: tuple[Status, ...] = ("ok", "info", "warn", "fail")
"""From the best to the worst."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        text: How it is, and why.
        status: `ok`; `info`: worth knowing; `warn`: probably not what is wanted; `fail`: broken.
    """

    name: str
    text: str
    status: Status = "ok"


@dataclass(frozen=True, slots=True)
class Section:
    """Checks of one kind."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    sections: tuple[Section, ...]

    @property
    def status(self) -> Status:
        """The worst of all."""
        worst: Status = "ok"
        for section in self.sections:
            for check in section.checks:
                if STATUSES.index(check.status) > STATUSES.index(worst):
                    worst = check.status
        return worst

    def to_data(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {
            "status": self.status,
            "sections": [
                {
                    "title": section.title,
                    "checks": [
                        {"name": check.name, "status": check.status, "text": check.text}
                        for check in section.checks
                    ],
                }
                for section in self.sections
            ],
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Report:
        """Return what `to_data` was called on."""
        return cls(
            tuple(
                Section(section["title"], tuple(Check(**check) for check in section["checks"]))
                for section in data["sections"]
            )
        )
