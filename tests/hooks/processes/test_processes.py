"""What the caller of `Process.start` is about arrives in the child, and nothing else changes."""

from __future__ import annotations

import contextvars
import multiprocessing
import multiprocessing.pool
import multiprocessing.process
import pickle
import sys
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any

import pytest

from otel_concurrency.hooks.processes import processes
from otel_concurrency.hooks.processes.processes import KEY, ProcessHook

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    # What other tests have left running is no business of these: 3.12 and later warn of it.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

BASE = multiprocessing.process.BaseProcess
FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")
about: contextvars.ContextVar[str] = contextvars.ContextVar("about", default="nothing")


def capture() -> dict[str, str]:
    return {} if about.get() == "nothing" else {"about": about.get()}


def restore(carrier: dict[str, str]) -> Context:
    context = contextvars.copy_context()
    context.run(about.set, f"{carrier['about']}, restored")
    return context


def inherit() -> Context:
    context = contextvars.copy_context()
    context.run(about.set, f"{about.get()}, inherited")
    return context


def fail(*_: object) -> Any:
    raise RuntimeError("no luck today")


@pytest.fixture
def install() -> Iterator[Callable[..., ProcessHook]]:
    """Install a hook with these parts; all comes off after the test."""
    before = {name: vars(BASE)[name] for name in ("start", "_bootstrap")}
    installed: list[ProcessHook] = []

    def install(capture: Any = capture, restore: Any = restore, inherit: Any = inherit) -> ProcessHook:
        installed.append(ProcessHook(capture, restore, inherit))
        installed[-1].install()
        return installed[-1]

    yield install
    for hook in reversed(installed):
        hook.remove()
    assert {name: vars(BASE)[name] for name in before} == before


@pytest.fixture(autouse=True)
def submitter() -> Iterator[None]:
    token = about.set("the order")
    yield
    about.reset(token)


def say() -> str:
    return about.get()


def tell(pipe: Any) -> None:
    pipe.send((say(), set(multiprocessing.current_process()._config)))  # type: ignore[attr-defined]


class TellsItself(FORK.Process):  # type: ignore[name-defined, misc]
    """Has a `run` of its own."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.pipe = pipe

    def run(self) -> None:
        tell(self.pipe)


def told(make: Callable[[Any], Any]) -> tuple[str, set[str]]:
    """Run a child; return what it is about, and which settings it would hand on to children of its own."""
    ours, theirs = FORK.Pipe()
    process = make(theirs)
    process.start()
    assert KEY not in process._config
    process.join(30)
    assert process.exitcode == 0
    said, settings = ours.recv()
    # Every process has these, or this one got them from another test.
    return said, settings - {"authkey", "semprefix"} - set(multiprocessing.current_process()._config)  # type: ignore[attr-defined]


def target(pipe: Any) -> Any:
    return FORK.Process(target=tell, args=(pipe,))


def arrived(process: Any) -> Any:
    """A process as it comes out of the pipe in a child that was not forked."""
    copied = BASE.__new__(type(process))
    # As the pickle of a process has it; its authentication key only travels while one is starting.
    state = {name: value for name, value in vars(process).items() if name != "_config"}
    vars(copied).update(pickle.loads(pickle.dumps(state)), _config=dict(process._config))
    return copied


@pytest.mark.parametrize("make", [target, TellsItself])
def test_a_forked_child_goes_on_with_what_is_in_its_memory(
    install: Callable[..., ProcessHook], make: Callable[[Any], Any]
) -> None:
    install()
    assert told(make) == ("the order, inherited", set())


def test_a_carrier_travels_in_the_process_and_is_taken_out_on_both_sides(
    install: Callable[..., ProcessHook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under spawn: what is started is another object, in a memory that knows nothing of this one."""
    seen: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        BASE, "_bootstrap", lambda self, _=None: seen.append((about.get(), KEY in self._config))
    )
    started: list[Any] = []
    monkeypatch.setattr(
        SPAWN.Process, "_Popen", staticmethod(lambda each: started.append(arrived(each)) or Popen())
    )
    hook = install()
    process = SPAWN.Process()
    process.start()
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
    assert KEY not in process._config  # type: ignore[attr-defined]
    contextvars.Context().run(started[0]._bootstrap, None)
    assert seen == [("the order, restored", False)]
    hook.remove()


class Popen:
    """What has been started, and done."""

    sentinel = 0

    def poll(self) -> int:
        return 0


def test_what_a_parent_without_us_hands_on_is_ignored(install: Callable[..., ProcessHook]) -> None:
    """Its children inherit its settings, ours among them; they are not of whom it was started by."""
    install()
    process = TellsItself(None)
    process._config[KEY] = (process._parent_pid + 1, {"about": "long ago"})
    assert processes._taken(process) is None
    assert KEY not in process._config


def test_without_context_nothing_is_carried(install: Callable[..., ProcessHook]) -> None:
    install()
    about.set("nothing")
    assert told(target) == ("nothing", set())


def test_a_worker_of_a_pool_serves_many(install: Callable[..., ProcessHook]) -> None:
    """What its maker is about is none of its items' business."""
    install()
    with FORK.Pool(1) as pool:
        assert pool.apply(say) == "the order"  # the fork's memory, untouched


def test_it_is_installed_once_and_removed(install: Callable[..., ProcessHook]) -> None:
    hook = install()
    patched = vars(BASE)["start"]
    hook.install()
    assert vars(BASE)["start"] is patched
    hook.remove()
    assert told(target) == ("the order", set())
    hook.install()
    assert told(target) == ("the order, inherited", set())


def test_a_later_patch_survives_our_removal(
    install: Callable[..., ProcessHook], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = vars(BASE)["start"]
    hook = install()
    ours, calls = vars(BASE)["start"], []

    def start(self: Any) -> None:
        calls.append("start")
        ours(self)

    with monkeypatch.context() as patching:
        patching.setattr(BASE, "start", start)
        hook.remove()
        assert told(target) == ("the order", set())
    assert calls == ["start"]
    BASE.start = original  # type: ignore[method-assign]


@pytest.mark.parametrize("broken", ["capture", "inherit"])
def test_our_trouble_stays_ours(install: Callable[..., ProcessHook], broken: str) -> None:
    install(**{broken: fail})
    assert told(target) == ("the order", set())


def test_a_process_that_cannot_start_says_what_it_always_says(install: Callable[..., ProcessHook]) -> None:
    """A second start is refused; a target that cannot be pickled is, too, and in the same words."""

    def refusals() -> list[str]:
        said = []
        for process in (SPAWN.Process(target=lambda: None), TellsItself(FORK.Pipe()[1])):
            for _ in range(2):
                try:
                    process.start()
                except Exception as error:
                    said.append(f"{type(error).__name__}: {error}".partition(" at 0x")[0])
            if process.pid:
                process.join()
        return said

    without = refusals()
    install()
    assert refusals() == without
    assert len(without) == 3
