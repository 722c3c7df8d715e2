"""Items that run in programs of their own; each takes what it sees from its environment, at its start."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from looking import Item, LoopItem, Observed, Seen, observe, observe_on_loop

CHILD = [sys.executable, str(Path(__file__).with_name("looking.py"))]


def run() -> Seen:
    seen: Seen = json.loads(subprocess.run(CHILD, stdout=subprocess.PIPE, check=True).stdout)
    return seen


def check_output_of_a_shell() -> Seen:
    seen: Seen = json.loads(subprocess.check_output(" ".join(CHILD), shell=True))
    return seen


def popen() -> Seen:
    with subprocess.Popen(CHILD, stdout=subprocess.PIPE) as child:
        assert child.stdout
        seen: Seen = json.loads(child.stdout.read())
    return seen


async def create_subprocess_exec() -> Seen:
    child = await asyncio.create_subprocess_exec(*CHILD, stdout=subprocess.PIPE)
    seen: Seen = json.loads((await child.communicate())[0])
    return seen


async def create_subprocess_shell() -> Seen:
    child = await asyncio.create_subprocess_shell(" ".join(CHILD), stdout=subprocess.PIPE)
    seen: Seen = json.loads((await child.communicate())[0])
    return seen


@contextmanager
def programs() -> Iterator[dict[str, Item]]:
    yield {
        "subprocess.run": run,
        "subprocess.check_output of a shell": check_output_of_a_shell,
        "subprocess.Popen": popen,
    }


def observed() -> dict[str, Observed]:
    return observe(programs)


async def observed_on_loop() -> dict[str, Observed]:
    items: dict[str, LoopItem] = {
        "create_subprocess_exec": create_subprocess_exec,
        "create_subprocess_shell": create_subprocess_shell,
    }
    return {name: await observe_on_loop(item) for name, item in items.items()}
