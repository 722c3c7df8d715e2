"""A client gives two requests the same number: the second answer's place takes that of the first.

You will see: of the first `request` that nobody can wake it: what it waits for is known to nobody else. The
second one waits for a future, too, but its client has hold of that.
"""

from __future__ import annotations

import asyncio

from looking import run


class Client:
    """Matches answers to requests by their number."""

    def __init__(self) -> None:
        self.answers: dict[int, asyncio.Future[str]] = {}

    async def request(self, number: int) -> str:
        """Ask, and wait for the answer."""
        answer = self.answers[number] = asyncio.get_running_loop().create_future()
        return await answer


async def main() -> None:
    client = Client()
    first = asyncio.create_task(client.request(1), name="first")
    await asyncio.sleep(0.05)
    second = asyncio.create_task(client.request(1), name="second")
    await asyncio.sleep(0.05)
    await asyncio.wait([first, second])


run(main())
