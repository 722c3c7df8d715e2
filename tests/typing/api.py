"""Public API in use, for mypy and pyright to read; never run."""

from __future__ import annotations

import otel_concurrency

version: str = otel_concurrency.__version__

started = otel_concurrency.instrument()
started.uninstrument()

otel_concurrency.instrument(native=False, max_coroutines=500, keep_upstream=["threading"])
otel_concurrency.instrument(native="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
otel_concurrency.instrument(max_coroutine=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

request_id: str | None = otel_concurrency.get_request_id()
otel_concurrency.set_request_id("order-7")


@otel_concurrency.timed
def total(prices: list[float]) -> float:
    return sum(prices)


@otel_concurrency.timed(name="checkout")
async def check_out(order: int) -> str:
    return str(order)


price: float = total([1.0])
total("no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
otel_concurrency.timed(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]

limiter = otel_concurrency.AdaptiveLimiter("orders", max_waiting=3)
with limiter:
    limit: int = limiter.limit


async def use_limit() -> None:
    async with limiter:
        pass
