"""What is held against each other: bare Python, ours native, ours pure, upstream's instrumentor.

`idle` is bare Python with one idle thread: it tells what a test thinks of any further thread. `imported` is
bare Python that has imported what any distro imports: it tells what a test thinks of that.

A side is a command prefix and a set of variables; `Side.check` runs a small program on it and refuses a
side that is not what it claims to be, because two bare runs would agree about everything.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

HERE = Path(__file__).resolve().parent
SANITY_TASKS, SANITY_ITEMS = 7, 5  # as many as sanity.py creates
SANITY_POOL = "pool sanity"
SANITY_TIMEOUT_S = 120
SIDES = ("bare", "native", "pure", "upstream")
IDLE, IMPORTED = "idle", "imported"
# Upstream's that ours neither needs nor lets load, not ours to answer for; and those of libraries that no
# test of CPython's uses: importing them takes every instrumented child a second.
NOT_OURS = "exceptions,system_metrics,fastapi,concurrency_fastapi,aiohttp-client,celery"
COLLECTION_INTERVAL_MS = 250
# What `sanity.py` has to find of ours.
HOOKS = (
    "tasks",
    "waits",
    "event loops",
    "loop exceptions",
    "failures",
    "threads",
    "thread pools",
    "futures",
    "process pools",
    "multiprocessing pools",
    "processes",
    "subprocesses",
    "exit",
)

_METADATA = "Metadata-Version: 2.1\nName: otel-concurrency-conformance-sink\nVersion: 1\n"
_ENTRY_POINTS = """[opentelemetry_metrics_exporter]
conformance_sink = conformance_sink:SinkExporter
conformance_reader = conformance_sink:SinkReader
"""
_UNWATCHED = {"OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD": "0"}
_THREADLESS = {"OTEL_METRICS_EXPORTER": "conformance_reader"}
# It counts the threads of the programs that it looks into: a periodic reader has one, and who watches loops.
COUNTS_THREADS = ("test.test_external_inspection",)

# A daemon of every interpreter, gone at its exit as the metric reader's is; a fork does not renew it.
_AT_START = {
    IDLE: """import atexit, threading
is_over = threading.Event()
thread = threading.Thread(target=is_over.wait, name="idle", daemon=True)
thread.start()
atexit.register(thread.join)
atexit.register(is_over.set)
""",
    # What OpenTelemetry's loader and SDK import themselves, and tests took note of.
    IMPORTED: "import asyncio, concurrent.futures, ctypes\n",
}


class SideError(Exception):
    """A side is not what it claims to be; says what was found."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a small program showed about a side.

    Attributes:
        summary: A line that says what was found.
        noise: What it printed on standard error from start to exit; a healthy process prints nothing.
    """

    summary: str
    noise: str


@dataclass(frozen=True, slots=True)
class Side:
    """One way to run a test module.

    Attributes:
        name: One of `SIDES`.
        python: The interpreter under test.
        prefix: What stands before the interpreter on the command line.
        variables: Environment variables of this side alone.
    """

    name: str
    python: str
    prefix: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def without_thread(self) -> Side:
        """The same with a metric reader that has no thread."""
        return replace(self, variables={**self.variables, **_THREADLESS})

    def command(self, *words: str, flags: Sequence[str] = ()) -> list[str]:
        """Return the command line that runs a script on this side."""
        return [*self.prefix, self.python, *flags, *words]

    @property
    def is_ours(self) -> bool:
        """Whether our task hook has to be active."""
        return self.name in {"native", "pure"}

    def environment(self, environ: Mapping[str, str], module: str = "") -> dict[str, str]:
        """Return the caller's environment without PYTHON* and OTEL_*, with this side's for a test module."""
        kept = {name: value for name, value in environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
        own = dict(self.variables)
        if module in COUNTS_THREADS and "OTEL_METRICS_EXPORTER" in own:
            own |= {**_THREADLESS, **_UNWATCHED}
        return {**kept, **own}

    def check(self, environ: Mapping[str, str], module: str = "") -> Proof:
        """Prove that this side is what it claims to be.

        Args:
            environ: The caller's environment.
            module: The test module whose environment to look into; the usual one for "".

        Raises:
            SideError: It is not; the tests would compare nothing.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "created.json")
            variables = {**self.environment(environ, module), "CONFORMANCE_SINK_REPORT": str(report)}
            done = subprocess.run(
                self.command(str(HERE / "sanity.py")),
                capture_output=True,
                text=True,
                timeout=SANITY_TIMEOUT_S,
                cwd=folder,
                env=variables,
                check=False,
            )
            created = json.loads(report.read_text()) if report.exists() else {}
        try:
            found = json.loads(done.stdout)
        except ValueError:
            raise SideError(
                f"{self.name}: a small program did not run (exit {done.returncode}): {done.stderr[-2000:]}"
            ) from None
        if problem := self._problem(found, created):
            raise SideError(f"{self.name}: {problem}; found {found}, task counters {created or 'none'}")
        if found["probe_way"] is None:
            return Proof(f"{self.name}: create_task is asyncio's own", done.stderr)
        items = created.pop(SANITY_POOL, 0)
        summary = (
            f"{self.name}: {found['probe_way']} probe, {sum(created.values()):g} tasks counted, "
            f"{items:g} work items; hooks on {', '.join(found['hooks'])}"
        )
        return Proof(summary, done.stderr)

    def _problem(self, found: Mapping[str, object], created: Mapping[str, float]) -> str | None:
        """Say what contradicts this side's name, None if nothing does."""
        patched = found["create_task_is_patched"]
        release = tuple(int(part) for part in str(found["release"]).split(".")[:2])
        counted = sum(value for name, value in created.items() if name.endswith("sanity_child"))
        if not self.is_ours:
            if patched or created:
                return "our task hook is active where it must not be"
            if found["hooks"]:
                return f"hooks of ours are active where they must not be: {found['hooks']}"
            if self.name == "upstream" and not found["asyncio_module_is_patched"]:
                return "upstream's asyncio instrumentor is not active"
            return None
        if not patched:
            return "our task hook is not active: asyncio.BaseEventLoop.create_task is asyncio's own"
        if found["asyncio_module_is_patched"]:
            return "upstream's asyncio instrumentor is active beside ours"
        if absent := [hook for hook in HOOKS if hook not in cast("Sequence[str]", found["hooks"])]:
            return f"hooks of ours are not active: {', '.join(absent)}"
        expected = "pure" if self.name == "pure" else "proxy" if release < (3, 14) else "watcher"
        if found["probe_way"] != expected:
            return f"tasks are followed by the {found['probe_way']} probe, not by the {expected} one"
        if counted != SANITY_TASKS:
            return f"{SANITY_TASKS} tasks were created, our probe counted {counted:g}"
        items = created.get(SANITY_POOL, 0)
        if "thread pools" in HOOKS and items != SANITY_ITEMS:
            return f"{SANITY_ITEMS} work items were done in a pool, our probe counted {items:g}"
        return None


def make_sides(python: str, names: Sequence[str], folder: Path, extra_path: str | None = None) -> list[Side]:
    """Build sides for an interpreter; `folder` receives the sink they export to.

    Raises:
        SideError: The interpreter's environment has no `opentelemetry-instrument`.
    """
    instrument = Path(python).with_name("opentelemetry-instrument")
    if not {*names} <= {"bare", *_AT_START} and not os.access(instrument, os.X_OK):
        raise SideError(
            f"{instrument} is missing: install the project beside {python} (pip install -e '.[test]')"
        )
    path = os.pathsep.join(filter(None, (str(_write_sink(folder)), extra_path)))
    common = {
        "PYTHONPATH": path,
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "conformance_sink",
        "OTEL_METRIC_EXPORT_INTERVAL": str(COLLECTION_INTERVAL_MS),
    }
    variables: dict[str, dict[str, str]] = {
        "bare": {},
        "native": {
            **common,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": NOT_OURS,
            "OTEL_PYTHON_CONCURRENCY_NATIVE": "true",
        },
        "pure": {
            **common,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": NOT_OURS,
            "OTEL_PYTHON_CONCURRENCY_NATIVE": "false",
        },
        "upstream": {**common, "OTEL_PYTHON_CONCURRENCY_ENABLED": "false"},
        **{name: {"PYTHONPATH": str(_write_start(folder, name))} for name in _AT_START},
    }
    prefixes: dict[str, tuple[str, ...]] = {name: (str(instrument),) for name in SIDES}
    prefixes |= {"bare": (), **dict.fromkeys(_AT_START, ())}
    return [Side(name, python, prefixes[name], variables[name]) for name in names]


def _write_start(folder: Path, name: str) -> Path:
    """Put what every process of a side begins with into a folder that PYTHONPATH can name."""
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(_AT_START[name])
    return place


def _write_sink(folder: Path) -> Path:
    """Put the sink and the metadata that announces it into a folder that PYTHONPATH can name."""
    place = folder / "sink"
    metadata = place / "otel_concurrency_conformance_sink-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(_METADATA)
    (metadata / "entry_points.txt").write_text(_ENTRY_POINTS)
    shutil.copyfile(HERE / "sink.py", place / "conformance_sink.py")
    return place
