"""What `opentelemetry-instrument` finds: our distro and our configurator.

The loader (`opentelemetry.instrumentation.auto_instrumentation._load`) calls `ConcurrencyDistro.configure`,
then `ConcurrencyConfigurator.configure`, then `ConcurrencyDistro.load_instrumentor` for each instrumentor
that the user has not disabled, and `after_instrumentors` in the end. An exception out of one instrumentor
would end the start of all that follow.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import EntryPoint
from typing import Any

from opentelemetry.distro import OpenTelemetryDistro
from opentelemetry.instrumentation.auto_instrumentation import initialize
from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.distro import BaseDistro
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_DISABLED_INSTRUMENTATIONS
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from opentelemetry.sdk.environment_variables import OTEL_CONFIG_FILE, OTEL_SDK_DISABLED
from opentelemetry.util._importlib_metadata import entry_points  # the loader's, read once

from otel_concurrency.config import Config
from otel_concurrency.defaults import default_variables
from otel_concurrency.hooks.interpreters import is_worker_interpreter
from otel_concurrency.hooks.logs.export_failures import ExportFailures
from otel_concurrency.hooks.logs.log_flush import LogFlushHook
from otel_concurrency.hooks.logs.log_handler import LogHandlerHook
from otel_concurrency.hooks.logs.queued_logs import QueuedLogHook
from otel_concurrency.hooks.processes.forkserver import ForkserverHook
from otel_concurrency.hooks.processes.helper_processes import is_helper_process
from otel_concurrency.hooks.runtime.frozen_heap import FrozenHeap
from otel_concurrency.hooks.runtime.system_metrics import SystemMetricsHook
from otel_concurrency.misspelled import known_options, warn_of_variables
from otel_concurrency.signals import log_json, logs, providers, request_id, shutdown
from otel_concurrency.signals.ending import Ending

STANDS_IN = {  # upstream's instrumentor: ours, which loads in its place
    "asyncio": "concurrency_asyncio",
    "threading": "concurrency_threading",
    "exceptions": "concurrency_failures",
    "fastapi": "concurrency_fastapi",
}
_SWITCHES = {  # instrumentor of ours: the setting that turns it off
    "concurrency_asyncio": "tasks",
    "concurrency_connection_pools": "connection_pools",
    "concurrency_diagnosis": "diagnosis",
    "concurrency_event_loops": "event_loops",
    "concurrency_failures": "failures",
    "concurrency_http_clients": "http_clients",
    "concurrency_http_servers": "http_servers",
    "concurrency_process_pools": "process_pools",
    "concurrency_process": "process_metrics",
    "concurrency_runtime": "runtime_metrics",
    "concurrency_stalls": "stall_threshold",
    "concurrency_threading": "threads",
    "concurrency_anyio": "threads",
    "concurrency_celery": "celery",
}
_GROUP = "opentelemetry_instrumentor"
_UPPER_GROUP = "otel_concurrency"  # what the distro starts, and does not know: it is built on top of it
_OURS = "otel_concurrency."
_OUR_NAMES = "concurrency_"  # what our instrumentors' entry points begin with
_UPSTREAM = "opentelemetry.instrumentation."
_LOADER = "opentelemetry.instrumentation.auto_instrumentation._load"

_logger = logging.getLogger(__name__)


class ConcurrencyDistro(BaseDistro):
    """Fills in defaults, and loads each instrumentor so that its trouble stays its own.

    One object a process, as the base class has it.

    Attributes:
        options: Settings that the program gave to `otel_concurrency.instrument()`.
        started: Whether the loader, or the program, has started us.
        loaded: Instrumentors that are active through us, by entry-point name, in the order they came.
    """

    options: Mapping[str, object] = {}
    started = False

    def __init__(self) -> None:
        if "loaded" not in vars(self):  # `ConcurrencyDistro()` hands out the same object again and again
            self._begin()

    def _begin(self) -> None:
        self.loaded: dict[str, Any] = {}
        self._config: Config | None = None
        self._set_variables: dict[str, str] = {}
        self._is_turned_off = False
        self._turned_off: set[str] = set()
        self._tried: set[str] = set()
        self._export_failures = ExportFailures()
        self._log_flush = LogFlushHook()
        self._log_handler = LogHandlerHook()
        self._queued_logs = QueuedLogHook(logs.here, logs.told_by)
        self._system_metrics = SystemMetricsHook()
        self._frozen_heap = FrozenHeap()
        self._loader_warning = _LoaderWarning()
        self._leave_request_ids: Callable[[], None] | None = None
        self._stop_writing: Callable[[], None] | None = None
        self._ending: Ending | None = None
        self._stop_endpoints: Callable[[], None] | None = None
        self._forkserver = ForkserverHook(self._start_anew)

    @property
    def config(self) -> Config:
        """The settings, read when first needed."""
        if self._config is None:
            self._config = Config.from_options(self.options, os.environ)
        return self._config

    @property
    def is_active(self) -> bool:
        """Whether anything of ours may start: neither we nor the SDK are switched off."""
        sdk_is_disabled = os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true"
        return (
            self.config.enabled
            and not sdk_is_disabled
            and not self._is_turned_off
            and not is_helper_process()  # it never runs the program: nothing of ours, nor of the SDK
            and not is_worker_interpreter()  # the same: the process has us already
        )

    def _configure(self, **kwargs: Any) -> None:
        self.started = True
        self._loader_warning.install()
        if not self.config.enabled:
            OpenTelemetryDistro().configure(**kwargs)
        elif is_helper_process():
            self._forkserver.install()
        elif self.is_active:
            warn_of_variables(os.environ)
            self._export_failures.install()
            self._system_metrics.install()
            # A configuration file may refer to variables; what it finds there is the user's alone.
            if not os.environ.get(OTEL_CONFIG_FILE):
                self._set_variables = default_variables(os.environ)
                os.environ.update(self._set_variables)

    def _start_anew(self) -> None:
        """Start in a child of a forkserver, as the loader would in a process that starts there."""
        self._begin()
        initialize()

    def allows(self, name: str) -> bool:
        """Whether an instrumentor that a configuration file names may start."""
        if self.config.enabled:
            return self.is_active and self._is_switched_on(name)
        return not name.startswith(_OUR_NAMES)

    def turn_off(self, names: Iterable[str] | None = None) -> None:
        """Obey the configuration file: leave out these instrumentors; None leaves out everything."""
        if names is None:
            self._is_turned_off = True
        else:
            self._turned_off.update(names)

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Activate an instrumentor, unless it is switched off, active already, or ours stands in for it.

        Args:
            entry_point: One of the group `opentelemetry_instrumentor`.
            **kwargs: Passed on to `instrument()`.

        Raises:
            ImportError: The library is not there; the loader goes on.
            DependencyConflictError: The library has another version; the loader goes on.
        """
        self._loader_warning.remove()
        if not self.config.enabled:
            if not entry_point.value.startswith(_OURS):
                super().load_instrumentor(entry_point, **kwargs)
            return
        # With the SDK off, upstream's patches would pay for spans that nobody makes: none is applied.
        if self.is_active and not self._is_replaced(entry_point):
            self._load(entry_point, **kwargs)

    def take_request_ids(self) -> None:
        """See to it that each request has an id."""
        if self.config.request_id and self._leave_request_ids is None:
            self._leave_request_ids = request_id.install(
                self.config.request_id_header, in_baggage=self.config.request_id_baggage
            )

    def write_logs(self) -> None:
        """Write log records as JSON, where that is asked for."""
        if self.config.log_json != "none" and self._stop_writing is None:
            self._stop_writing = log_json.install(self.config.log_json, max_waiting=self.config.log_queue)

    def watch_ending(self) -> None:
        """See to it that what the process has recorded gets out when it ends."""
        if self._ending is None:
            self._ending = Ending(
                self.config.exit_timeout, on_signals=self.config.exit_signals, native=self.config.native
            )
            self._ending.install()

    def answer_requests(self) -> None:
        """Let the process be asked over HTTP, where that is wanted; else nothing of it is even imported."""
        if self.config.http_port is None or self._stop_endpoints is not None:
            return
        try:
            for entry_point in entry_points(group=_UPPER_GROUP, name="endpoints"):
                self._stop_endpoints = entry_point.load()(self.config)
        except Exception:
            _logger.exception("The endpoints failed and are left out; the others go on")

    def leave_to_program(self) -> None:
        """Hear that all is loaded, and that the program comes next."""
        if self.started and self.is_active and self.config.gc_freeze:
            self._frozen_heap.install()

    def stop(self) -> None:
        """Let go of all that was loaded, last first; providers and exporters stay, without ours.

        What was counted since the last export goes out before: nobody could ask for it afterwards.
        """
        if self.loaded and self.is_active:
            try:
                shutdown.flush(self.config.exit_timeout)
            except Exception:
                _logger.exception("The last numbers could not be exported")
        if self._stop_endpoints is not None:
            self._stop_endpoints()
        for name, instrumentor in reversed(self.loaded.items()):
            try:
                if instrumentor.is_instrumented_by_opentelemetry:
                    instrumentor.uninstrument()
            except Exception:
                _logger.exception("Instrumentor %s could not be removed", name)
        providers.leave()
        self._export_failures.remove()
        self._log_flush.remove()
        self._queued_logs.remove()
        self._log_handler.remove(put_back=False)  # its instrumentor has let go of it
        self._system_metrics.remove()
        self._frozen_heap.remove()
        self._loader_warning.remove()
        if self._leave_request_ids is not None:
            self._leave_request_ids()
        if self._stop_writing is not None:
            self._stop_writing()
        if self._ending is not None:
            self._ending.remove()
        for variable, value in self._set_variables.items():
            if os.environ.get(variable) == value:
                del os.environ[variable]
        self.started = False
        self._begin()

    def _is_replaced(self, entry_point: EntryPoint) -> bool:
        """Whether ours does this instrumentor's work; loads ours if its turn has not come yet."""
        name = entry_point.name
        stand_in = STANDS_IN.get(name)
        if (
            stand_in is None
            or name in self.config.keep_upstream
            or not entry_point.value.startswith(_UPSTREAM)
        ):
            return False
        if stand_in not in _disabled_by_user():
            for ours in entry_points(group=_GROUP, name=stand_in):
                try:
                    self._load(ours, skip_dep_check=True)
                except (ImportError, DependencyConflictError):
                    _logger.debug("%s cannot stand in for %s", stand_in, name, exc_info=True)
        return stand_in in self.loaded

    def _load(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        name = entry_point.name
        if entry_point.value in self._tried or not self._is_switched_on(name):
            return
        self._tried.add(entry_point.value)
        try:
            instrumentor = entry_point.load()()
            # A configuration file activates instrumentors before the loader comes to them.
            if not instrumentor.is_instrumented_by_opentelemetry:
                instrumentor.instrument(**kwargs, **self._options_of(entry_point, instrumentor))
        except (ImportError, DependencyConflictError):
            raise
        except Exception:
            _logger.exception("Instrumentor %s failed and is left out; the others go on", name)
        else:
            self.loaded[name] = instrumentor
            if name == "logging":
                self._log_flush.install()
                self._queued_logs.install()
                self._log_handler.install(getattr(instrumentor, "_logging_handler", None))

    def _is_switched_on(self, name: str) -> bool:
        switch = _SWITCHES.get(name)
        return name not in self._turned_off and (switch is None or bool(getattr(self.config, switch)))

    def _options_of(self, entry_point: EntryPoint, instrumentor: object) -> dict[str, object]:
        if entry_point.name == "fastapi" and not self.config.http_inner_spans:
            return {"exclude_spans": ["receive", "send"]}
        configuration = getattr(instrumentor, "configuration", None)
        if entry_point.value.startswith(_OURS) and is_dataclass(configuration):
            return {f.name: self.options[f.name] for f in fields(configuration) if f.name in self.options}
        return {}


class ConcurrencyConfigurator(_OTelSDKConfigurator):
    """Sets up the SDK as upstream's does, with identity on spans and log records, and our metric producer."""

    def _configure(self, **kwargs: Any) -> None:
        distro = ConcurrencyDistro()
        if distro.config.enabled and (is_helper_process() or is_worker_interpreter()):
            return
        if distro.is_active:
            providers.prepare()
        if path := os.environ.get(OTEL_CONFIG_FILE):
            self._configure_from_file(path, distro)
        elif not distro.is_active or not providers.are_set():
            super()._configure(**kwargs)  # type: ignore[no-untyped-call]
        if distro.is_active:
            providers.join(log_identity=distro.config.log_identity, span_identity=distro.config.span_identity)
            distro.take_request_ids()
            distro.write_logs()
            distro.watch_ending()
            distro.answer_requests()

    def _configure_from_file(self, path: str, distro: ConcurrencyDistro) -> None:
        """Do as upstream does, and see to it that what is off, in the file or beside it, stays off."""
        try:
            from opentelemetry.configuration import configure_sdk, load_config_file
        except ImportError:
            super()._configure()  # type: ignore[no-untyped-call]  # raises, and says what to install
            return
        model = load_config_file(path)
        if model.disabled:
            distro.turn_off()
        instrumentation = model.instrumentation_development
        if instrumentation is not None and instrumentation.python is not None:
            declared = instrumentation.python
            # Upstream's loader never learns of `enabled: false`, and would load them after all.
            distro.turn_off(name for name, options in declared.items() if options.get("enabled") is False)
            instrumentation.python = {
                name: _known_options(name, options)
                for name, options in declared.items()
                if distro.allows(name)
            }
        configure_sdk(model)


def after_instrumentors() -> None:
    """Be called by the loader when all instrumentors are loaded: the last thing before the program."""
    ConcurrencyDistro().leave_to_program()


class _LoaderWarning(logging.Filter):
    """Keeps back one record of the loader: that upstream's configurator was not loaded beside ours.

    `opentelemetry-distro` is always installed, so the record comes at every start and says only that all is
    well. It goes with the first record; what is said about any other configurator passes.
    """

    def install(self) -> None:
        logging.getLogger(_LOADER).addFilter(self)

    def remove(self) -> None:
        logging.getLogger(_LOADER).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        if str(record.msg).startswith("Configuration of %s not loaded") and arguments[:1] == (
            "configurator",
        ):
            self.remove()
            return False
        return True


def _known_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an instrumentor of ours cannot take: upstream would leave out the instrumentor."""
    for entry_point in entry_points(group=_GROUP, name=name):
        if entry_point.value.startswith(_OURS):
            try:
                configuration = getattr(entry_point.load(), "configuration", None)
            except Exception:  # told when it is to be started
                return options
            known = [f.name for f in fields(configuration)] if is_dataclass(configuration) else []
            return known_options(name, options, known)
    return options


def _disabled_by_user() -> set[str]:
    names = os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "")
    return {name.strip() for name in names.split(",")}
