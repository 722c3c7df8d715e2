"""What a page is made of, before anybody draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from otel_concurrency.console.live import Live, live_programs
from otel_concurrency.console.pages.address import Address
from otel_concurrency.console.pages.markup import Markup
from otel_concurrency.console.queries.scope import Reader, Scope


@dataclass(frozen=True, slots=True)
class Html:
    """Markup.

    Attributes:
        content: It.
        width: How many of the page's twelve columns it takes.
    """

    content: Markup
    width: int = 12


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of ECharts.

    Attributes:
        title: What it shows.
        options: What ECharts is told; a data item's `href` is where a click on it leads.
        width: How many of the page's twelve columns it takes.
        height: In pixels.
        note: A sentence below the title.
    """

    title: str
    options: dict[str, Any]
    width: int = 6
    height: int = 220
    note: str = ""


Block: TypeAlias = "Html | Chart"


@dataclass(frozen=True, slots=True)
class Links:
    """Where the same trace can be seen elsewhere.

    Attributes:
        jaeger: Base URL of a Jaeger; empty without one.
        grafana: URL of a trace in Grafana, with `{trace_id}` where the id belongs; empty without one.
    """

    jaeger: str = ""
    grafana: str = ""

    def of_trace(self, trace_id: str) -> list[tuple[str, str]]:
        """Return names and URLs for a trace."""
        found = []
        if self.jaeger:
            found.append(("Jaeger", f"{self.jaeger.rstrip('/')}/trace/{trace_id}"))
        if self.grafana:
            found.append(("Grafana", self.grafana.replace("{trace_id}", trace_id)))
        return [(name, url) for name, url in found if url.startswith(("http://", "https://"))]


@dataclass(frozen=True, slots=True)
class Request:
    """What a page is asked for.

    Attributes:
        reader: The store.
        address: The page's state.
        scope: What to look at.
        links: Where else traces can be seen.
        endpoint: Where telemetry is sent to, for advice; empty if nothing receives here.
        live: Asks programs what they do now.
    """

    reader: Reader
    address: Address
    scope: Scope
    links: Links = field(default_factory=Links)
    endpoint: str = ""
    live: Callable[[Scope], list[Live]] = live_programs

    @property
    def get(self) -> Callable[..., str]:
        """Return the address's `get`, which pages ask most."""
        return self.address.get


Page: TypeAlias = "Callable[[Request], list[Block]]"
