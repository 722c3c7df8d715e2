"""The commands that look at a program: what they ask, what they print, how they end."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from pathlib import Path

import pytest

from otel_concurrency.cli import main
from otel_concurrency.commands.task_words import place_words
from otel_concurrency.endpoints.directory import Directory, own_entry
from otel_concurrency.snapshot.live_tasks import FramePlace
from tests.commands.answering import CIRCLE, FETCH, HEALTHY, answering, answers

Captured = pytest.CaptureFixture[str]


FIRST = "Task-1 shop.check_out waiting 12.5 s 250 ms 1,234 lock (timeout) shop:12 ≥ 3.00 s"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else's programs are found here; and lines are long enough."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("OTEL_PYTHON_CONCURRENCY_HTTP_TOKEN", raising=False)


def test_ps_lists_tasks(capsys: Captured) -> None:
    with answering(answers()) as (url, asked):
        assert main(["ps", url, "--state", "waiting", "--coroutine", "shop.*", "--limit", "7"]) == 0
    assert asked == [("/debug/tasks", {"limit": "7", "state": "waiting", "group": "shop.*"})]
    out = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.out.splitlines()]
    assert lines == [
        "task coroutine state age busy steps waits for at trace",
        f"{FIRST} shop.py:31 4bf92f35",
        "refill [31m shop.refill waiting,orphan 1.00 s - - gather",
        "Task-3 shop.fetch running - - - shop.py:7",
    ]
    assert out.err == "3 of 3 tasks; 3 told\n"


def test_ps_groups_by_coroutine(capsys: Captured) -> None:
    with answering(answers()) as (url, _):
        assert main(["ps", url, "--group"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "coroutine tasks states wait for",
        "shop.check_out 1 waiting 1 lock 1",
        "shop.fetch 2 running 1, waiting 1",
    ]


def test_tree_draws_who_waits_for_whom(capsys: Captured) -> None:
    with answering(answers()) as (url, _):
        assert main(["tree", url]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Task-1  shop.check_out  lock (timeout) shop:12 ≥ 3.00 s  shop.py:31",
        "└─ refill [31m  shop.refill  gather  nobody can wake it",
        "   └─ Task-3  shop.fetch  running  shop.py:7",
    ]


def test_tree_tells_of_deadlocks_and_ends_in_1(capsys: Captured) -> None:
    with answering(answers(CIRCLE)) as (url, _):
        assert main(["tree", url]) == 1
        assert main(["tree", url, "--json"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "deadlock: Task-1 (shop.check_out) waits for shop:12, held by "
        "refill (shop.refill) waits for shop:13, held by Task-1"
    )
    assert [line.strip().split()[-1] for line in lines[1:4]] == ["shop.py:31", "it", "…"]
    assert json.loads(lines[4])["orphans"] == [2]


def test_diagnose_says_what_is_wrong(capsys: Captured) -> None:
    with answering(answers()) as (url, _):
        assert main(["diagnose", url]) == 0
        told = capsys.readouterr().out.splitlines()
        assert main(["diagnose", url, "--fail-on", "crit"]) == 1
    assert told == [
        "CRIT loop_blocked_io, loop 0 [I/O wait]",
        "    loop 0 was blocked for 74 % of the time",
        "    culprit: shop.check_out in time.sleep (shop.py:12)",
        "    blocked share: 0.74 (threshold 0.1)",
        "    longest: 0.31 s (threshold 0.25)",
        "    seen 7 times: time.sleep < shop.check_out (shop.py:12)",
        "    traces: 4bf92f3577b34da6a3ce929d0e0e4736",
        "    → use asyncio.sleep",
    ]


def test_diagnose_of_the_healthy(capsys: Captured) -> None:
    with answering(answers(found=HEALTHY)) as (url, _):
        assert main(["diagnose", url, "--fail-on", "info"]) == 0
    assert capsys.readouterr().out == "Nothing stands out, after 3 windows of 10 s.\n"


def test_top_shows_all_there_is_once_where_there_is_no_terminal(capsys: Captured) -> None:
    with answering(answers()) as (url, asked):
        assert main(["top", url]) == 0
    assert [path for path, _ in asked] == ["/debug/snapshot", "/debug/diagnose"]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        url,
        "CRIT loop 0 was blocked for 74 % of the time",
        "3 tasks: 2 waiting, 1 running",
        "waiting for: lock 1, gather 1",
        "",
        "coroutine tasks states wait for",
        "shop.check_out 1 waiting 1 lock 1",
        "shop.fetch 2 running 1, waiting 1",
        "",
        "loop type tasks held for by",
        "0 uvloop 3 500 ms shop.fetch",
        "",
        "pool kind used idle limit pending",
        "orders db 5 0 5 3",
        "",
        "executor kind active idle limit queued",
        "asyncio thread 1 2 8 0",
        "",
        "thread state waits for cpu at",
        "MainThread running 1.50 s shop.fetch",
    ]


@pytest.mark.parametrize("command", ["ps", "tree", "diagnose", "top"])
def test_json_is_what_the_program_said(command: str, capsys: Captured) -> None:
    content = json.loads(json.dumps(answers()))
    with answering(content) as (url, asked):
        assert main([command, url, "--json", *(["--once"] if command == "top" else [])]) == 0
    told = json.loads(capsys.readouterr().out)
    said = {"snapshot": content["/debug/snapshot"], "diagnosis": content["/debug/diagnose"]}
    assert told == (said if command == "top" else content[asked[0][0]])


COMMANDS = ["ps", "tree", "top", "diagnose"]


@pytest.mark.parametrize("command", COMMANDS)
def test_who_cannot_be_asked_is_told_how_to_be(command: str, capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert main([command, f":{port}"]) == 1
    assert capsys.readouterr().err.startswith(f"http://127.0.0.1:{port} does not answer: ")
    assert main([command, "99999999"]) == 1
    assert "was started without OTEL_PYTHON_CONCURRENCY_HTTP_PORT" in capsys.readouterr().err
    assert main([command]) == 2
    assert capsys.readouterr().err == (
        "no program of yours can be asked: start it with OTEL_PYTHON_CONCURRENCY_HTTP_PORT=0 (any free port) "
        "in its environment\n"
    )


def test_the_only_program_need_not_be_named(capsys: Captured) -> None:
    with answering(answers(found=HEALTHY)) as (url, _):
        Directory().announce(own_entry(url, service="shop"))
        assert main(["diagnose"]) == 0
        assert main(["diagnose", str(os.getpid())]) == 0
    assert capsys.readouterr().out.count("Nothing stands out") == 2


def test_an_answer_without_the_route_is_told(capsys: Captured) -> None:
    with answering({}) as (url, _):
        assert main(["ps", url]) == 1
    assert capsys.readouterr().err == f"{url}/debug/tasks: no such path\n"


@pytest.mark.parametrize(
    ("frames", "at", "told"),
    [
        ((), None, ""),
        (("/usr/lib/python3.13/asyncio/locks.py", "/app/shop.py"), None, "shop.py:7"),
        (("C:\\Python\\Lib\\asyncio\\locks.py", "C:\\app\\shop.py"), None, "shop.py:7"),
        (("/v/lib/python3.13/site-packages/httpx/client.py",), None, "client.py:7"),
        (("/usr/lib/python3.13/asyncio/locks.py",), "/app/orders.py", "orders.py:7"),
    ],
)
def test_the_place_is_the_application_s_where_that_is_known(
    frames: tuple[str, ...], at: str | None, told: str
) -> None:
    task = dataclasses.replace(
        FETCH,
        frames=tuple(FramePlace("f", file, 7) for file in frames),
        at=None if at is None else FramePlace("f", at, 7),
    )
    assert place_words(task) == told
