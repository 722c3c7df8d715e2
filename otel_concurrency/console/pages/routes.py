"""Which page stands at which path."""

from __future__ import annotations

from dataclasses import dataclass

from otel_concurrency.console.pages.blocks import Block, Html, Page, Request
from otel_concurrency.console.pages.findings import findings_page
from otel_concurrency.console.pages.graph import graph_page
from otel_concurrency.console.pages.logs import logs_page
from otel_concurrency.console.pages.markup import empty, link
from otel_concurrency.console.pages.metrics import metrics_page
from otel_concurrency.console.pages.overview import overview
from otel_concurrency.console.pages.resources import resources_page
from otel_concurrency.console.pages.tasks import tasks_page
from otel_concurrency.console.pages.threads import threads_page
from otel_concurrency.console.pages.timeline import timeline_page
from otel_concurrency.console.pages.trace import trace_page
from otel_concurrency.console.pages.traces import traces_page


@dataclass(frozen=True, slots=True)
class Route:
    """A page in the menu.

    Attributes:
        path: Where it is.
        title: What it is called.
        key: The key after `g` that leads there.
        page: Makes it.
        is_live: Whether it changes though nothing is received: programs are asked.
    """

    path: str
    title: str
    key: str
    page: Page
    is_live: bool = False


ROUTES = (
    Route("/", "Overview", "o", overview),
    Route("/findings", "Findings", "f", findings_page),
    Route("/traces", "Traces", "t", traces_page),
    Route("/timeline", "Timeline", "i", timeline_page),
    Route("/tasks", "Tasks", "k", tasks_page),
    Route("/resources", "Resources", "r", resources_page),
    Route("/graph", "Await graph", "a", graph_page, is_live=True),
    Route("/threads", "Threads", "h", threads_page, is_live=True),
    Route("/logs", "Logs", "l", logs_page),
    Route("/metrics", "Metrics", "m", metrics_page),
)
TRACE = "/trace/"


def page_at(path: str) -> Page:
    """Return the page of a path; one that says so, where there is none."""
    if path.startswith(TRACE):
        return trace_page
    return next((route.page for route in ROUTES if route.path == path), _no_page)


def is_live(path: str) -> bool:
    """Tell whether the page of a path changes though nothing is received."""
    return any(route.is_live for route in ROUTES if route.path == path)


def title_at(path: str) -> str:
    """Return what the page of a path is called."""
    if path.startswith(TRACE):
        return f"Trace {path[len(TRACE) :][:8]}"
    return next((route.title for route in ROUTES if route.path == path), "No such page")


def _no_page(request: Request) -> list[Block]:
    return [Html(empty("There is no such page", link(request.address.to("/"), "The overview"), "."))]
