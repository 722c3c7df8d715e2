"""The customers: a bounded number of requests; their count alone decides which, and so which tasks they
make.

Of every ten requests two look at the catalog and eight check out three items: five plainly, one as a
guest, one with the item from the top shelf (slow), one with the item that is sold out (refused).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

KINDS = (
    "checkout",
    "guest_checkout",
    "checkout",
    "slow_checkout",
    "catalog",
    "checkout",
    "checkout",
    "sold_out_checkout",
    "checkout",
    "catalog",
)
EXPECTED_STATUS = dict.fromkeys(KINDS, 200) | {"sold_out_checkout": 409}
ITEMS_PER_CHECKOUT = 3
MAX_REQUESTS = 100_000


@dataclass(frozen=True)
class TaskCount:
    """How many tasks of one coroutine the traffic made, and how many of them failed."""

    created: int
    failed: int = 0


@dataclass
class Traffic:
    """What was sent and what came back.

    Attributes:
        answers: Requests by kind and HTTP status; status 0 stands for no answer at all.
        started_ns: Wall-clock time of the first request, ns since the epoch.
        ended_ns: Wall-clock time of the last answer, ns since the epoch.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    started_ns: int = 0
    ended_ns: int = 0

    @property
    def requests(self) -> int:
        """Count the requests."""
        return self.answers.total()

    @property
    def unexpected(self) -> dict[tuple[str, int], int]:
        """Return the answers that should not have been; the task counts hold only if there are none."""
        return {key: count for key, count in self.answers.items() if key[1] != EXPECTED_STATUS[key[0]]}

    def tasks(self) -> dict[str, TaskCount]:
        """Return the tasks that the traffic made, by `module.function`, in both services."""
        asked = {kind: self.answers[kind, EXPECTED_STATUS[kind]] for kind in EXPECTED_STATUS}
        paid = asked["checkout"] + asked["guest_checkout"] + asked["slow_checkout"]
        sold_out, catalogs = asked["sold_out_checkout"], asked["catalog"]
        items = (paid + sold_out) * ITEMS_PER_CHECKOUT
        return {
            "storefront.place_order": TaskCount(paid + sold_out, failed=sold_out),
            "storefront.reserve_item": TaskCount(items, failed=sold_out),
            "storefront.quote_shipping": TaskCount(paid + sold_out),
            "storefront.charge": TaskCount(paid),
            "storefront.score_risk": TaskCount(paid),
            "storefront.send_receipt": TaskCount(paid),
            "storefront.award_points": TaskCount(paid, failed=asked["guest_checkout"]),
            "storefront.fetch_stock": TaskCount(catalogs),
            "storefront.fetch_prices": TaskCount(catalogs),
            "warehouse.fetch_from_shelf": TaskCount(items),
            "warehouse.check_quality": TaskCount(items),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it: counts by kind and status, tasks by coroutine."""
        by_kind: dict[str, dict[str, int]] = {}
        for (kind, status), count in sorted(self.answers.items()):
            by_kind.setdefault(kind, {})[str(status)] = count
        unexpected = {f"{kind}: {status}": count for (kind, status), count in self.unexpected.items()}
        tasks = {name: vars(count) for name, count in self.tasks().items()}
        return {
            "requests": self.requests,
            "answers": by_kind,
            "unexpected": unexpected,
            "tasks": tasks,
            "started_ns": self.started_ns,
            "ended_ns": self.ended_ns,
        }


async def drive(url: str, *, requests: int = 60, concurrency: int = 4) -> Traffic:
    """Send the requests, a few at a time, and wait for every answer.

    Args:
        url: The storefront's.
        requests: How many, at most `MAX_REQUESTS`; a multiple of ten has every kind in its full share.
        concurrency: How many are on their way at once.
    """
    if not 0 < requests <= MAX_REQUESTS:
        raise ValueError(f"requests must be from 1 to {MAX_REQUESTS}, not {requests}")
    done = Traffic(started_ns=time.time_ns())
    numbers = iter(range(requests))
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=30)) as session:
        await asyncio.gather(*(_customer(session, numbers, done) for _ in range(min(concurrency, requests))))
    done.ended_ns = time.time_ns()
    return done


async def _customer(session: aiohttp.ClientSession, numbers: Iterator[int], done: Traffic) -> None:
    for number in numbers:
        kind = KINDS[number % len(KINDS)]
        done.answers[kind, await _ask(session, kind, number)] += 1


async def _ask(session: aiohttp.ClientSession, kind: str, number: int) -> int:
    try:
        if kind == "catalog":
            async with session.get("/catalog") as response:
                await response.read()
                return response.status
        async with session.post("/checkout", json=_order(kind, number)) as response:
            await response.read()
            return response.status
    except (aiohttp.ClientError, TimeoutError, asyncio.TimeoutError):
        return 0


def _order(kind: str, number: int) -> dict[str, Any]:
    """Return an order of three different items between 1 and 12, the special one last."""
    first = number % 10 + 1
    special = {"slow_checkout": 13, "sold_out_checkout": 99}.get(kind, first + 2)
    customer = 1000 + number if kind == "guest_checkout" else number % 1000
    return {"customer": customer, "items": [first, first + 1, special]}
