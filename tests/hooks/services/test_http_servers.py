"""Requests of real servers are known while they are open, and no longer, however they end."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from otel_concurrency.hooks.services.http_servers import HttpServerHook, RequestLine, request_line
from otel_concurrency.probes.active_requests import ActiveRequests
from tests.conftest import LoopFactory
from tests.loops import run


class Hold:
    """What a handler does: it waits to be let go, or raises."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.go = asyncio.Event()

    async def __call__(self, number: int) -> str:
        self.begun += 1
        try:
            if number < 0:
                raise ValueError("a handler that fails")
            await self.go.wait()
            return "ok"
        finally:
            self.ended += 1


@asynccontextmanager
async def of_aiohttp(hold: Hold) -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=await hold(int(request.match_info["number"])))

    inner = web.Application()
    inner.router.add_get("/items/{number}", handle)
    app = web.Application()
    app.add_subapp("/shop", inner)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


def of_fastapi(hold: Hold) -> Any:
    inner = FastAPI()

    @inner.get("/items/{number}")
    async def handle(number: int) -> str:
        return await hold(number)

    app = FastAPI()
    app.mount("/shop", inner)
    return served(app)


def of_starlette(hold: Hold) -> Any:
    async def handle(request: Any) -> PlainTextResponse:
        return PlainTextResponse(await hold(int(request.path_params["number"])))

    inner = Starlette(routes=[Route("/items/{number}", handle)])
    return served(Starlette(routes=[Mount("/shop", inner)]))


SERVERS = {"aiohttp": of_aiohttp, "fastapi": of_fastapi, "starlette": of_starlette}


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Callable[[Hold], Any]:
    return SERVERS[request.param]


@pytest.fixture
def requests() -> Iterator[ActiveRequests]:
    before = vars(web.Application)["_handle"], vars(Starlette)["__call__"]
    requests = ActiveRequests()
    hook = HttpServerHook(requests)
    hook.install()
    hook.install()
    yield requests
    hook.remove()
    assert (vars(web.Application)["_handle"], vars(Starlette)["__call__"]) == before


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(inspect.getsource(condition))


async def ask(port: int, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /shop/items/{number} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    return reader, writer


def test_a_request_is_known_from_its_begin_to_its_end(
    requests: ActiveRequests, serve: Callable[[Hold], Any], lazy_loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        hold = Hold()
        async with serve(hold) as port:
            assert requests.read() == []
            open_ones = [await ask(port, number) for number in range(3)]
            await until(lambda: hold.begun == 3)
            assert len(requests.read()) == 3
            (line,) = {request_line(each.request) for each in requests.read()}
            assert line[:2] == ("GET", "http")
            tasks = {each.task and each.task() for each in requests.read()}
            assert len(tasks & asyncio.all_tasks()) == 3
            hold.go.set()
            for reader, writer in open_ones:
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.close()
            await until(lambda: requests.read() == [])

    run(lazy_loop_factory, main())


def test_those_that_fail_are_over(
    requests: ActiveRequests, serve: Callable[[Hold], Any], lazy_loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        hold = Hold()
        async with serve(hold) as port:
            reader, writer = await ask(port, -1)
            assert (await reader.read()).startswith(b"HTTP/1.1 500")
            writer.close()
            assert requests.read() == []

    run(lazy_loop_factory, main())


def test_it_does_not_grow_when_clients_go_away(
    requests: ActiveRequests, serve: Callable[[Hold], Any], lazy_loop_factory: LoopFactory
) -> None:
    """aiohttp cancels the handler; an ASGI application goes on, unless it listens, and then it is over."""

    async def main() -> None:
        hold = Hold()
        async with serve(hold) as port:
            for number in range(20):
                _, writer = await ask(port, number)
                await until(lambda number=number: hold.begun == number + 1)  # type: ignore[misc]
                writer.transport.abort()
            is_cancelled = serve is of_aiohttp
            if is_cancelled:
                await until(lambda: hold.ended == 20)
            else:
                assert len(requests.read()) == 20
                hold.go.set()
            await until(lambda: requests.read() == [])
            assert hold.ended == 20

    run(lazy_loop_factory, main())


def test_a_cancelled_call_is_over(requests: ActiveRequests, lazy_loop_factory: LoopFactory) -> None:
    """As servers do it that cancel what they have called, and as it goes when a loop is left."""

    async def main() -> None:
        hold = Hold()

        async def handle(request: Any) -> PlainTextResponse:
            return PlainTextResponse(await hold(1))

        app = Starlette(routes=[Route("/{number}", handle)])
        scope = {"type": "http", "method": "POST", "scheme": "https", "path": "/1", "headers": []}
        scope |= {"query_string": b"", "root_path": ""}
        route = Route("/{number}", handle, methods=["POST"])
        app.router.routes.append(route)

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            pass

        task = asyncio.ensure_future(app(scope, receive, send))
        await until(lambda: hold.begun == 1)
        (opened,) = requests.read()
        assert request_line(opened.request)[:2] == ("POST", "https")
        del opened
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert requests.read() == []

    run(lazy_loop_factory, main())


def test_the_route_where_it_is_known(requests: ActiveRequests, lazy_loop_factory: LoopFactory) -> None:
    async def main() -> list[RequestLine]:
        lines = []
        for serve in (of_aiohttp, of_fastapi):
            hold = Hold()
            async with serve(hold) as port:
                reader, writer = await ask(port, 5)
                await until(lambda hold=hold: hold.begun == 1)  # type: ignore[misc]
                lines += [request_line(each.request) for each in requests.read()]
                hold.go.set()
                await reader.read()
                writer.close()
        return lines

    assert run(lazy_loop_factory, main()) == [
        RequestLine("GET", "http", "/shop/items/{number}"),
        RequestLine("GET", "http", "/items/{number}"),
    ]


def test_removed_it_knows_nothing(serve: Callable[[Hold], Any], lazy_loop_factory: LoopFactory) -> None:
    requests = ActiveRequests()
    hook = HttpServerHook(requests)
    hook.install()
    held = vars(web.Application)["_handle"], vars(Starlette)["__call__"]
    hook.remove()
    assert vars(web.Application)["_handle"] not in held
    assert inspect.iscoroutinefunction(held[1])  # uvicorn asks

    async def main() -> None:
        hold = Hold()
        async with serve(hold) as port:
            reader, writer = await ask(port, 1)
            await until(lambda: hold.begun == 1)
            assert requests.read() == []
            hold.go.set()
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

    run(lazy_loop_factory, main())


LATE = """
import sys
from otel_concurrency.hooks.services.http_servers import HttpServerHook
from otel_concurrency.probes.active_requests import ActiveRequests
hook = HttpServerHook(ActiveRequests())
hook.install()
print([name for name in sys.modules if name.partition(".")[0] in ("aiohttp", "starlette")])
import aiohttp.web, starlette.applications
print(hook)
"""


def test_neither_is_imported_for_our_sake() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "[]",
        "<HttpServerHook [<Patch Application._handle [installed]>, <Patch Starlette.__call__ [installed]>]>",
    ]
