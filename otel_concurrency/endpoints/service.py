"""What starts and stops the server: with the process, around its forks, and in the children of these.

The first process listens at once. A forked child does when it shows that it has work of its own: a loop runs,
something is measured or recorded; many children never do. It takes a port of its own, and the listening
socket of its parent is closed in it. Where it is the only thread beside the one that forks, it is gone for
the time of the fork.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from opentelemetry._logs import get_logger_provider
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.trace import get_tracer_provider

from otel_concurrency.config import Config
from otel_concurrency.endpoints import ports
from otel_concurrency.endpoints.debugging import Debugging
from otel_concurrency.endpoints.directory import Directory, own_entry
from otel_concurrency.endpoints.examination import examination
from otel_concurrency.endpoints.health import Health
from otel_concurrency.endpoints.ready import Ready
from otel_concurrency.endpoints.routes import Route, add_route
from otel_concurrency.endpoints.scraping import Metrics
from otel_concurrency.endpoints.server import Server
from otel_concurrency.endpoints.site import Site, is_loopback
from otel_concurrency.endpoints.trace import Tracing
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.ending.shutdown_notice import ShutdownNotice
from otel_concurrency.hooks.interpreters import is_main_interpreter
from otel_concurrency.instrumentors import event_loops
from otel_concurrency.probes import quiet_thread
from otel_concurrency.probes.loop_time import TimedLoop
from otel_concurrency.signals import late_threads
from otel_concurrency.signals.names import ENDPOINT_URL

_PAUSE_S = 0.2


_logger = logging.getLogger(__name__)


def start(config: Config) -> Callable[[], None]:
    """Listen, as the settings say; returns what ends that. An entry point, for the distro."""
    service = Service(config)
    service.install()
    return service.remove


class Service:
    """The server of this process, and of the children that it forks.

    Args:
        config: The settings.
        directory: Where the process announces itself.
    """

    def __init__(self, config: Config, directory: Directory | None = None) -> None:
        self._config = config
        self._directory = directory or Directory()
        self._site = Site(config.http_token, config.http_host)
        self._metrics = Metrics()
        self._undo: list[Callable[[], object]] = []
        self._has_metrics = False
        self._begin()

    def __repr__(self) -> str:
        return f"<Service [{self.url or 'not listening'}]>"

    def _begin(self) -> None:
        self.url = ""
        self._server: Server | None = None
        self._is_waiting = False
        self._lock = threading.RLock()

    def install(self) -> None:
        """Begin; a second call changes nothing."""
        if self._undo or self._config.http_port is None or not is_main_interpreter():
            return
        if not is_loopback(self._config.http_host) and not self._config.http_token:
            _logger.warning(
                "OTEL_PYTHON_CONCURRENCY_HTTP_HOST=%s can be reached from elsewhere, so the endpoints stay "
                "off: set OTEL_PYTHON_CONCURRENCY_HTTP_TOKEN to what callers must know, or leave the host at "
                "127.0.0.1",
                self._config.http_host,
            )
            return
        notice = ShutdownNotice()
        notice.install()
        atexit.register(self._end)
        self._undo = [
            lambda: atexit.unregister(self._end),
            fork.before_fork(self._pause),
            fork.in_parent(self._resume_soon),
            fork.in_child(self._begin_in_child),
            event_loops.observe(self),
            self._metrics.remove,
            notice.remove,
        ]
        self._has_metrics = self._config.http_metrics and self._metrics.install()
        self._listen()

    def remove(self) -> None:
        """Listen no more, and leave forks alone."""
        while self._undo:
            self._undo.pop()()
        self._end()

    def loop_began(self, timed: TimedLoop) -> None:
        """A loop runs: the child of a fork has something to tell."""
        self.wake()

    def loop_ended(self, timed: TimedLoop) -> None:
        """It is over."""

    def wake(self) -> None:
        """Listen now, in a child that has waited with it."""
        if self._is_waiting:
            with self._lock:
                is_waiting, self._is_waiting = self._is_waiting, False
            if is_waiting:
                self._listen()

    def _add_routes(self) -> None:
        add_route(
            Route(
                "/health",
                Health(self._config.http_health_limit),
                "whether the program is alive: 200, or 503 where an event loop has not moved for long",
                is_quick=True,
                is_open=True,
                aliases=("/livez",),
            )
        )
        add_route(
            Route(
                "/ready",
                Ready(self._config.http_ready_limit),
                "whether it can take work: 200, or 503 and why not",
                is_open=True,
                aliases=("/readyz",),
            )
        )
        Debugging().add_routes()
        Tracing().add_routes()
        add_route(Route("/debug/doctor", examination, "what is set up, why, and whether telemetry arrives"))
        if self._has_metrics:
            add_route(Route("/metrics", self._metrics, "all metrics, for Prometheus, with exemplars"))

    def _listen(self) -> None:
        self._add_routes()
        try:
            listener = ports.listen(self._config.http_host, self._config.http_port or 0)
        except OSError as error:
            _logger.warning(
                "The endpoints stay off: there is no port to listen on at %s:%s (%s)",
                self._config.http_host,
                self._config.http_port,
                error,
            )
            return
        try:
            self._server = server = Server(listener, self._site)
            self.url = ports.url_of(listener)
            self._tell()
            server.start()
        except Exception:
            _logger.exception("The endpoints could not be started; the program goes on without them")

    def _tell(self) -> None:
        """Say where we listen: on every resource, and in the directory."""
        resource = Resource({ENDPOINT_URL: self.url})
        known: dict[str, Any] = {}
        for provider in (get_meter_provider(), get_tracer_provider(), get_logger_provider()):
            update = getattr(provider, "_update_resource", None)
            if update is not None:
                update(resource)
                known = known or dict(_resource_of(provider).attributes)
        entry = own_entry(
            self.url,
            service=str(known.get(SERVICE_NAME, "")),
            instance=str(known.get(SERVICE_INSTANCE_ID, "")),
            needs_token=bool(self._config.http_token),
        )
        try:
            self._directory.announce(entry)
        except OSError as error:
            _logger.debug("%r: this process is not announced there: %s", self._directory, error)

    def _pause(self) -> None:
        # CPython 3.12 and later warn a process that forks with threads: not because of ours. Where there are
        # others it does so anyway, and older ones never do.
        if self._server is not None and sys.version_info >= (3, 12) and not _has_other_threads():
            self._server.pause(_PAUSE_S)

    def _resume_soon(self) -> None:
        if self._server is None or self._server.is_running:
            return
        # CPython counts the threads after a fork, to warn of them, and from 3.14 on after this.
        try:
            asyncio.get_running_loop().call_soon_threadsafe(self._resume)
        except RuntimeError:
            self._resume()

    def _resume(self) -> None:
        if self._server is not None and self._undo:
            try:
                self._server.start()
            except RuntimeError:  # the interpreter has no thread to give any more
                pass

    def _begin_in_child(self) -> None:
        server = self._server
        self._begin()
        if server is not None:
            server.close()
        self._metrics.begin()
        self._is_waiting = True
        late_threads.add(self)

    def _end(self) -> None:
        server, self._server = self._server, None
        self._is_waiting = False
        if server is not None:
            self._directory.withdraw(os.getpid())
            server.stop()


def _has_other_threads() -> bool:
    """Whether this process has threads that are neither ours nor the one that asks."""
    try:
        there = set(map(int, os.listdir("/proc/self/task")))
    except OSError:
        return threading.active_count() > 1
    return bool(there - quiet_thread.native_ids - {threading.get_native_id()})


def _resource_of(provider: Any) -> Resource:
    resource = getattr(provider, "resource", None)
    return resource if isinstance(resource, Resource) else provider._sdk_config.resource
