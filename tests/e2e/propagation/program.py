"""Runs one column of the table, and prints what was observed in each of its cells, as JSON.

opentelemetry-instrument python program.py threads | programs | asyncio | uvloop | fork | spawn | forkserver
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import sys
from typing import Any

from looking import Observed, set_up

HANGS_S = 90


def observed(column: str) -> dict[str, Observed]:
    # What a column does not need is not imported: its children import this module, too.
    if column in ("asyncio", "uvloop"):
        return on_loop(column)
    if column == "threads":
        import thread_cells

        return thread_cells.observed()
    if column == "programs":
        import program_cells

        return program_cells.observed()
    import process_cells

    return process_cells.observed(column)


def on_loop(column: str) -> dict[str, Observed]:
    import loop_cells
    import program_cells

    async def both() -> dict[str, Observed]:
        return await loop_cells.observed() | await program_cells.observed_on_loop()

    loop: Any = asyncio.new_event_loop()
    if column == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(both())  # type: ignore[no-any-return]
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANGS_S, exit=True)  # a cell that hangs says where
    set_up()
    print(json.dumps(observed(sys.argv[1])))
