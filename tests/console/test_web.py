"""The server of the pages: who is let in, and what it says of itself."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from otel_concurrency.console import Store
from otel_concurrency.console.settings import ConsoleSettings
from otel_concurrency.console.web import Guard, web_server

HERE = ConsoleSettings(host="127.0.0.1", port=4319)
ELSEWHERE = ConsoleSettings(host="0.0.0.0", port=4319, token="secret")


async def let_in(settings: ConsoleSettings, kind: str = "http", query: str = "", **headers: str) -> object:
    """Ask a guard for `/`; return `in`, or what it answered."""
    answers: list[dict[str, object]] = []

    async def inside(scope: object, receive: object, send: object) -> None:
        answers.append({"status": "in"})

    async def send(message: dict[str, object]) -> None:
        answers.append(message)

    scope = {
        "type": kind,
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await Guard(inside, settings)(scope, None, send)
    return answers[0].get("status") or answers[0]["type"]


def asked(settings: ConsoleSettings, kind: str = "http", query: str = "", **headers: str) -> object:
    import asyncio

    return asyncio.run(let_in(settings, kind, query, **headers))


@pytest.mark.parametrize("host", ["127.0.0.1:4319", "localhost:4319", "[::1]:4319", "localhost", "LOCALHOST"])
def test_on_loopback_names_of_this_machine_are_let_in(host: str) -> None:
    assert asked(HERE, host=host) == "in"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "evil.example:4319"])
def test_a_name_that_was_pointed_at_loopback_is_not(host: str) -> None:
    assert asked(HERE, host=host) == 403


@pytest.mark.parametrize(
    ("kind", "origin", "answer"),
    [
        ("http", "http://localhost:4319", "in"),
        ("http", "http://evil.example", 403),
        ("http", "null", 403),
        ("websocket", "http://localhost:4319", "in"),
        ("websocket", "http://evil.example", "websocket.close"),
        ("websocket", "http://localhost:8000", "websocket.close"),
    ],
)
def test_a_page_of_another_origin_gets_nothing(kind: str, origin: str, answer: object) -> None:
    assert asked(HERE, kind, host="localhost:4319", origin=origin) == answer


@pytest.mark.parametrize(
    ("query", "headers", "answer"),
    [
        ("", {}, 401),
        ("token=wrong", {}, 401),
        ("token=secret", {}, 303),
        ("", {"cookie": "otel_concurrency_token_4319=secret"}, "in"),
        ("", {"cookie": "otel_concurrency_token_4319=wrong"}, 401),
        ("", {"authorization": "Bearer secret"}, "in"),
        ("", {"authorization": "Bearer \u00e9"}, 401),
    ],
)
def test_beyond_loopback_the_token_is_asked_for(query: str, headers: dict[str, str], answer: object) -> None:
    assert asked(ELSEWHERE, query=query, host="10.0.0.1:4319", **headers) == answer


def test_a_websocket_needs_the_token_too() -> None:
    assert asked(ELSEWHERE, "websocket", host="10.0.0.1:4319") == "websocket.close"


@pytest.fixture
def port(store: Store) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = web_server(store, replace(HERE, port=port, http_endpoint="http://127.0.0.1:1"), listener)
    server.start()
    yield port
    server.stop()


def test_it_says_how_it_is(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/console/state")
    response = connection.getresponse()
    assert response.status == 200
    assert b'"otlp_http":"http://127.0.0.1:1"' in response.read()
    connection.close()
