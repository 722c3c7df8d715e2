"""Items that run in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool

from looking import Item, Observed, Seen, look, observe

LONG_S = 30
PLACES = ("made before", "made inside")


def thread() -> Seen:
    seen: list[Seen] = []
    each = threading.Thread(target=lambda: seen.append(look()))
    each.start()
    each.join()
    return seen[0]


class Looker(threading.Thread):
    """Has a `run` of its own, which does not call the inherited one."""

    def run(self) -> None:
        self.seen = look()


def thread_with_its_own_run() -> Seen:
    each = Looker()
    each.start()
    each.join()
    return each.seen


def timer() -> Seen:
    seen: list[Seen] = []
    each = threading.Timer(0, lambda: seen.append(look()))
    each.start()
    each.join()
    return seen[0]


@contextmanager
def threads() -> Iterator[dict[str, Item]]:
    yield {"Thread": thread, "Thread subclass with its own run": thread_with_its_own_run, "Timer": timer}


@contextmanager
def executor() -> Iterator[dict[str, Item]]:
    with ThreadPoolExecutor(1) as pool:

        def done_callback() -> Seen:
            gate, seen = threading.Event(), Future[Seen]()
            future = pool.submit(gate.wait, LONG_S)
            future.add_done_callback(lambda _: seen.set_result(look()))  # runs in the worker
            gate.set()
            return seen.result(LONG_S)

        yield {
            "ThreadPoolExecutor.submit": lambda: pool.submit(look).result(LONG_S),
            "ThreadPoolExecutor.map": lambda: next(pool.map(look, [0])),
            "Future done-callback in a worker": done_callback,
        }


POOL_METHODS: dict[str, Callable[..., Seen]] = {
    "apply": lambda pool: pool.apply(look),
    "apply_async": lambda pool: pool.apply_async(look).get(LONG_S),
    "map": lambda pool: pool.map(look, [0])[0],
    "map_async": lambda pool: pool.map_async(look, [0]).get(LONG_S)[0],
    "imap": lambda pool: next(pool.imap(look, [0])),
    "imap_unordered": lambda pool: next(pool.imap_unordered(look, [0])),
    "starmap": lambda pool: pool.starmap(look, [()])[0],
    "starmap_async": lambda pool: pool.starmap_async(look, [()]).get(LONG_S)[0],
}


def items_of_pool(pool: object, kind: str) -> dict[str, Item]:
    return {f"{kind}.{name}": lambda method=method: method(pool) for name, method in POOL_METHODS.items()}


@contextmanager
def thread_pool() -> Iterator[dict[str, Item]]:
    with ThreadPool(1) as pool:
        yield items_of_pool(pool, "ThreadPool")


def observed() -> dict[str, Observed]:
    found = observe(threads)
    for where in PLACES:
        found |= observe(executor, where) | observe(thread_pool, where)
    return found
