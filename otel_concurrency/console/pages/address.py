"""Where one is in the console: a path and its query. All state that can be linked to is in there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from otel_concurrency.console.queries.scope import SECOND_NS, Scope

STICKY = ("range", "from", "to", "service", "instance", "pause")
"""What goes along from page to page."""

RANGES = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800}
DEFAULT_RANGE = "30m"
MAX_LENGTH = 8_000


@dataclass(frozen=True, slots=True)
class Address:
    """A page and its state.

    Attributes:
        path: Such as `/traces`.
        query: Pairs, in order; a name may come several times.
    """

    path: str
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read what stands behind the host; what is too long to be ours is cut."""
        parts = urlsplit(url[:MAX_LENGTH])
        return cls(parts.path or "/", tuple(parse_qsl(parts.query, max_num_fields=100)))

    def __str__(self) -> str:
        return quote(self.path, safe="/:@") + (f"?{urlencode(self.query)}" if self.query else "")

    def get(self, name: str, default: str = "") -> str:
        """Return the last value of a name."""
        return next((value for key, value in reversed(self.query) if key == name), default)

    def all(self, name: str) -> tuple[str, ...]:
        """Return all values of a name."""
        return tuple(value for key, value in self.query if key == name and value)

    def number(self, name: str, default: float = 0.0) -> float:
        """Return a value as a number that is finite and not negative; the default, where it is none."""
        try:
            value = float(self.get(name) or default)
        except ValueError:
            return default
        return value if 0 <= value < 1e18 else default

    def with_(self, **changes: str | int | float | None) -> str:
        """Return the URL of this page with other state; what is none or empty is left out."""
        changed = {key.rstrip("_"): value for key, value in changes.items()}
        kept = [(key, value) for key, value in self.query if key not in changed]
        kept += [(key, str(value)) for key, value in changed.items() if value not in (None, "")]
        return str(Address(self.path, tuple(kept)))

    def to(self, path: str, **state: str | int | float | None) -> str:
        """Return the URL of another page, with the time range and services of this one."""
        kept = [(key, value) for key, value in self.query if key in STICKY and key not in state]
        kept += [(key.rstrip("_"), str(value)) for key, value in state.items() if value not in (None, "")]
        return str(Address(path, tuple(kept)))

    @property
    def is_paused(self) -> bool:
        """Whether the page stands still."""
        return self.get("pause") == "1"

    @property
    def is_fixed(self) -> bool:
        """Whether the range is between two instants, and not up to now."""
        return bool(re.fullmatch(r"\d{1,19}", self.get("from")) and re.fullmatch(r"\d{1,19}", self.get("to")))

    def scope(self, now_ns: int) -> Scope:
        """Return what is to be looked at.

        Args:
            now_ns: The time, ns since the epoch; ranges such as `15m` end there.
        """
        if self.is_fixed:
            start, end = sorted(int(self.get(name)) for name in ("from", "to"))
            bounds = min(start, 2**63 - 2), min(max(end, start + 1), 2**63 - 1)
        else:
            length = RANGES.get(self.get("range"), RANGES[DEFAULT_RANGE]) * SECOND_NS
            bounds = now_ns - length, now_ns
        return Scope(*bounds, services=self.all("service"), instances=self.all("instance"))
