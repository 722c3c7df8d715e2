"""Who may ask what: the way from a request to the route that answers it."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
from collections.abc import Callable

from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, json_response, refusal
from otel_concurrency.endpoints.routes import Route, find_route, known_routes

_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")

_logger = logging.getLogger(__name__)


class Site:
    """Answers requests.

    A server that only this machine reaches asks for no token, but a page in somebody's browser could ask it,
    too, under a name that leads here ("DNS rebinding"): such names are refused. Whoever has to know a token
    cannot be misled in this way.

    Args:
        token: What callers have to know; empty: nothing.
        host: The address that is listened on.
    """

    def __init__(self, token: str = "", host: str = "127.0.0.1") -> None:
        self._token = token.encode()
        self._host = host

    def answer(self, request: Request) -> Response | Callable[[], Response]:
        """Answer, or return what does so on another thread."""
        if not self._is_for_us(request):
            return refusal(421, "this name does not lead here: use localhost or 127.0.0.1")
        route = find_route(request.path) if request.path != "/" else None
        is_known = self._is_known(request)
        if not is_known and (route is None or not route.is_open):
            return refusal(401, "a token is needed", {"WWW-Authenticate": "Bearer"})
        if request.method not in ("GET", "HEAD"):
            return refusal(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
        if request.path == "/":
            return index()
        if route is None:
            return refusal(404, f"no such route; / lists them: {request.path[:100]}")
        if route.is_quick:
            return _answer(route, request, is_known)
        return lambda: _answer(route, request, is_known)

    def _is_known(self, request: Request) -> bool:
        if not self._token:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)

    def _is_for_us(self, request: Request) -> bool:
        host = request.headers.get("host")
        if host is None:
            return True  # HTTP/1.0, which no browser speaks
        matched = _HOST.fullmatch(host)
        if matched is None:
            return False
        name = matched[1].strip("[]").lower()
        return bool(self._token) or name == self._host.lower() or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def index() -> Response:
    """List the routes."""
    return json_response({route.path: route.meaning for route in known_routes()})


def _answer(route: Route, request: Request, is_known: bool) -> Response:
    try:
        response = route.answer(request)
    except Exception as error:
        _logger.debug("%s failed", route.path, exc_info=True)
        response = refusal(500, f"{type(error).__name__}: {error}"[:500])
    return response if is_known else json_response({}, response.status)
