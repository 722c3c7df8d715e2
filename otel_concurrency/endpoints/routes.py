"""What can be asked for: every path, once. Others add theirs with `add_route`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response

Handler = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class Route:
    """One path.

    Attributes:
        path: What is asked for.
        answer: Answers; what it raises becomes status 500.
        meaning: What it tells, in a sentence.
        is_quick: Whether it answers within a millisecond or so: it does so on the thread that serves all
            connections. Any other gets a thread of its own.
        is_open: Whether it answers those who do not know the token, too: with its status, and nothing else.
        aliases: Other paths for the same.
    """

    path: str
    answer: Handler
    meaning: str
    is_quick: bool = False
    is_open: bool = False
    aliases: tuple[str, ...] = ()


_routes: dict[str, Route] = {}


def add_route(route: Route) -> None:
    """Answer this path from now on; one that is known already gets a new answer."""
    for path in (route.path, *route.aliases):
        _routes[path] = route


def find_route(path: str) -> Route | None:
    """Return what answers a path; one slash at its end does not matter."""
    return _routes.get(path) or _routes.get(path.removesuffix("/"))


def known_routes() -> Iterator[Route]:
    """Yield each route once, in the order they came."""
    yield from dict.fromkeys(_routes.values())
