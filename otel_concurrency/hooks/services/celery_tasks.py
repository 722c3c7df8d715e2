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
from collections.abc import Callable, Iterable, Mapping
from threading import get_ident
from types import MappingProxyType, ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.processes.child_exit import is_child
from otel_concurrency.hooks.services.celery_messages import due_unix_ns, read, stamp
from otel_concurrency.probes.celery_tasks import CeleryProbe
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.shared_runs import SharedRuns
from otel_concurrency.probes.work import PoolLevel

UNKNOWN = "_unknown"
"""The name of what no task answers to."""

POOL_KIND = "celery"

_OUTCOMES = {"RETRY": "retried", "IGNORED": "ignored"}
_NOTHING: Mapping[str, Any] = MappingProxyType({})
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
        # By id and thread: key, whether another run of it is one of the same message, when it began, its try.
        self._running: dict[tuple[Any, int], tuple[int, bool, int, int]] = {}
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
            "task_failure": self._guarded(self._died),
            "task_retry": self._guarded(self._retried),
            "task_revoked": self._guarded(self._revoked),
            "task_rejected": self._guarded(self._rejected),
            "task_unknown": self._guarded(self._not_registered),
            "worker_init": self._guarded(self._worker_begins),
        }
        if not all(hasattr(getattr(signals, name, None), "connect") for name in receivers):
            _logger.debug("this Celery has other signals than we know; its tasks are not counted")
            return
        for name, receiver in receivers.items():
            signal = getattr(signals, name)
            signal.connect(receiver, weak=False)
            self._connected.append((signal, receiver))

    def _guarded(self, receive: Callable[..., None]) -> Callable[..., None]:
        """Keep our trouble to ourselves, as the four that come with each task do in a shorter way."""

        def receiver(sender: Any = None, **told: Any) -> None:
            try:
                receive(sender, **told)
            except Exception:
                self._complain()

        return receiver

    def _complain(self) -> None:
        """Tell of our trouble; Celery would do so with every task."""
        if not self._has_failed:
            self._has_failed = True
            _logger.exception("A Celery task is not counted as it should be; said once")

    def _worker_begins(self, sender: Any, **_: Any) -> None:
        self._worker = weakref.ref(sender)
        self._is_child = False
        self._shared()  # its children are forked after this

    def _shared(self) -> SharedRuns:
        if self._runs is None:
            self._runs = SharedRuns(self._now_ns)
        return self._runs

    def _sent(self, sender: Any = None, headers: Any = None, **_: Any) -> None:
        try:
            if isinstance(headers, dict):
                stamp(headers, self._clock())
        except Exception:
            self._complain()

    def _received(self, sender: Any = None, request: Any = None, **_: Any) -> None:
        try:
            (self._runs or self._shared()).receive(read(request.request_dict)[0])
            if self._told:
                self._told.pop(request.id, None)
        except Exception:
            self._complain()

    def _began(self, sender: Any = None, task_id: Any = None, task: Any = None, **_: Any) -> None:
        try:
            told = vars(task.request)
            delivery = told.get("delivery_info") or _NOTHING
            redelivered = bool(delivery.get("redelivered"))
            queue_ns = prefetch_ns = None
            key, first, sent = read(told)
            now_ns = self._now_ns()
            if told.get("is_eager"):  # just called
                key = 0
            else:
                received_ns = (self._runs or self._shared()).received_ns(key)
                if received_ns:
                    prefetch_ns = now_ns - received_ns
                if sent.isdecimal():
                    queue_ns = self._clock() - int(sent)
                if told.get("eta") and (due_ns := due_unix_ns(told["eta"])):
                    due_ns = self._clock() - due_ns
                    queue_ns = None if queue_ns is None else min(queue_ns, due_ns)
                    prefetch_ns = None if prefetch_ns is None else max(0, min(prefetch_ns, due_ns))
            queue = delivery.get("routing_key") or ""
            self._probe.began(task.name, queue, queue_ns, prefetch_ns, redelivered=redelivered)
            run = (key, redelivered or first != "", now_ns, told.get("retries") or 0)
            self._running[task_id, get_ident()] = run
        except Exception:
            self._complain()

    def _ended(
        self,
        sender: Any = None,
        task_id: Any = None,
        task: Any = None,
        state: Any = None,
        retval: Any = None,
        **_: Any,
    ) -> None:
        try:
            run = self._running.pop((task_id, get_ident()), None)
            if run is None:
                return
            key, is_known, began_ns, task_try = run
            run_ns = self._now_ns() - began_ns
            name = task.name
            outcome, error_type = self._outcome(state, retval)
            if outcome is None:
                return
            if outcome == "retried":
                self._probe.retried(name)
            is_first = not key or outcome == "requeued" or (self._runs or self._shared()).end(key)
            if is_first or not is_known:
                self._probe.ended(name, outcome, error_type, run_ns)
            else:
                self._probe.repeated(name, outcome, run_ns)
                self._repeated(name, task_id, task_try, outcome)
        except Exception:
            self._complain()

    def _outcome(self, state: Any, retval: object) -> tuple[str | None, str]:
        """Return how a run ended, and what it raised; None where it has not, for us."""
        if state == "SUCCESS":
            return "finished", ""
        if state == "FAILURE":
            return "failed", type_name(type(retval))
        if state == "REJECTED":
            return "requeued" if getattr(retval, "requeue", False) else "rejected", ""
        if state in _OUTCOMES:
            return _OUTCOMES[state], ""
        if self._is_child:
            return None, ""  # it ends with its process, and the main process tells
        kind = sys.exc_info()[0]
        return "failed", type_name(kind) if kind is not None else ""

    def _died(self, sender: Any, task_id: Any = None, exception: Any = None, **_: Any) -> None:
        """Count a run whose process was killed; what a task raises itself ends in `_ended`."""
        if type(exception).__name__ not in _DEATHS or self._is_child or self._is_running(task_id):
            return
        if task_id not in self._told:  # both the time limit and the lost process may be told of
            if len(self._told) >= _MAX_TOLD:
                self._told.clear()
            self._told[task_id] = None
            self._probe.ended(sender.name, "failed", type_name(type(exception)))

    def _retried(self, sender: Any, request: Any = None, reason: Any = None, **_: Any) -> None:
        """Count a retry that the main process asks for, the task's own having died."""
        if reason is not None and not self._is_child and not self._is_running(request.id):
            self._probe.retried(sender.name)
            self._probe.ended(sender.name, "retried")

    def _revoked(self, sender: Any, request: Any = None, **_: Any) -> None:
        if not self._is_child and self._shared().end(read(vars(request))[0]):
            self._probe.ended(sender.name, "revoked")

    def _rejected(self, sender: Any, exc: Any = None, **_: Any) -> None:
        self._probe.ended(UNKNOWN, "rejected", "" if exc is None else type_name(type(exc)))

    def _not_registered(self, sender: Any, **_: Any) -> None:
        self._probe.ended(UNKNOWN, "rejected", _NOT_REGISTERED)

    def _is_running(self, task_id: object) -> bool:
        return (task_id, get_ident()) in self._running


def _nobody() -> None:
    return None
