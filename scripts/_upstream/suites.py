"""Which of upstream's tests are run, and what came of them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from _upstream.sources import UpstreamError

HERE = Path(__file__).resolve().parent
SUITE_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests of one source package.

    Attributes:
        name: What the table calls it.
        package: The distribution whose sources hold the tests.
        tests: Paths or node ids below its folder.
        plugin: A pytest plugin of this folder that the side with our distro loads.
        variables: Environment variables of the side with our distro.
        deliberate: Tests that fail with ours and are meant to, with the reason.
    """

    name: str
    package: str
    tests: tuple[str, ...]
    plugin: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    deliberate: Mapping[str, str] = field(default_factory=dict)


_EVENT_NAMES = (
    "it wants the exception's type or the loop's message as event name, which has file paths and object ids "
    "in it; ours are few: docs/failures.md"
)
_THREAD_HOOK = (
    "it calls threading.excepthook itself; ours leaves that alone, and sees what threads really fail with"
)
_EXCEPTION_TESTS = {
    "test_sys_excepthook_emits_log": _EVENT_NAMES,
    "test_threading_excepthook_emits_log": _THREAD_HOOK,
    "test_asyncio_unhandled_exception_emits_log": _EVENT_NAMES,
    "test_asyncio_unhandled_exception_called_with_kwarg_emits_log": _EVENT_NAMES,
    "test_asyncio_event_name_falls_back_or_coerces[None-ValueError]": _EVENT_NAMES,
    "test_asyncio_event_name_falls_back_or_coerces[42-42]": _EVENT_NAMES,
}

SUITES = (
    Suite(
        "the loader's contract",
        "opentelemetry-instrumentation",
        (
            "tests/test_distro.py",
            "tests/test_instrumentor.py",
            "tests/auto_instrumentation/test_load.py",
            "tests/auto_instrumentation/test_initialize.py",
            "tests/auto_instrumentation/test_run.py",
            "tests/auto_instrumentation/test_sitecustomize.py",
        ),
    ),
    Suite("the SDK's configurator", "opentelemetry-sdk", ("tests/test_configurator.py",)),
    Suite(
        "our configurator in its place",
        "opentelemetry-sdk",
        ("tests/test_configurator.py::TestConfigurator",),
        plugin="substitute_configurator",
    ),
    Suite(
        "ours in the place of threading",
        "opentelemetry-instrumentation-threading",
        ("tests/test_threading.py",),
        plugin="substitute_threading",
    ),
    Suite(
        "ours in the place of exceptions",
        "opentelemetry-instrumentation-exceptions",
        ("tests/test_exceptions.py",),
        plugin="substitute_exceptions",
        deliberate={f"tests.test_exceptions.{test}": why for test, why in _EXCEPTION_TESTS.items()},
    ),
)


@dataclass(frozen=True, slots=True)
class Results:
    """What came of a suite.

    Attributes:
        outcomes: Test to `pass`, `fail`, `error` or `skip`.
        details: Test to what pytest says about it.
    """

    outcomes: Mapping[str, str]
    details: Mapping[str, str]


def run_suite(suite: Suite, python: str, source: Path, *, is_ours: bool) -> Results:
    """Run a suite in an environment.

    Raises:
        UpstreamError: There is no result; two sides without one would look the same.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    variables = {**kept, "PYTHONDONTWRITEBYTECODE": "1"}
    words = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(source),
    ]
    if is_ours:
        variables.update(suite.variables)
        if suite.plugin:
            variables["PYTHONPATH"] = str(HERE)
            words += ["-p", suite.plugin]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        done = subprocess.run(
            [*words, f"--junitxml={report}", *suite.tests],
            cwd=source,
            env=variables,
            capture_output=True,
            text=True,
            timeout=SUITE_TIMEOUT_S,
            check=False,
        )
        if not report.exists():
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise UpstreamError(f"{python} could not run {suite.name} (exit code {done.returncode}): {said}")
        return read_report(report.read_text(encoding="utf-8"))


def read_report(text: str) -> Results:
    """Read a JUnit report; a test that both failed and broke its teardown has the worse of the two."""
    outcomes: dict[str, str] = {}
    details: dict[str, str] = {}
    words = {"skipped": "skip", "failure": "fail", "error": "error"}
    ranks = ["pass", *words.values()]
    for case in ElementTree.fromstring(text).iter("testcase"):
        test = f"{case.get('classname')}.{case.get('name')}"
        for kind, element in [("pass", None), *((words[e.tag], e) for e in case if e.tag in words)]:
            if test not in outcomes or ranks.index(kind) > ranks.index(outcomes[test]):
                outcomes[test] = kind
                details[test] = "" if element is None else element.text or element.get("message") or ""
    return Results(outcomes, details)
