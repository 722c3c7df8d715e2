"""Hostile coroutines, at random: with us and without us the same things happen, and every task is accounted
for.

`OTEL_CONCURRENCY_FUZZ_SEEDS=10000 python -m pytest tests/probes/test_fuzz.py` looks further.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import random
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import make_task_probe

SEEDS = int(os.environ.get("OTEL_CONCURRENCY_FUZZ_SEEDS", "150"))
LIMIT = 60
"""Tasks a program makes at most."""


class Program:
    """One random program: tasks that do odd things to each other, and a log of what came of it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: list[object] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.made = 0
        self.unraisable = 0

    def spawn(self, **kwargs: Any) -> asyncio.Task[Any] | None:
        if self.made >= LIMIT:
            return None
        self.made += 1
        makers: list[Callable[[int], Any]] = [
            self.worker,
            self.worker,
            self.worker,
            self.stubborn,
            self.delegating,
        ]
        task = asyncio.get_running_loop().create_task(self.random.choice(makers)(self.made), **kwargs)
        if not task.done():
            task.set_name(f"t{self.made}")
        self.tasks.append(task)
        return task

    async def main(self) -> None:
        for _ in range(4):
            self.spawn()
        for _ in range(30):
            await asyncio.sleep(0)
        for _ in range(20):
            pending = [task for task in self.tasks if not task.done()]
            for task in pending:
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self.log.append(sorted(self.outcome(task) for task in self.tasks))
        self.tasks.clear()
        gc.collect()

    @staticmethod
    def outcome(task: asyncio.Task[Any]) -> str:
        if not task.done():
            return "pending"
        if task.cancelled():
            return "cancelled"
        return f"{type(task.exception()).__name__} {task._exception or task.result()}"  # type: ignore[attr-defined]

    async def worker(self, number: int) -> object:
        for _ in range(self.random.randrange(5)):
            self.log.append((number, self.act()))
            await asyncio.sleep(0)
        if self.random.random() < 0.2:
            raise self.random.choice([ValueError, KeyError, RuntimeError, asyncio.CancelledError])(number)
        return self.random.choice([number, None, (1, 2), StopIteration])

    async def stubborn(self, number: int) -> object:
        """Swallows what is thrown at it, a GeneratorExit included, and has a finaliser that raises."""
        keeper = Raises(self)
        for _ in range(self.random.randrange(1, 4)):
            try:
                await asyncio.sleep(0)
            except BaseException as error:
                self.log.append((number, "swallowed", type(error).__name__))
                if isinstance(error, GeneratorExit) and self.random.random() < 0.5:
                    raise
        return keeper.number

    async def delegating(self, number: int) -> object:
        context = contextvars.copy_context()
        context.run(lambda: self.log.append((number, self.act())))
        result = await yields_twice(self)
        await self.worker(number)
        return result

    def act(self) -> str:
        action = self.random.choice(
            [
                "spawn",
                "spawn",
                "spawn shared",
                "cancel",
                "throw",
                "close",
                "send",
                "collect",
                "drop",
                "await",
                "nothing",
            ]
        )
        victim = self.random.choice(self.tasks) if self.tasks else None
        if action == "spawn":
            self.spawn()
        elif action == "spawn shared" and sys.version_info >= (3, 11):
            shared = contextvars.copy_context()
            self.spawn(context=shared)
            self.spawn(context=shared)
        elif action == "collect":
            gc.collect()
        elif victim is None:
            pass
        elif action == "cancel":
            victim.cancel()
        elif action == "drop":
            self.tasks.remove(victim)
        else:
            return f"{action}: {self.meddle(action, victim)}"
        return action

    def meddle(self, action: str, victim: asyncio.Task[Any]) -> str:
        """Do to another task's coroutine what only its own loop should."""
        coroutine: Any = victim.get_coro()
        if coroutine is None or (victim is asyncio.current_task() and action == "close"):
            return "nothing to do"
        try:
            if action == "throw":
                result = coroutine.throw(ValueError("thrown"))
            elif action == "send":
                result = coroutine.send(self.random.choice([None, 1]))
            elif action == "close":
                result = coroutine.close()
            else:
                result = next(coroutine.__await__())
        except BaseException as error:
            return f"{type(error).__name__} {error}"
        return type(result).__name__


class Raises:
    def __init__(self, program: Program) -> None:
        self.number = program.made
        self.program = program

    def __del__(self) -> None:
        self.program.unraisable += 1
        raise OSError("in __del__")


@types.coroutine
def yields_twice(program: Program) -> Any:
    for _ in range(2):
        try:
            yield
        except ValueError:
            program.log.append("thrown into a generator")
    return "delegated"


def listen(loop: Any) -> None:
    """Let each task have a done-callback that does nothing: it is referred to for an iteration longer."""
    create_task, empty = loop.create_task, contextvars.Context()

    def create_and_listen(coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = create_task(coroutine, **kwargs)
        if not task.done():
            task.add_done_callback(do_nothing, context=empty)
        return task

    loop.create_task = create_and_listen


def do_nothing(task: object) -> None:
    """Hear that a task is done."""


def play(seed: int, eager: bool, *, listened: bool = False) -> tuple[list[object], list[str], int]:
    """Run one program; return its log, what the loop complained about, and how many tasks it made."""
    program = Program(seed)
    complaints: list[str] = []
    loop = asyncio.new_event_loop()
    if listened:
        listen(loop)
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    if eager:
        loop.set_task_factory(asyncio.eager_task_factory)
    unraisable: list[str] = []
    hook, sys.unraisablehook = (
        sys.unraisablehook,
        lambda args: unraisable.append(type(args.exc_value).__name__),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "never awaited": half of what is done here deserves it
            loop.run_until_complete(program.main())
            gc.collect()
            loop.close()
            gc.collect()
    finally:
        sys.unraisablehook = hook
    return [*program.log, program.unraisable, sorted(unraisable)], sorted(complaints), program.made


# CPython 3.12.1 itself crashes on some of these programs when tasks are eager, without us.
MODES = ["lazy", *(["eager"] if sys.version_info >= (3, 13) else [])]


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_hostile_coroutines_behave_as_without_us(native: bool, mode: str) -> None:
    """The pure twin has a done-callback on each task, and is like any other: no more of it shows."""
    for seed in range(SEEDS):
        bare = play(seed, mode == "eager", listened=not native)
        probe = make_task_probe(native=native)
        hook = TaskHook(probe)
        hook.install()
        try:
            observed = play(seed, mode == "eager")
        finally:
            hook.remove()
        assert observed == bare, f"seed {seed}"
        rows = [row for row in probe.read_rows() if row.function.startswith(f"{__name__}.Program.")]
        workers = [row for row in rows if not row.function.endswith(".main")]
        for row in rows:
            ended = row.finished + row.cancelled + row.destroyed + sum(row.failed.values())
            assert (row.created, row.live) == (ended, 0), f"seed {seed}: {row.function}"
        assert sum(row.created for row in workers) == observed[2], f"seed {seed}"
