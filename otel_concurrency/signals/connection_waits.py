"""Waits for a pool's connections as OpenTelemetry hears of them: in the request, in its span, in the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.probes.account import DB_POOL
from otel_concurrency.probes.connections import Holder
from otel_concurrency.probes.rate_limit import RateLimit
from otel_concurrency.signals import names
from otel_concurrency.signals.pool_waits import tell_wait
from otel_concurrency.signals.request_times import NS

MAX_HOLDERS = 10
"""How many are named of those that have the connections."""


class ConnectionWaits:
    """Tells of waits where they end.

    Args:
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Know of nothing that was told: at first, and again in a forked child."""
        self._limit = RateLimit(burst=1)

    def waited(self, pool: str, ns: int, /) -> None:
        """Tell the request, and the current span if it was long."""
        tell_wait(DB_POOL, ns, {names.CONNECTION_POOL: pool})

    def timed_out(self, pool: str, ns: int, holders: Sequence[Holder], /) -> None:
        """Say who has the connections, there and now and then in the log."""
        attributes: dict[str, AnyValue] = {
            names.CONNECTION_POOL: pool,
            names.CONNECTION_HOLDERS: [
                f"{holder.who} for {holder.held_ns / NS:.3f} s" for holder in holders[:MAX_HOLDERS]
            ],
        }
        tell_wait(DB_POOL, ns, attributes)
        now_unix_ns = self._clock()
        left_out = self._limit.admit(pool, now_unix_ns)
        if left_out is None:
            return
        attributes[names.POOL_WAIT_TIME] = ns / NS
        if left_out:
            attributes[names.SUPPRESSED] = left_out
        get_logger(names.SCOPE_NAME, __version__).emit(
            timestamp=now_unix_ns,
            observed_timestamp=now_unix_ns,
            severity_number=SeverityNumber.WARN,
            severity_text=SeverityNumber.WARN.name,
            body=f"No connection of {pool} came back within {ns / NS:.3f} s; {len(holders)} are in use",
            event_name=names.POOL_EXHAUSTED,
            attributes=attributes,
        )
