"""Every setting of ours, once: its variable, how it is read, its default, its unit and what it does.

`Config` is read at the door, from a mapping, and handed in; nothing else in the package looks at
`OTEL_PYTHON_CONCURRENCY_*`. A value that cannot be read never stops the program: one warning names the
variable, the value and the default that stands.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypedDict

PREFIX = "OTEL_PYTHON_CONCURRENCY_"
UPSTREAM_TO_KEEP = ("asyncio", "threading", "exceptions", "fastapi")  # what ours may stand in for
SPANS = ("none", "lazy", "all")
SYNC_WAITS = ("none", "types", "names")
MAX_SECONDS = 3_600
MAX_SLOTS = 100_000  # a table row costs some 2 kB: beyond this a typing slip would eat the memory

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")
_NOTHING: Mapping[str, str] = MappingProxyType({})

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, token
_logger = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()  # several parts read the same environment: one warning is enough


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as the environment, the command line and a configuration file know it.

    Attributes:
        option: Field of `Config`, keyword of `otel_concurrency.instrument()`, option of an instrumentor.
        read: Turns the text or the typed value into the field; raises `ValueError` or `TypeError`.
        default: The value that stands when nothing readable is given.
        unit: What a value may be, in words.
        meaning: What it does, in a sentence.
    """

    option: str
    read: Callable[[object], object]
    default: object
    unit: str
    meaning: str

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return PREFIX + self.option.upper()

    @property
    def shown_default(self) -> str:
        """The default as one would write it in the environment; `empty` for an empty list."""
        if isinstance(self.default, frozenset):
            return ",".join(sorted(self.default)) or "empty"
        if self.default == "":
            return "empty"
        return str(self.default).lower()


def read_bool(value: object) -> bool:
    """Read true/false, 1/0, yes/no or on/off, in any case."""
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"not one of {'/'.join(_TRUE + _FALSE)}")


def read_slots(value: object) -> int:
    """Read how many rows a table may have: a whole number from 1 to `MAX_SLOTS`."""
    if isinstance(value, (bool, float)):  # int() would take these, and round in silence
        raise TypeError("not a whole number")
    slots = int(str(value))
    if not 1 <= slots <= MAX_SLOTS:
        raise ValueError(f"not between 1 and {MAX_SLOTS}")
    return slots


def read_seconds(value: object) -> float:
    """Read a time in seconds, from 0 to `MAX_SECONDS`, fractions allowed."""
    if isinstance(value, bool):
        raise TypeError("not a number")
    seconds = float(str(value))
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"not between 0 and {MAX_SECONDS}")
    return seconds


def read_port(value: object) -> int | None:
    """Read a port; `0` is any that is free, and `none` is no port at all."""
    if isinstance(value, (bool, float)):
        raise TypeError("not a port")
    word = str(value).strip().lower()
    if word in ("none", "off", "false"):
        return None
    if not word.isdecimal() or not 0 <= int(word) <= 65_535:
        raise ValueError("not between 0 and 65535")
    return int(word)


def read_text(value: object) -> str:
    """Read any text."""
    return str(value).strip()


def read_header_name(value: object) -> str:
    """Read the name of a header; case does not matter in it."""
    name = str(value).strip().lower()
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("not the name of a header")
    return name


def read_log_target(value: object) -> str:
    """Read `stdout`, `stderr` or the path of a file; `none` is nowhere."""
    target = str(value).strip()
    if target.lower() in ("stdout", "stderr", "none", *_FALSE):
        return "none" if target.lower() in _FALSE else target.lower()
    if target.lower() in _TRUE or "\0" in target:
        raise ValueError("neither stdout nor stderr nor the path of a file")
    return target


def read_upstream_names(value: object) -> frozenset[str]:
    """Read a comma list (or a list) of upstream instrumentors that ours may stand in for."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise TypeError("not a list of names")
    names = frozenset(str(item).strip().lower() for item in items) - {""}
    if not names.issubset(UPSTREAM_TO_KEEP):
        raise ValueError(f"known are {', '.join(UPSTREAM_TO_KEEP)}")
    return names


def read_spans(value: object) -> str:
    """Read one of `SPANS`, in any case."""
    return _one_of(SPANS, value)


def read_sync_waits(value: object) -> str:
    """Read one of `SYNC_WAITS`, in any case."""
    return _one_of(SYNC_WAITS, value)


def _one_of(words: tuple[str, ...], value: object) -> str:
    word = str(value).strip().lower()
    if word not in words:
        raise ValueError(f"known are {', '.join(words)}")
    return word


def read_globs(value: object) -> frozenset[str]:
    """Read a comma list (or a list) of globs, as `fnmatch` knows them."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise TypeError("not a list of globs")
    globs = frozenset(str(item).strip() for item in items) - {""}
    for glob in sorted(globs):
        if not _is_closed(glob):
            raise ValueError(f"nothing closes a [ in {glob}")
    return globs


def _is_closed(glob: str) -> bool:
    """Whether each [ has its ]: `fnmatch` takes one without for itself, and no function's name has one."""
    opened = glob.find("[")
    while opened >= 0:
        first = opened + (2 if glob.startswith("[!", opened) else 1)  # belongs to the class, be it a ]
        closed = glob.find("]", first + 1)
        if closed < 0:
            return False
        opened = glob.find("[", closed)
    return True


def _setting(
    default: object, read: Callable[[object], object], unit: str, meaning: str, *, is_secret: bool = False
) -> Any:
    return field(
        default=default, repr=not is_secret, metadata={"read": read, "unit": unit, "meaning": meaning}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the settings say, read once. A new setting is a new field here, and nothing else."""

    enabled: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: nothing of ours starts; the process behaves as under `opentelemetry-distro`.",
    )
    tasks: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: the tasks of asyncio and trio are left alone, and there are no task metrics.",
    )
    task_spans: str = _setting(
        "lazy",
        read_spans,
        "none, lazy or all",
        "Which asyncio tasks inside a recorded span get a span: those that tell something, or all, or none.",
    )
    task_span_threshold: float = _setting(
        0.1,
        read_seconds,
        "seconds",
        "How long a task, or an item of a process pool, must take to get a span where nothing else tells for "
        "it.",
    )
    task_span_include: frozenset[str] = _setting(
        frozenset({"*"}),
        read_globs,
        "comma list of globs",
        "Coroutine functions, `module.qualname`, whose tasks may get spans.",
    )
    task_span_exclude: frozenset[str] = _setting(
        frozenset(),
        read_globs,
        "comma list of globs",
        "Coroutine functions, `module.qualname`, whose tasks get none.",
    )
    detach_after: float = _setting(
        30.0,
        read_seconds,
        "seconds",
        "How long a task may outlive the request it was created in before it goes on in a trace of its own; "
        "`0`: as long as it wants.",
    )
    request_times: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: a request's span does not say how long its tasks were busy and what they waited for.",
    )
    sync_waits: str = _setting(
        "types",
        read_sync_waits,
        "none, types or names",
        "What is told of waiting for asyncio's locks and queues: by type; or also where each was made, and "
        "how long locks are held.",
    )
    queue_links: bool = _setting(
        False,
        read_bool,
        "true or false",
        "`true`: who takes an item out of a queue gets a link to the span in which it was put in.",
    )
    event_loops: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: event loops are not timed, and there are no event loop metrics.",
    )
    process_pools: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: process pools are left alone: no trace crosses them, and there are no metrics of them.",
    )
    process_spans: str = _setting(
        "lazy",
        read_spans,
        "none, lazy or all",
        "Which work items of process pools get a span in the worker process: those that tell something, or "
        "all, or none.",
    )
    process_metrics: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: no metrics of this process and its threads.",
    )
    runtime_metrics: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: no metrics of garbage collection, of the global interpreter lock and of CPU throttling.",
    )
    gc_freeze: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: garbage collections also go through what is there before the program starts. Only "
        "`opentelemetry-instrument` spares them that.",
    )
    stall_threshold: float = _setting(
        0.1,
        read_seconds,
        "seconds",
        "How long an event loop may be held before that is a stall; `0`: nobody watches. "
        "Without the C extension nobody does unless it is set.",
    )
    diagnosis: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: nobody judges what the numbers mean, and there are no findings. Without "
        "`OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD` nobody does either.",
    )
    diagnosis_window: float = _setting(
        10.0,
        read_seconds,
        "seconds",
        "How long the diagnosis looks before it judges: what is so for three windows is told.",
    )
    failures: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: what nobody handles is not reported: uncaught exceptions, failed tasks nobody looks at.",
    )
    threads: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: threads and thread pools are left alone, and there are no thread pool metrics.",
    )
    connection_pools: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: the connection pools of databases are left alone, and there are no metrics of them.",
    )
    celery: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: the tasks of Celery are not counted, and their messages get no time of being sent.",
    )
    native: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: the pure Python probes serve even where the C extension could.",
    )
    max_coroutines: int = _setting(
        200,
        read_slots,
        "coroutine functions",
        "How many coroutine functions the task metrics tell apart; further ones count as `_other`.",
    )
    max_error_types: int = _setting(
        50,
        read_slots,
        "exception classes",
        "How many values `error.type` may take in our metrics; further ones count as `_other`.",
    )
    keep_upstream: frozenset[str] = _setting(
        frozenset(),
        read_upstream_names,
        f"comma list of {', '.join(UPSTREAM_TO_KEEP)}",
        "Upstream instrumentors that load although ours would stand in for them.",
    )
    http_inner_spans: bool = _setting(
        False,
        read_bool,
        "true or false",
        "`true`: a FastAPI request also gets spans for its operations, or for each ASGI message.",
    )
    http_clients: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: the connection pools of aiohttp's and httpx's clients are left alone, and not measured.",
    )
    http_servers: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: nobody knows which requests aiohttp's server, Starlette and FastAPI have open.",
    )
    subprocesses: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: programs that are started get no `TRACEPARENT`, `TRACESTATE` and `BAGGAGE` from us.",
    )
    inherit_trace: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: a process starts outside of the trace that its environment names in `TRACEPARENT`.",
    )
    log_identity: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: exported log records carry no thread name, task name and process id.",
    )
    span_identity: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: spans do not say which thread and which task they started in.",
    )
    request_id: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: requests get no id of ours, and their header is not looked at.",
    )
    request_id_header: str = _setting(
        "x-request-id",
        read_header_name,
        "name of a header",
        "Where a request's id is taken from; a request without gets a new one.",
    )
    request_id_baggage: bool = _setting(
        False,
        read_bool,
        "true or false",
        "`true`: a request's id goes along in outgoing baggage, as `request_id`, and is taken from incoming.",
    )
    log_json: str = _setting(
        "none",
        read_log_target,
        "stdout, stderr, a path or none",
        "Where log records are written as lines of JSON, from a thread of its own.",
    )
    log_queue: int = _setting(
        10_000,
        read_slots,
        "log records",
        "How many may wait to be written as JSON; further ones are dropped, and counted.",
    )
    exit_timeout: float = _setting(
        3.0,
        read_seconds,
        "seconds",
        "How long the end of the process may wait for the last spans, log records and metrics, all together.",
    )
    exit_signals: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: SIGTERM ends the process as it does without us, with whatever was not exported yet.",
    )
    http_port: int | None = _setting(
        None,
        read_port,
        "port, 0 to 65535, or none",
        "Where the endpoints answer; further processes of the program take the next free ports. `none`: no "
        "endpoints; `0`: any port.",
    )
    http_host: str = _setting(
        "127.0.0.1",
        read_text,
        "name or address",
        "Which of its addresses the machine answers at. Others than loopback ones want a token.",
    )
    http_token: str = _setting(
        "",
        read_text,
        "text",
        "What callers of the endpoints have to know: `Authorization: Bearer ...`. Empty: nothing.",
        is_secret=True,
    )
    http_health_limit: float = _setting(
        10.0,
        read_seconds,
        "seconds",
        "How long an event loop may be blocked before `/health` calls the program dead.",
    )
    http_ready_limit: float = _setting(
        1.0,
        read_seconds,
        "seconds",
        "How late an event loop may be, and how long a connection pool may keep others waiting, before "
        "`/ready` asks for no more work.",
    )
    http_metrics: bool = _setting(
        True,
        read_bool,
        "true or false",
        "`false`: the endpoints have no `/metrics`, for which the SDK would aggregate what it measures once "
        "more.",
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Read the variables; an unset or empty one leaves the default.

        Args:
            environ: `os.environ`, or any mapping of text to text.
        """
        return cls.from_options(_NOTHING, environ)

    @classmethod
    def from_options(cls, options: Mapping[str, object], environ: Mapping[str, str] = _NOTHING) -> Config:
        """Read typed options first, the variables where an option is absent or None.

        Args:
            options: Values by field name, from a configuration file or from code.
            environ: Variables that serve where `options` says nothing.

        Raises:
            TypeError: An option has a name that no setting has.
        """
        if unknown := set(options) - {setting.option for setting in SETTINGS}:
            raise TypeError(f"{', '.join(sorted(unknown))}: otel-concurrency has no such setting")
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            name, value = setting.option, options.get(setting.option)
            if value is None:
                name, value = setting.variable, environ.get(setting.variable, "").strip() or None
            if value is not None:
                values[setting.option] = _read(setting, name, value)
        return cls(**values)


SETTINGS = tuple(
    Setting(f.name, f.metadata["read"], f.default, f.metadata["unit"], f.metadata["meaning"])
    for f in fields(Config)
)


class Options(TypedDict, total=False):
    """Keywords of `otel_concurrency.instrument()`: the fields of `Config`, as code would write them."""

    enabled: bool
    tasks: bool
    task_spans: str
    task_span_threshold: float
    task_span_include: list[str] | tuple[str, ...] | set[str] | frozenset[str]
    task_span_exclude: list[str] | tuple[str, ...] | set[str] | frozenset[str]
    detach_after: float
    request_times: bool
    sync_waits: str
    queue_links: bool
    event_loops: bool
    process_pools: bool
    process_spans: str
    process_metrics: bool
    runtime_metrics: bool
    gc_freeze: bool
    stall_threshold: float
    diagnosis: bool
    diagnosis_window: float
    failures: bool
    threads: bool
    connection_pools: bool
    celery: bool
    native: bool
    max_coroutines: int
    max_error_types: int
    keep_upstream: list[str] | tuple[str, ...] | set[str] | frozenset[str]
    http_inner_spans: bool
    http_clients: bool
    http_servers: bool
    subprocesses: bool
    inherit_trace: bool
    log_identity: bool
    span_identity: bool
    request_id: bool
    request_id_header: str
    request_id_baggage: bool
    log_json: str
    log_queue: int
    exit_timeout: float
    exit_signals: bool
    http_port: int | None
    http_host: str
    http_token: str
    http_health_limit: float
    http_ready_limit: float
    http_metrics: bool


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Options of `concurrency_asyncio` in a configuration file; None leaves the variable or the default."""

    native: bool | None = None
    max_coroutines: int | None = None
    max_error_types: int | None = None
    task_spans: str | None = None
    task_span_threshold: float | None = None
    task_span_include: list[str] | None = None
    task_span_exclude: list[str] | None = None
    detach_after: float | None = None
    request_times: bool | None = None
    sync_waits: str | None = None


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """Options of `concurrency_queues` in a configuration file; None leaves the variable or the default."""

    sync_waits: str | None = None
    queue_links: bool | None = None


@dataclass(frozen=True, slots=True)
class EventLoopOptions:
    """Options of `concurrency_event_loops` in a configuration file; None leaves it to the variable."""

    native: bool | None = None
    max_error_types: int | None = None


@dataclass(frozen=True, slots=True)
class StallOptions:
    """Options of `concurrency_stalls` in a configuration file; None leaves the variable or the default."""

    native: bool | None = None
    stall_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class DiagnosisOptions:
    """Options of `concurrency_diagnosis` in a configuration file; None leaves it to the variable."""

    diagnosis_window: float | None = None


@dataclass(frozen=True, slots=True)
class FailureOptions:
    """Options of `concurrency_failures` in a configuration file; None leaves the variable or the default."""

    max_coroutines: int | None = None
    max_error_types: int | None = None


@dataclass(frozen=True, slots=True)
class ThreadOptions:
    """Options of `concurrency_threading` in a configuration file; None leaves the variable or the default."""

    native: bool | None = None
    max_error_types: int | None = None


@dataclass(frozen=True, slots=True)
class CeleryOptions:
    """Options of `concurrency_celery` in a configuration file; None leaves the variable or the default."""

    max_error_types: int | None = None


@dataclass(frozen=True, slots=True)
class FastAPIOptions:
    """Options of `concurrency_fastapi` in a configuration file; None leaves the variable or the default."""

    http_inner_spans: bool | None = None


@dataclass(frozen=True, slots=True)
class ProcessPoolOptions:
    """Options of `concurrency_process_pools` in a configuration file; None leaves it to the variable."""

    process_spans: str | None = None
    task_span_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class ChildProcessOptions:
    """Options of `concurrency_processes` in a configuration file; None leaves the variable or the default."""

    subprocesses: bool | None = None
    inherit_trace: bool | None = None


def _read(setting: Setting, name: str, value: object) -> object:
    try:
        return setting.read(value)
    except (ValueError, TypeError) as reason:
        if (name, str(value)) not in _told:
            _told.add((name, str(value)))
            _logger.warning(
                "%s=%.80r is not understood (%.80s); the default, %s, stands",
                name,
                value,
                reason,
                setting.shown_default,
            )
        return setting.default
