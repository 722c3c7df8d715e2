"""The storefront: takes orders, asks the warehouse for the goods, charges; the receipt goes out later.

What the console shows of it (service `shop`):

- A `POST /checkout` is one trace through both services: the storefront's request, under it one client
  span and one warehouse request per item, and every log line under the span that wrote it.
- The slow ones are slow because of one item: only its `reserve_item` waits, and the warehouse's span says
  why.
- `award_points` fails for every guest, in the background, while the customer gets a 200: the task table
  counts it.
- `refresh_prices` is always live: one long task among thousands of short ones.

How many tasks the traffic makes, exactly:

- `POST /checkout` with N items = 1 `place_order`, N `reserve_item`, 1 `quote_shipping`, 1 `charge`, 1
  `score_risk`, 1 `send_receipt`, 1 `award_points` (failed, if the customer is a guest: id 1000 and up),
  and N requests to the warehouse.
- `POST /checkout` with one item sold out (answer 409) = 1 `place_order` (failed), N `reserve_item` (1
  failed), 1 `quote_shipping`, and N requests to the warehouse.
- `GET /catalog` = 1 `fetch_stock`, 1 `fetch_prices`, and 1 request to the warehouse.
- A running process = 1 `refresh_prices`, cancelled at its end.

With a broker, `send_receipt` hands the receipt to a worker (`receipts.py`), in one work item of the loop's
thread pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import aiohttp
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

FIRST_GUEST = 1000
"""Customers from this id on are guests: they have no loyalty account."""

PRICES = {item: 5 + item for item in range(1, 100)}

log = logging.getLogger("shop.storefront")
order_numbers = itertools.count(1)
background: set[asyncio.Task[None]] = set()


class Order(BaseModel):
    """What a customer sends."""

    customer: int
    items: list[int] = Field(min_length=1, max_length=20)
    country: str = "NL"


class SoldOut(Exception):  # noqa: N818  (what the shop assistant says)
    """The warehouse has none left."""


class NoLoyaltyAccount(LookupError):  # noqa: N818
    """Guests collect no points."""


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one client session and one price refresher as long as the program runs."""
    async with aiohttp.ClientSession(app.state.warehouse_url) as session:
        app.state.session = session
        if app.state.broker_url is not None:
            import receipts  # it needs Celery

            receipts.app.conf.broker_url = app.state.broker_url
        refresher = asyncio.create_task(refresh_prices())
        yield
        refresher.cancel()
        await asyncio.gather(refresher, *background, return_exceptions=True)


app = FastAPI(title="shop", lifespan=lifespan)
app.state.warehouse_url = "http://127.0.0.1:8001"
app.state.broker_url = None


@app.post("/checkout")
async def checkout(order: Order, request: Request) -> dict[str, Any]:
    """Place an order; it is finished even if the customer hangs up halfway."""
    try:
        receipt = await asyncio.shield(asyncio.create_task(place_order(request.app.state.session, order)))
    except SoldOut as error:
        log.warning("order refused: %s", error)
        raise HTTPException(409, str(error)) from error
    in_background(send_receipt(receipt))
    in_background(award_points(order.customer, receipt["total"]))
    return receipt


@app.get("/catalog")
async def catalog(request: Request) -> dict[str, Any]:
    """List what is for sale, with price and stock."""
    stock, prices = await asyncio.gather(fetch_stock(request.app.state.session), fetch_prices())
    return {item: {"price": prices[int(item)], "stock": left} for item, left in stock.items()}


async def place_order(session: aiohttp.ClientSession, order: Order) -> dict[str, Any]:
    """Reserve all the items at once, then charge for them."""
    number = next(order_numbers)
    log.info("order %d: %d items for customer %d", number, len(order.items), order.customer)
    shipping, _ = await asyncio.gather(
        quote_shipping(order.country),
        asyncio.gather(*(reserve_item(session, item) for item in order.items)),
    )
    total = shipping + sum(PRICES[item] for item in order.items)
    await asyncio.gather(charge(order.customer, total), score_risk(order.customer))
    log.info("order %d: paid %d", number, total)
    return {"number": number, "total": total}


async def reserve_item(session: aiohttp.ClientSession, item: int) -> None:
    """Have the warehouse put one item aside."""
    async with session.post(f"/reserve/{item}") as response:
        if response.status == 409:
            raise SoldOut(f"item {item} is sold out")
        response.raise_for_status()


async def quote_shipping(country: str) -> int:
    """Ask the carrier what a parcel costs."""
    await asyncio.sleep(0.004)
    return 5 if country == "NL" else 12


async def charge(customer: int, total: int) -> None:
    """Take the money; the payment provider needs a moment."""
    await asyncio.sleep(0.012)
    log.info("charged customer %d: %d", customer, total)


async def score_risk(customer: int) -> str:
    """Compute a risk score: the one coroutine here that is busy rather than waiting."""
    digest = str(customer).encode()
    for _ in range(2_000):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


async def send_receipt(receipt: dict[str, Any]) -> None:
    """Mail the receipt after the answer has gone out, or have a worker do it."""
    if app.state.broker_url is None:
        await asyncio.sleep(0.02)
    else:
        from receipts import mail

        # Celery's client blocks, so a thread of the loop's own pool sends.
        await asyncio.to_thread(mail.delay, receipt["number"], receipt["total"])
    log.info("order %d: receipt sent", receipt["number"])


async def award_points(customer: int, total: int) -> None:
    """Add loyalty points; nobody waits for it, so nobody but asyncio hears when it fails."""
    await asyncio.sleep(0.005)
    if customer >= FIRST_GUEST:
        raise NoLoyaltyAccount(f"customer {customer} has no loyalty account")
    log.info("customer %d: %d points", customer, total)


async def fetch_stock(session: aiohttp.ClientSession) -> dict[str, int]:
    """Ask the warehouse what is left."""
    async with session.get("/stock") as response:
        response.raise_for_status()
        stock: dict[str, int] = await response.json()
        return stock


async def fetch_prices() -> dict[int, int]:
    """Read the price list."""
    await asyncio.sleep(0.002)
    return PRICES


async def refresh_prices() -> None:
    """Raise or lower a price now and then, for ever."""
    for item in itertools.cycle(PRICES):
        await asyncio.sleep(0.25)
        PRICES[item] = 5 + item + item % 2


def in_background(work: Coroutine[Any, Any, None]) -> None:
    """Start work that nobody awaits; the set keeps the task from being garbage-collected halfway."""
    task = asyncio.create_task(work)
    background.add(task)
    task.add_done_callback(background.discard)
