from __future__ import annotations

import random

import pytest

from otel_concurrency.endpoints.request import MAX_HEAD, BadRequestError, Request, take_request


def test_a_request_is_taken_once_its_head_is_there_and_the_rest_stays() -> None:
    sent = b"GET /debug/tasks?limit=5&state=a%20b HTTP/1.1\r\nHost: x:1\r\nX-A: 1\r\nx-a:2\r\n\r\nGET /n"
    buffer = bytearray()
    taken = []
    for byte in sent:
        buffer.append(byte)
        taken.append(take_request(buffer))
    assert [each for each in taken if each is not None] == [
        Request(
            "GET",
            "/debug/tasks",
            {"limit": "5", "state": "a b"},
            {"host": "x:1", "x-a": "1, 2"},
            True,
        )
    ]
    assert buffer == b"GET /n"


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: x, Keep-Alive", True),
    ],
)
def test_who_keeps_the_connection(head: bytes, keeps: bool) -> None:
    request = take_request(bytearray(head + b"\r\n\r\n"))
    assert request is not None
    assert request.keep_alive is keeps


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense", 400),
        (b"GET /", 400),
        (b"GET / HTTP/2.0\r\nHost: a", 400),
        (b"get / HTTP/1.1\r\nHost: a", 400),
        (b"GET  / HTTP/1.1\r\nHost: a", 400),
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: a", 400),
        (b"GET /?" + b"a&" * 60 + b" HTTP/1.1\r\nHost: a", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", 413),
        (b"GET / HTTP/1.1\r\nHost: a" + b"\r\nX: y" * 101, 431),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * MAX_HEAD, 431),
    ],
)
def test_what_is_no_request_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequestError) as refused:
        take_request(bytearray(head + b"\r\n\r\n"))
    assert refused.value.status == status


def test_whatever_comes_is_taken_or_refused_or_waited_for() -> None:
    """10,000 damaged requests: nothing else is ever raised."""
    whole = b"GET /health?a=b HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
    rng = random.Random(7)
    outcomes = set()
    for _ in range(10_000):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.randrange(3)] = bytes(rng.choices(range(256), k=rng.randrange(3)))
        try:
            outcomes.add(type(take_request(damaged)))
        except BadRequestError:
            outcomes.add(BadRequestError)
    assert outcomes == {Request, type(None), BadRequestError}
