"""Where we attach to Celery: its signals, which are sent in the process where a thing happens.

Nothing here depends on a worker's events, which a broker may lose. What the main process of a worker knows,
a child that it has forked reads in memory that they share (`probes/shared_runs.py`): the message is not
touched on its way from one to the other.

`task_prerun` and `task_postrun` come from `celery/app/trace.py`, in the process that runs the task. What
kills that process is told by the main one: `task_failure` (`celery/worker/request.py`, `on_timeout` and
`on_failure`) and `task_revoked`.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

from otel_concurrency.hooks.celery_messages import Message, stamp
from otel_concurrency.hooks.child_exit import is_child
from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.probes.celery_tasks import CeleryProbe
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.shared_runs import SharedRuns
from otel_concurrency.probes.work import PoolLevel

UNKNOWN = "_unknown"
"""The name of what no task answers to."""

POOL_KIND = "celery"

_OUTCOMES = {"SUCCESS": "finished", "FAILURE": "failed", "RETRY": "retried", "IGNORED": "ignored"}
_DEATHS = ("TimeLimitExceeded", "WorkerLostError")  # of billiard
_NOT_REGISTERED = "celery.exceptions.NotRegistered"
_MAX_TOLD = 1_000

_logger = logging.getLogger(__name__)

Repeated = Callable[[str, str, int, str], None]
"""Called with the task's name, its id, which try it is, and the outcome."""


class CeleryHook:
    """Counts runs of Celery's tasks, and what they waited for.

    Args:
        probe: Counts.
        repeated: Told of each run of what had been run to its end before.
        clock: Wall-clock time, ns since the epoch.
        monotonic_ns: A clock that all processes of the machine share.
    """

    def __init__(
        self,
        probe: CeleryProbe,
        repeated: Repeated,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._probe = probe
        self._repeated = repeated
        self._clock = clock
        self._now_ns = monotonic_ns
        self._connected: list[tuple[Any, Callable[..., None]]] = []
        self._stop_awaiting: Callable[[], None] | None = None
        self._begin()
        self._runs: SharedRuns | None = None
        self._is_child = is_child()
        self._has_failed = False

    def __repr__(self) -> str:
        return f"<CeleryHook [{'connected' if self._connected else 'removed'}]>"

    def _begin(self) -> None:
        self._running: dict[int, _Run] = {}  # by the id of Celery's own record of it
        self._told: dict[str, None] = {}  # ids of tasks whose process has died
        self._worker: Callable[[], Any] = _nobody

    def install(self) -> None:
        """Connect, now or when Celery is imported; a second call changes nothing."""
        if self._stop_awaiting is None:
            self._stop_awaiting = when_imported("celery.signals", self._connect)

    def remove(self) -> None:
        """Disconnect."""
        if self._stop_awaiting is not None:
            self._stop_awaiting()
            self._stop_awaiting = None
        while self._connected:
            signal, receiver = self._connected.pop()
            signal.disconnect(receiver)
        self._begin()

    def forked(self) -> None:
        """Begin anew in a forked child, which knows what its worker knows."""
        self._is_child = self._is_child or self._worker() is not None
        self._begin()

    def levels(self) -> Iterable[PoolLevel]:
        """Tell how full the pool of this process's worker is; threads are a pool that others tell of."""
        pool = getattr(self._worker(), "pool", None)
        state = sys.modules.get("celery.worker.state")
        if pool is None or state is None:
            return ()
        name = type(pool).__module__.rpartition(".")[2]
        if name == "thread":
            return ()
        try:
            limit = pool.num_processes
        except AttributeError:  # it has not begun, or is over
            return ()
        active = len(state.active_requests)
        return (
            PoolLevel(
                name,
                POOL_KIND,
                active=active,
                idle=None if limit is None else max(0, limit - active),
                limit=limit,
                queued=max(0, len(state.reserved_requests) - active),
            ),
        )

    def _connect(self, signals: ModuleType) -> None:
        receivers = {
            "before_task_publish": self._sent,
            "task_received": self._received,
            "task_prerun": self._began,
            "task_postrun": self._ended,
            "task_failure": self._died,
            "task_retry": self._retried,
            "task_revoked": self._revoked,
            "task_rejected": self._rejected,
            "task_unknown": self._not_registered,
            "worker_init": self._worker_begins,
        }
        if not all(hasattr(getattr(signals, name, None), "connect") for name in receivers):
            _logger.debug("this Celery has other signals than we know; its tasks are not counted")
            return
        for name, receive in receivers.items():
            signal, receiver = getattr(signals, name), self._guarded(receive)
            signal.connect(receiver, weak=False)
            self._connected.append((signal, receiver))

    def _guarded(self, receive: Callable[..., None]) -> Callable[..., None]:
        """Keep our trouble to ourselves: Celery would tell of it with every task."""

        def receiver(sender: Any = None, **told: Any) -> None:
            try:
                receive(sender, **told)
            except Exception:
                if not self._has_failed:
                    self._has_failed = True
                    _logger.exception("A Celery task is not counted as it should be; said once")

        return receiver

    def _worker_begins(self, sender: Any, **_: Any) -> None:
        self._worker = weakref.ref(sender)
        self._is_child = False
        self._shared()  # its children are forked after this

    def _shared(self) -> SharedRuns:
        if self._runs is None:
            self._runs = SharedRuns(self._now_ns)
        return self._runs

    def _sent(self, sender: Any, headers: Any = None, **_: Any) -> None:
        if isinstance(headers, dict):
            stamp(headers, self._clock())

    def _received(self, sender: Any, request: Any = None, **_: Any) -> None:
        self._shared().receive(Message.received(request).key)
        if self._told:
            self._told.pop(request.id, None)

    def _began(self, sender: Any, task: Any = None, **_: Any) -> None:
        request = task.request
        delivery = request.delivery_info or {}
        redelivered = bool(delivery.get("redelivered"))
        message = Message.running(request)
        queue_ns = prefetch_ns = None
        key, now_ns = 0, self._now_ns()
        if not request.is_eager:  # just called
            key = message.key
            received_ns = self._shared().received_ns(key)
            due_ns = message.due_for_ns(self._clock)
            if message.sent_ns:
                queue_ns = min(self._clock() - message.sent_ns, due_ns)
            if received_ns:
                prefetch_ns = max(0, min(now_ns - received_ns, due_ns))
        self._probe.began(
            task.name, delivery.get("routing_key") or "", queue_ns, prefetch_ns, redelivered=redelivered
        )
        self._running[id(request)] = _Run(key, message.is_stamped or redelivered, now_ns)

    def _ended(self, sender: Any, task: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
        request = task.request
        run = self._running.pop(id(request), None)
        if run is None:
            return
        run_ns = self._now_ns() - run.began_ns
        name, error_type = task.name, ""
        outcome = _OUTCOMES.get(state)
        if outcome == "failed":
            error_type = type_name(type(retval))
        elif outcome == "retried":
            self._probe.retried(name)
        elif outcome is None:
            if state == "REJECTED":
                outcome = "requeued" if getattr(retval, "requeue", False) else "rejected"
            elif self._is_child:
                return  # it ends with its process, and the main process tells
            else:
                outcome = "failed"
                kind = sys.exc_info()[0]
                error_type = type_name(kind) if kind is not None else ""
        is_first = not run.key or outcome == "requeued" or self._shared().end(run.key)
        if is_first or not run.is_known:
            self._probe.ended(name, outcome, error_type, run_ns)
        else:
            self._probe.repeated(name, outcome, run_ns)
            self._repeated(name, request.id, request.retries or 0, outcome)

    def _died(self, sender: Any, task_id: Any = None, exception: Any = None, **_: Any) -> None:
        """Count a run whose process was killed; what a task raises itself ends in `_ended`."""
        if type(exception).__name__ not in _DEATHS or self._is_child or self._is_running(sender):
            return
        if task_id not in self._told:  # both the time limit and the lost process may be told of
            if len(self._told) >= _MAX_TOLD:
                self._told.clear()
            self._told[task_id] = None
            self._probe.ended(sender.name, "failed", type_name(type(exception)))

    def _retried(self, sender: Any, reason: Any = None, **_: Any) -> None:
        """Count a retry that the main process asks for, the task's own having died."""
        if reason is not None and not self._is_child and not self._is_running(sender):
            self._probe.retried(sender.name)
            self._probe.ended(sender.name, "retried")

    def _revoked(self, sender: Any, request: Any = None, **_: Any) -> None:
        if not self._is_child and self._shared().end(Message.running(request).key):
            self._probe.ended(sender.name, "revoked")

    def _rejected(self, sender: Any, exc: Any = None, **_: Any) -> None:
        self._probe.ended(UNKNOWN, "rejected", "" if exc is None else type_name(type(exc)))

    def _not_registered(self, sender: Any, **_: Any) -> None:
        self._probe.ended(UNKNOWN, "rejected", _NOT_REGISTERED)

    def _is_running(self, task: Any) -> bool:
        return bool(self._running) and id(task.request) in self._running


class _Run(NamedTuple):
    """A run that has begun.

    Attributes:
        key: What it is of; 0 where the task was just called, and nobody else can run it.
        is_known: Whether another run of this key is one of the same message.
        began_ns: When.
    """

    key: int
    is_known: bool
    began_ns: int


def _nobody() -> None:
    return None
