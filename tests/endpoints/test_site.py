from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from otel_concurrency.endpoints import routes
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, json_response
from otel_concurrency.endpoints.routes import Route, add_route
from otel_concurrency.endpoints.site import Site


@pytest.fixture(autouse=True)
def _routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_routes", {})

    def broken(request: Request) -> Response:
        raise KeyError("x")

    add_route(Route("/open", lambda _: json_response([1], 503), "open", is_quick=True, is_open=True))
    add_route(Route("/closed", lambda _: json_response([2]), "closed", aliases=("/shut",)))
    add_route(Route("/broken", broken, "broken"))


def ask(site: Site, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
    answer: Response | Callable[[], Response] = site.answer(
        Request(method, path, {}, {"host": "localhost:9464", **headers}, True)
    )
    response = answer if isinstance(answer, Response) else answer()
    return response.status, json.loads(response.body)


def test_a_route_answers_under_each_of_its_names() -> None:
    site = Site()
    assert ask(site, "/closed") == ask(site, "/shut") == ask(site, "/closed/") == (200, [2])
    assert ask(site, "/open", "HEAD") == (503, [1])
    assert ask(site, "/") == (200, {"/open": "open", "/closed": "closed", "/broken": "broken"})
    assert ask(site, "/else")[0] == 404
    assert ask(site, "/closed", "POST")[0] == 405
    assert ask(site, "/broken") == (500, {"error": "KeyError: 'x'"})


def test_only_the_slow_ones_go_to_another_thread() -> None:
    request = Request("GET", "/open", {}, {}, True)
    assert isinstance(Site().answer(request), Response)


def test_without_the_token_only_the_status_of_open_routes_is_told() -> None:
    site = Site("sesame", "0.0.0.0")
    for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "sesame"}):
        assert ask(site, "/open", **headers) == (503, {})
        for path in ("/", "/closed", "/else"):
            assert ask(site, path, **headers)[0] == 401
    assert ask(site, "/closed", authorization="bearer  sesame") == (200, [2])
    assert ask(site, "/closed", authorization="Bearer sesame", host="10.1.2.3:80") == (200, [2])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9464", "[::1]:9464", "127.1.2.3"])
def test_whoever_calls_us_by_a_name_of_this_machine_is_answered(host: str) -> None:
    assert ask(Site(), "/closed", host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:80", "10.0.0.1", "", "a b", "localhost:x"]
)
def test_a_name_that_leads_here_by_trickery_is_refused(host: str) -> None:
    assert ask(Site(), "/open", host=host)[0] == 421


def test_the_address_that_is_listened_on_is_a_name_of_ours() -> None:
    assert ask(Site(host="pod-1"), "/closed", host="Pod-1:80")[0] == 200
