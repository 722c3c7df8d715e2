"""Items that run in processes of multiprocessing, by start method."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from looking import Item, Observed, Seen, look, observe
from thread_cells import LONG_S, PLACES, items_of_pool


def look_and_tell(pipe: Any) -> None:
    pipe.send(look())


class RunsItself:
    """Has a `run` of its own; mixed with the process class of each context below."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.pipe = pipe

    def run(self) -> None:
        look_and_tell(self.pipe)


class ForkProcess(RunsItself, multiprocessing.get_context("fork").Process): ...


class SpawnProcess(RunsItself, multiprocessing.get_context("spawn").Process): ...


class ForkserverProcess(RunsItself, multiprocessing.get_context("forkserver").Process): ...


WITH_ITS_OWN_RUN = {"fork": ForkProcess, "spawn": SpawnProcess, "forkserver": ForkserverProcess}


def received(process: Any, pipe: Any) -> Seen:
    process.start()
    assert pipe.poll(LONG_S)
    seen: Seen = pipe.recv()
    process.join(LONG_S)
    assert process.exitcode == 0
    return seen


def forked() -> Seen:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, pickle.dumps(look()))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    seen: Seen = pickle.loads(told)
    return seen


def observed(method: str) -> dict[str, Observed]:
    context: Any = multiprocessing.get_context(method)

    @contextmanager
    def processes() -> Iterator[dict[str, Item]]:
        def process() -> Seen:
            ours, theirs = context.Pipe()
            return received(context.Process(target=look_and_tell, args=(theirs,)), ours)

        def process_with_its_own_run() -> Seen:
            ours, theirs = context.Pipe()
            return received(WITH_ITS_OWN_RUN[method](theirs), ours)

        yield {
            "Process": process,
            "Process subclass with its own run": process_with_its_own_run,
        } | ({"os.fork": forked} if method == "fork" else {})

    @contextmanager
    def executor() -> Iterator[dict[str, Item]]:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            yield {
                "ProcessPoolExecutor.submit": lambda: pool.submit(look).result(LONG_S),
                "ProcessPoolExecutor.map": lambda: next(pool.map(look, [0])),
            }

    @contextmanager
    def pool() -> Iterator[dict[str, Item]]:
        with context.Pool(1) as pool:
            yield items_of_pool(pool, "Pool")

    found = observe(processes)
    for where in PLACES:
        found |= observe(executor, where) | observe(pool, where)
    return found
