"""What programs wait for and share: locks, queues, connection pools, executors and HTTP clients."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_concurrency.console.distribution import Distribution
from otel_concurrency.console.queries.findings import events
from otel_concurrency.console.queries.scope import Reader, Scope
from otel_concurrency.console.queries.series import levels, spreads
from otel_concurrency.signals import names

LAST = 1


@dataclass(slots=True)
class Shared:
    """Something that several share.

    Attributes:
        kind: `lock`, `queue`, `db pool`, `executor`, `http client`.
        service: Whose.
        name: What it is called.
        search: The part of the name by which programs know it, too.
        used: How much of it is in use; none where that is not told.
        limit: How much there is; none without a limit, or where it is not told.
        waiters: How many wait for it now.
        waits: How long waits took, s.
        holder: Who had it last when somebody waited in vain; empty if that is not known.
        metric: The metric that tells most of it.
    """

    kind: str
    service: str
    name: str
    search: str = ""
    used: float | None = None
    limit: float | None = None
    waiters: float | None = None
    waits: Distribution = field(default_factory=Distribution)
    holder: str = ""
    metric: str = ""

    @property
    def share(self) -> float | None:
        """Return how much of it is in use, 0 to 1."""
        return self.used / self.limit if self.used is not None and self.limit else None


@dataclass(frozen=True, slots=True)
class _Source:
    """Which metrics tell of one kind, and by which attributes it is named."""

    kind: str
    by: tuple[str, ...]
    used: tuple[str, str, str] | None = None  # metric, attribute, value
    plain: str = ""
    limit: str = ""
    waiters: str = ""
    waits: str = ""


_SOURCES = (
    _Source(
        "lock",
        (names.SYNC_TYPE, names.SYNC_NAME),
        waiters=names.SYNC_WAITING.name,
        waits=names.SYNC_WAIT_DURATION.name,
    ),
    _Source("queue", (names.QUEUE_NAME,), plain=names.QUEUE_SIZE.name, limit=names.QUEUE_LIMIT.name),
    _Source(
        "db pool",
        (names.CONNECTION_POOL,),
        used=(names.CONNECTION_COUNT.name, names.CONNECTION_STATE, "used"),
        limit=names.CONNECTION_MAX.name,
        waiters=names.CONNECTION_PENDING.name,
        waits=names.CONNECTION_WAIT_TIME.name,
    ),
    _Source(
        "executor",
        (names.EXECUTOR_TYPE, names.EXECUTOR_NAME),
        used=(names.WORKER_COUNT.name, names.WORKER_STATE, "active"),
        limit=names.WORKER_LIMIT.name,
        waiters=names.EXECUTOR_QUEUE_SIZE.name,
        waits=names.WORK_QUEUE_DURATION.name,
    ),
    _Source(
        "http client",
        (names.HTTP_POOL_NAME,),
        used=(names.HTTP_OPEN_CONNECTIONS.name, names.HTTP_CONNECTION_STATE, "active"),
        limit=names.HTTP_CONNECTION_LIMIT.name,
        waiters=names.HTTP_PENDING_REQUESTS.name,
        waits=names.HTTP_CONNECTION_WAIT_TIME.name,
    ),
)


def resources(reader: Reader, scope: Scope) -> list[Shared]:
    """Return what was told of in the scope: what somebody waits for first, then the fullest."""
    found: list[Shared] = []
    for source in _SOURCES:
        found += _of(reader, scope, source)
    holders = {
        str(event.attributes.get(names.CONNECTION_POOL)): str(
            event.attributes.get(names.CONNECTION_HOLDERS) or ""
        )
        for event in reversed(events(reader, scope, names.POOL_EXHAUSTED, 100))
    }
    for shared in found:
        shared.holder = holders.get(shared.name, "") if shared.kind == "db pool" else ""
    found.sort(
        key=lambda it: (-(it.waiters or 0), -(it.share or 0), -it.waits.count, it.kind, it.service, it.name)
    )
    return found


def _of(reader: Reader, scope: Scope, source: _Source) -> list[Shared]:
    found: dict[tuple[str, tuple[str, ...]], Shared] = {}

    def line(service: str, labels: tuple[str, ...]) -> Shared:
        told = [label for label in labels if label]
        metric = source.waits or source.plain
        new = Shared(source.kind, service, " ".join(told), told[-1] if told else "", metric=metric)
        return found.setdefault((service, labels), new)

    if source.used:
        metric, key, wanted = source.used
        for value in levels(reader, scope, metric, (*source.by, key), steps=LAST):
            if value.labels[-1] == wanted:
                each = line(value.service, value.labels[:-1])
                each.used = (each.used or 0) + value.value
    for metric, kept in ((source.plain, "used"), (source.limit, "limit"), (source.waiters, "waiters")):
        for value in levels(reader, scope, metric, source.by, steps=LAST) if metric else ():
            each = line(value.service, value.labels)
            setattr(each, kept, (getattr(each, kept) or 0) + value.value)
    for spread in spreads(reader, scope, source.waits, source.by) if source.waits else ():
        line(spread.service, spread.labels).waits.merge(spread.spread)
    return list(found.values())
