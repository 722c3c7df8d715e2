"""The warehouse: puts items aside for the storefront.

What the console shows of it (service `warehouse`):

- A `POST /reserve/{item}` takes some 6 ms, but 300 ms for item 13: it lies on the top shelf, and there is
  one ladder. The tail of `fetch_from_shelf`'s duration is that ladder; its busy time stays near zero: it
  only waits.
- Item 99 is sold out: a 409, a warning in the log, and an error on the storefront's side of the same
  trace.

How many tasks the traffic makes, exactly:

- `POST /reserve/{item}` = 1 `fetch_from_shelf` and 1 `check_quality`.
- `GET /stock` = none of its own.

With a database, each `POST /reserve/{item}` is one statement on a connection of a pool that has two, and each
`GET /stock` is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

TOP_SHELF_ITEM = 13
SOLD_OUT_ITEM = 99

STOCK = {item: 0 if item == SOLD_OUT_ITEM else 10 + item for item in (*range(1, 14), SOLD_OUT_ITEM)}
CONNECTIONS = 2

log = logging.getLogger("shop.warehouse")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the ladder inside the running loop, as Python 3.9's locks taught everyone to."""
    app.state.ladder = asyncio.Lock()
    if app.state.database_url is None:
        yield
        return
    import asyncpg  # nobody else needs it

    async with asyncpg.create_pool(app.state.database_url, min_size=1, max_size=CONNECTIONS) as pool:
        await make_table(pool)
        app.state.pool = pool
        yield


app = FastAPI(title="warehouse", lifespan=lifespan)
app.state.database_url = None
app.state.pool = None


@app.post("/reserve/{item}")
async def reserve(item: int, request: Request) -> dict[str, str]:
    """Fetch an item and check it, both at once."""
    found, quality = await asyncio.gather(
        fetch_from_shelf(item, request.app.state.ladder), check_quality(item)
    )
    if not found:
        log.warning("item %d is sold out", item)
        raise HTTPException(409, f"item {item} is sold out")
    if request.app.state.pool is not None:
        await request.app.state.pool.execute("UPDATE stock SET reserved = reserved + 1 WHERE item = $1", item)
    return {"quality": quality}


@app.get("/stock")
async def stock(request: Request) -> dict[int, int]:
    """Count what is left of each item; the shelves are filled up again before they are empty."""
    if request.app.state.pool is None:
        return STOCK
    rows = await request.app.state.pool.fetch("SELECT item, amount FROM stock ORDER BY item")
    return {row["item"]: row["amount"] for row in rows}


async def fetch_from_shelf(item: int, ladder: asyncio.Lock) -> bool:
    """Walk to the shelf; for the top one, wait for the ladder first."""
    if item == TOP_SHELF_ITEM:
        log.info("item %d is on the top shelf, getting the ladder", item)
        async with ladder:
            log.info("item %d: got the ladder", item)
            await asyncio.sleep(0.3)
    await asyncio.sleep(0.005)
    return item != SOLD_OUT_ITEM


async def check_quality(item: int) -> str:
    """Look the item over."""
    await asyncio.sleep(0.003)
    return "A" if item % 2 else "B"


async def make_table(pool: Any) -> None:
    """Put the stock into the database, unless it is there."""
    await pool.execute(
        "CREATE TABLE IF NOT EXISTS stock "
        "(item int PRIMARY KEY, amount int NOT NULL, reserved int NOT NULL DEFAULT 0)"
    )
    await pool.executemany(
        "INSERT INTO stock (item, amount) VALUES ($1, $2) ON CONFLICT DO NOTHING", list(STOCK.items())
    )
