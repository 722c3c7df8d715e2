from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_concurrency.endpoints import connection as connection_module
from otel_concurrency.endpoints import ports
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response
from otel_concurrency.endpoints.server import MAX_CONNECTIONS, MAX_WORKERS, Server
from tests.endpoints.conftest import Answering, dial, exchange, get, read_all, serving


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_an_answer_is_whole_http(echo: int) -> None:
    assert exchange(echo, get("/a%20b")) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n"
        b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n/a b"
    )


def test_a_head_request_gets_the_head_alone(echo: int) -> None:
    answer = exchange(echo, get("/abc").replace(b"GET", b"HEAD"))
    assert b"Content-Length: 4\r\n" in answer
    assert body(answer) == b""


def test_requests_in_a_row_are_answered_in_order_also_those_that_take_a_thread() -> None:
    def answer(request: Request) -> object:
        response = Response(request.path.encode() + b"\n")
        return (lambda: response) if request.path.startswith("/slow") else response

    paths = [f"/{'slow' if n % 3 else 'quick'}{n}" for n in range(100)]
    sent = b"".join(get(path, close=False) for path in paths[:-1]) + get(paths[-1])
    with serving(answer) as port:
        answered = exchange(port, sent)
    assert [line for line in answered.decode().splitlines() if line in paths] == paths


def test_whoever_sends_many_requests_at_once_keeps_nobody_waiting() -> None:
    """While a thousand of one client are answered, another one gets its turn."""
    answered = []

    def answer(request: Request) -> Response:
        answered.append(request.path)
        return Response(b"x")

    def both(request: Request) -> Response:
        if request.path == "/first":  # only now is everything on its way
            with dial(port[0]) as other:
                other.sendall(get("/other"))
            time.sleep(0.05)
        return answer(request)

    port: list[int] = []
    with serving(both) as where, dial(where) as greedy:
        port.append(where)
        greedy.sendall(get("/first", close=False) + get("/n", close=False) * 999 + get("/last"))
        assert read_all(greedy).count(b"HTTP/1.1 200 OK") == 1001
    assert 0 < answered.index("/other") < 200


def test_a_connection_serves_one_request_after_the_other(echo: int) -> None:
    with dial(echo) as client:
        for number in range(20):
            client.sendall(get(f"/{number:02}", close=False))
            answer = b""
            while not answer.endswith(f"/{number:02}".encode()):
                answer += client.recv(4096)
        client.sendall(get("/end"))
        assert body(read_all(client)) == b"/end"


def test_a_large_answer_arrives_whole_at_a_client_that_takes_its_time() -> None:
    large = random.Random(1).randbytes(3_000_000)
    with serving(lambda request: Response(large)) as port, dial(port) as client:
        client.sendall(get("/"))
        received = bytearray()
        while part := client.recv(16_384):
            received += part
        assert body(bytes(received)) == large


def test_slow_clients_keep_nobody_waiting(echo: int) -> None:
    """200 clients that never finish their requests, and as many that never read."""
    slow = [dial(echo) for _ in range(200)]
    try:
        for client in slow:
            client.sendall(b"GET /slow HTT")
        for number in range(50):
            assert body(exchange(echo, get(f"/{number}"))) == b"/%d" % number
    finally:
        for client in slow:
            client.close()


def test_whoever_was_silent_longest_makes_room(echo: int) -> None:
    first = dial(echo)
    others = []
    try:
        first.sendall(b"GET")
        assert body(exchange(echo, get("/x"))) == b"/x"
        for _ in range(MAX_CONNECTIONS + 10):
            others.append(dial(echo))
            others[-1].sendall(b"G")
        assert body(exchange(echo, get("/y"))) == b"/y"
        assert read_all(first) == b""
    finally:
        for client in (first, *others):
            client.close()


def test_a_head_that_does_not_come_is_given_up(echo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN_S", 0.05)
    assert exchange(echo, b"GET / HTTP/1.1\r\nHost:").startswith(b"HTTP/1.1 408 ")
    assert exchange(echo, b"") == b""


def test_a_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "WRITE_WITHIN_S", 0.05)
    with serving(lambda request: Response(bytes(30_000_000))) as port, dial(port) as client:
        client.sendall(get("/"))
        assert client.recv(1)
        deadline = time.monotonic() + 30
        received = 1
        while time.monotonic() < deadline:
            time.sleep(0.2)  # longer than it waits
            part = client.recv(1 << 20)
            received += len(part)
            if not part:
                break
        assert received < 30_000_000


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\xfc",
        b"A" * 200_000,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 30_000,
    ],
    ids=["TLS", "no end", "huge head"],
)
def test_what_is_no_request_gets_an_answer_and_the_next_one_too(echo: int, sent: bytes) -> None:
    answer = exchange(echo, sent + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert body(exchange(echo, get("/well"))) == b"/well"


def test_many_malformed_requests_harm_nobody(echo: int) -> None:
    """10,000, over connections that come and go in the middle of them."""
    rng = random.Random(3)
    whole = get("/x", close=False)

    def attack(number: int) -> None:
        with dial(echo) as client:
            try:
                for _ in range(20):
                    damaged = bytearray(whole)
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                    client.sendall(damaged)
            except OSError:
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attack, range(500)))
    assert body(exchange(echo, get("/well"))) == b"/well"


def test_slow_answers_come_a_few_at_a_time_and_quick_ones_meanwhile() -> None:
    gate = threading.Event()
    running: list[int] = []

    def slow() -> Response:
        running.append(1)
        gate.wait(30)
        return Response(b"slow")

    with serving(lambda request: slow if request.path == "/slow" else Response(b"quick")) as port:
        clients = [dial(port) for _ in range(MAX_WORKERS + 5)]
        for client in clients:
            client.sendall(get("/slow"))
        assert body(exchange(port, get("/quick"))) == b"quick"
        assert len(running) <= MAX_WORKERS
        gate.set()
        assert [body(read_all(client)) for client in clients] == [b"slow"] * len(clients)
        for client in clients:
            client.close()
    assert len(running) == MAX_WORKERS + 5


def test_an_answer_that_raises_is_an_error_of_ours() -> None:
    def broken() -> Response:
        raise LookupError("nothing there")

    with serving(lambda request: broken) as port:
        answer = exchange(port, get("/"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert body(answer) == b'{"error": "LookupError: nothing there"}\n'


def test_a_paused_server_goes_on_where_it_was() -> None:
    listener = ports.listen("127.0.0.1", 0)
    server = Server(listener, Answering(lambda request: Response(request.path.encode())))
    port = listener.getsockname()[1]
    server.start()
    with dial(port) as early, dial(port) as late:
        early.sendall(b"GET /early HTTP/1.1\r\n")
        server.pause(30)
        assert repr(server).startswith("<Server [stopped")
        early.sendall(b"Host: a\r\nConnection: close\r\n\r\n")
        late.sendall(get("/late"))
        server.start()
        assert body(read_all(early)) == b"/early"
        assert body(read_all(late)) == b"/late"
    server.stop(30)
    with pytest.raises(ConnectionRefusedError):
        dial(port)


def test_a_port_that_is_taken_leaves_the_next_one() -> None:
    with ports.listen("127.0.0.1", 0) as first:
        taken = first.getsockname()[1]
        with ports.listen("127.0.0.1", taken) as second:
            assert taken < second.getsockname()[1] <= taken + ports.NEIGHBOURS
            assert ports.url_of(second) == f"http://127.0.0.1:{second.getsockname()[1]}"
