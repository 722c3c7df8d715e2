"""What is shared: connections, workers, locks. How full they are is looked at now and then in a window."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from otel_concurrency.diagnosis.loop_meter import p95_s
from otel_concurrency.diagnosis.resource_rules import CROWD
from otel_concurrency.diagnosis.window import (
    ExecutorNumbers,
    HolderNumbers,
    LockNumbers,
    PoolNumbers,
    RunNumbers,
)
from otel_concurrency.probes.connections import ConnectionLevel, ConnectionRow
from otel_concurrency.probes.histogram import HistogramState, merge_states, state_since
from otel_concurrency.probes.http_pools import Server, ServerRow
from otel_concurrency.probes.readers import Readers, What
from otel_concurrency.probes.work import PoolCount, PoolLevel

MAX_HOLDERS = 10

_NOTHING = HistogramState()
_Key = TypeVar("_Key", bound=Hashable)
Looks = Counter[tuple[str, ...]]


def _read(readers: Readers, what: What, *args: Any) -> list[Any]:
    return [each for read in readers.of(what) for each in read(*args)]


def _new(before: dict[_Key, HistogramState], key: _Key, now: HistogramState) -> HistogramState:
    """Return what has come to a histogram since the last time, and remember how it is now."""
    state = state_since(before.get(key, _NOTHING), now)
    before[key] = now
    return state


class PoolMeter:
    """Reads connection pools, of databases and of HTTP clients."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._before: dict[tuple[str, ...], HistogramState] = {}
        self._timeouts: dict[tuple[str, str], int] = {}
        self._looks: Looks = Counter()
        self._samples = 0
        self.read()

    def sample(self) -> None:
        """Look once."""
        self._samples += 1
        for name, level in self._db_levels().items():
            self._looks["db", name] += _is_full(level.used, level.limit, level.pending)
        for name, (used, limit, pending) in self._http_levels().items():
            self._looks["http", name] += _is_full(used, limit, pending)

    def read(self) -> tuple[PoolNumbers, ...]:
        """Return the numbers since the last time."""
        looks, self._looks = self._looks, Counter()
        samples, self._samples = self._samples, 0
        held: dict[str, list[HolderNumbers]] = {}
        for name, holder in _read(self._readers, "holders", time.monotonic_ns()):
            held.setdefault(name, []).append(HolderNumbers(holder.who, holder.held_ns / 1e9))
        levels = self._db_levels()
        found = []
        for row in _read(self._readers, "connections"):
            level = levels.get(row.name)
            numbers = self._db(row, level, held.get(row.name, ()))
            found.append(_with_looks(numbers, samples, looks["db", row.name]))
        waits = {_name(row.server): row for row in _read(self._readers, "http_waits")}
        for name, (used, limit, pending) in self._http_levels().items():
            numbers = self._http(name, used, limit, pending, waits.get(name))
            found.append(_with_looks(numbers, samples, looks["http", name]))
        return tuple(found)

    def _db(
        self, row: ConnectionRow, level: ConnectionLevel | None, holders: Iterable[HolderNumbers]
    ) -> PoolNumbers:
        name = row.name
        waits = _new(self._before, ("db", name, "wait"), row.wait_times)
        uses = _new(self._before, ("db", name, "use"), row.use_times)
        connects = _new(self._before, ("db", name, "connect"), row.create_times)
        return PoolNumbers(
            name,
            used=level.used if level else 0,
            limit=level.limit if level else None,
            pending=level.pending if level else 0,
            waits=waits.count,
            wait_p95_s=p95_s(waits),
            timeouts=self._timed_out(("db", name), row.timeouts),
            use_p95_s=p95_s(uses),
            uses=uses.count,
            holders=tuple(sorted(holders, key=lambda each: -each.held_s)[:MAX_HOLDERS]),
            connect_p95_s=p95_s(connects),
        )

    def _http(
        self, name: str, used: int, limit: int | None, pending: int, row: ServerRow | None
    ) -> PoolNumbers:
        waits = _new(self._before, ("http", name, "wait"), row.waits) if row is not None else _NOTHING
        return PoolNumbers(
            name,
            kind="http",
            used=used,
            limit=limit,
            pending=pending,
            waits=waits.count,
            wait_p95_s=p95_s(waits),
            timeouts=self._timed_out(("http", name), row.timeouts if row is not None else 0),
        )

    def _timed_out(self, key: tuple[str, str], total: int) -> int:
        before, self._timeouts[key] = self._timeouts.get(key, 0), total
        return max(0, total - before)

    def _db_levels(self) -> dict[str, ConnectionLevel]:
        levels: dict[str, ConnectionLevel] = {}
        for name, level in _read(self._readers, "connection_levels"):
            before = levels.get(name)
            if before is not None:
                level = ConnectionLevel(
                    before.used + level.used,
                    pending=before.pending + level.pending,
                    limit=_sum(before.limit, level.limit),
                )
            levels[name] = level
        return levels

    def _http_levels(self) -> dict[str, tuple[int, int | None, int]]:
        levels: dict[str, tuple[int, int | None, int]] = {}
        for pool in _read(self._readers, "http_levels"):
            taken = sum(each.active for each in pool.servers.values())
            for server, each in pool.servers.items():
                limit = pool.limit_per_host or pool.limit
                # Of a pool for all servers together, what others have counts, too.
                used = each.active if pool.limit_per_host else taken
                before = levels.get(_name(server), (0, 0, 0))
                levels[_name(server)] = (before[0] + used, _sum(before[1], limit), before[2] + each.pending)
        return levels


def _with_looks(numbers: PoolNumbers, samples: int, full: int) -> PoolNumbers:
    return replace(numbers, samples=samples, full=full)


def _name(server: Server) -> str:
    return server.address if server.port is None else f"{server.address}:{server.port}"


def _is_full(used: int | None, limit: int | None, waiting: int | None) -> bool:
    return bool(waiting) and limit is not None and used is not None and used >= limit


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


class ExecutorMeter:
    """Reads pools of threads and processes."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._before: dict[tuple[str, ...], HistogramState] = {}
        self._submitted: dict[tuple[str, str], int] = {}
        self._full: Looks = Counter()
        self._lonely: Looks = Counter()
        self._samples = 0
        self.read()

    def sample(self) -> None:
        """Look once."""
        self._samples += 1
        for key, level in self._levels().items():
            self._full[key] += _is_full(level.active, level.limit, level.queued)
            self._lonely[key] += level.active == 1 and not level.queued and (level.limit or 0) > 1

    def read(self) -> tuple[ExecutorNumbers, ...]:
        """Return the numbers since the last time."""
        (full, self._full), (lonely, self._lonely) = (self._full, Counter()), (self._lonely, Counter())
        samples, self._samples = self._samples, 0
        levels = self._levels()
        counts: dict[tuple[str, str], PoolCount] = {
            (row.kind, row.name): row for row in _read(self._readers, "work")
        }
        return tuple(
            self._numbers(key, levels.get(key), counts.get(key), samples, full[key], lonely[key])
            for key in {**counts, **levels}
        )

    def _numbers(
        self,
        key: tuple[str, str],
        level: PoolLevel | None,
        count: PoolCount | None,
        samples: int,
        full: int,
        lonely: int,
    ) -> ExecutorNumbers:
        kind, name = key
        queued = sent = _NOTHING
        runs: list[RunNumbers] = []
        all_runs, submitted = _NOTHING, 0
        if count is not None:
            queued = _new(self._before, (*key, "queue"), count.queue_times)
            sent = _new(self._before, (*key, "transfer"), count.transfer_times)
            submitted = max(0, count.submitted - self._submitted.get(key, 0))
            self._submitted[key] = count.submitted
            for function, times in count.run_times.items():
                new = _new(self._before, (*key, "run", function), times)
                if new.count:
                    runs.append(
                        RunNumbers(function, new.count, times.quantile_s(0.5), times.count, new.max_ns / 1e9)
                    )
                    all_runs = merge_states(all_runs, new)
        return ExecutorNumbers(
            name,
            kind,
            active=level.active if level else None,
            limit=level.limit if level else None,
            queued=level.queued if level else None,
            samples=samples,
            full=full,
            lonely=lonely,
            submitted=submitted,
            completed=all_runs.count,
            queue_p95_s=p95_s(queued),
            run_p50_s=all_runs.quantile_s(0.5) if all_runs.count else 0.0,
            transfer_s=sent.sum_ns / 1e9,
            run_s=all_runs.sum_ns / 1e9,
            runs=tuple(runs),
        )

    def _levels(self) -> dict[tuple[str, str], PoolLevel]:
        levels: dict[tuple[str, str], PoolLevel] = {}
        for level in _read(self._readers, "levels"):
            before = levels.get((level.kind, level.name))
            if before is not None:
                level = PoolLevel(
                    level.name,
                    level.kind,
                    *(_sum(*pair) for pair in zip(_counts(before), _counts(level), strict=True)),
                )
            levels[level.kind, level.name] = level
        for row in _read(self._readers, "work"):
            level = levels.get((row.kind, row.name))
            if level is not None and level.queued is not None:
                # What is not in line is at work: a pool's own count of idle threads is too high at times.
                active = max(0, row.live - level.queued)
                active = active if level.limit is None else min(active, level.limit)
                levels[row.kind, row.name] = replace(level, active=active)
        return levels


def _counts(level: PoolLevel) -> tuple[int | None, ...]:
    return level.active, level.idle, level.limit, level.queued


class LockMeter:
    """Reads what tasks wait for of each other.

    Args:
        readers: Where that is.
        clock: Monotonic time, ns.
    """

    def __init__(self, readers: Readers, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._readers = readers
        self._clock = clock
        self._before: dict[tuple[str, ...], HistogramState] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self._waited_ns: Looks = Counter()
        self._crowded: Looks = Counter()
        self._looked_ns = clock()
        self._samples = 0
        self.read()

    def sample(self) -> None:
        """Look once: who waits now has waited since the look before, as far as one can tell."""
        now_ns = self._clock()
        since_ns, self._looked_ns = now_ns - self._looked_ns, now_ns
        self._samples += 1
        for row in _read(self._readers, "waits"):
            key = (row.kind, row.name or "")
            self._waited_ns[key] += row.waiting * since_ns
            self._crowded[key] += row.waiting >= CROWD

    def read(self) -> tuple[LockNumbers, ...]:
        """Return the numbers since the last time."""
        (waited, self._waited_ns), (crowded, self._crowded) = (
            (self._waited_ns, Counter()),
            (self._crowded, Counter()),
        )
        samples, self._samples = self._samples, 0
        holds = {(row.kind, row.name or ""): row.durations for row in _read(self._readers, "holds")}
        found = []
        for row in _read(self._readers, "waits"):
            key = (row.kind, row.name or "")
            waits = _new(self._before, (*key, "wait"), row.durations)
            held = _new(self._before, (*key, "hold"), holds[key]) if key in holds else _NOTHING
            begun, self._begun[key] = self._begun.get(key, 0), row.contentions
            found.append(
                LockNumbers(
                    *key,
                    waits=max(0, row.contentions - begun),
                    wait_s=waited[key] / 1e9,
                    waiting=row.waiting,
                    samples=samples,
                    crowded=crowded[key],
                    hold_p95_s=p95_s(held) if held.count else None,
                    longest_s=waits.max_ns / 1e9,
                )
            )
        return tuple(found)
