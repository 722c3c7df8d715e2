"""The floors of the house: imports run downward, and the ground floor has the standard library only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import otel_concurrency

PACKAGE = "otel_concurrency"
ROOT = Path(otel_concurrency.__file__).parent
FLOORS = {  # room or module at the top of the package: its floor
    "__init__": 0,
    "_version": 0,
    "config": 0,
    "defaults": 0,
    "readiness": 0,
    "environment_variables": 0,
    "misspelled": 0,
    "probes": 0,
    "diagnosis": 1,
    "hooks": 1,
    "snapshot": 1,
    "timeline": 1,
    "signals": 2,
    "instrumentors": 3,
    "distro": 4,
    "start": 4,
    "checking": 5,
    "cli": 5,
    "commands": 5,
    "console": 5,
    "doctor": 5,
    "endpoints": 5,
    "pytest_plugin": 5,
    "stack": 5,
}
WITHOUT_OPENTELEMETRY = ("diagnosis", "snapshot", "stack", "timeline")
MODULES = sorted(ROOT.rglob("*.py"))


def imports(source: str, package: str) -> Iterator[str]:
    """Yield the absolute name of every module or member that some code imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """Name the room or top-level module that an absolute name of ours belongs to."""
    return name.partition(".")[2].partition(".")[0] or "__init__"


def complaints(path: Path, source: str) -> list[str]:
    inside = path.relative_to(ROOT).with_suffix("").parts
    if inside == ("__init__",):
        return []  # the door: it leads up to what it promises, and only when that is called
    own = inside[0]
    package = ".".join((PACKAGE, *inside[:-1]))
    found = []
    for name in imports(source, package):
        if name.split(".")[0] != PACKAGE:
            top = name.split(".")[0]
            if FLOORS[own] == 0 and top not in sys.stdlib_module_names:
                found.append(f"{own} imports {name}: the ground floor has the standard library only")
            if own in WITHOUT_OPENTELEMETRY and top == "opentelemetry":
                found.append(f"{own} imports {name}: it is to work without OpenTelemetry")
        elif FLOORS[room(name)] > FLOORS[own]:
            found.append(f"{own} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[room(name)]})")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    assert complaints(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        (
            "hooks/x.py",
            "from otel_concurrency.signals import names",
            "hooks (floor 1) imports otel_concurrency",
        ),
        (
            "hooks/x.py",
            "def f():\n  from ..signals.names import SCOPE",
            "hooks (floor 1) imports otel_concurrency",
        ),
        (
            "signals/x.py",
            "import otel_concurrency.distro",
            "signals (floor 2) imports otel_concurrency.distro",
        ),
        ("probes/x.py", "import opentelemetry.trace", "probes imports opentelemetry.trace: the ground floor"),
        (
            "snapshot/x.py",
            "from opentelemetry import trace",
            "snapshot imports opentelemetry.trace: it is to",
        ),
    ],
)
def test_a_way_up_is_found(module: str, source: str, complaint: str) -> None:
    """The check itself: a rule that finds nothing proves nothing."""
    found = complaints(ROOT / module, source)
    assert len(found) == 1
    assert found[0].startswith(complaint)
