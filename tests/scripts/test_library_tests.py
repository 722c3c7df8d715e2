"""`scripts/conformance`: libraries' own tests, run by pytest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HAND_MADE = """
import pytest

def test_pass(): pass
def test_fail(): assert False, "no"
@pytest.fixture
def broken(): raise OSError("broken")
def test_error(broken): pass
@pytest.fixture
def breaking():
    yield
    raise OSError("breaks")
def test_teardown(breaking): pytest.skip("then breaks")
@pytest.mark.skip(reason="not here")
def test_skip(): pass
@pytest.mark.xfail
def test_expected(): assert False
@pytest.mark.xfail
def test_now_and_then(): pass
@pytest.mark.xfail(strict=True)
def test_unexpected(): pass
@pytest.mark.parametrize("number", [1, 2])
def test_each(number): assert number == 1
"""

Run = Callable[..., Any]


@pytest.fixture
def run(conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a hand-made file with pytest on a bare side; gives its `ModuleRun`."""
    from _conformance import libraries
    from _conformance.sides import Side

    class Workshop:
        @contextmanager
        def prepared(self, module: str, folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
            (folder / "test_hand_made.py").write_text(self.source)
            yield ["-c", "/dev/null", "--rootdir", str(folder), "test_hand_made.py"], {"SERVER": "here"}

        source = ""

    def run(source: str, places: tuple[str, ...] = ()) -> Any:
        library = libraries.Library("made", (), places=places)
        monkeypatch.setitem(libraries.LIBRARIES, "made.test_hand_made", library)
        workshop = Workshop()
        workshop.source = source
        side = Side("bare", sys.executable, (), {})
        runner = conformance.Runner([side], tmp_path, timeout_s=60, workshop=workshop)
        return runner._run("made.test_hand_made", side)

    return run


def test_every_outcome_has_its_word(run: Run) -> None:
    """The worst of a test's parts; one that may fail or not is no failure when it does not."""
    found = run(HAND_MADE)
    assert {test.removeprefix("test_hand_made.py::test_"): word for test, word in found.outcomes.items()} == {
        "pass": "pass",
        "fail": "fail",
        "error": "error",
        "teardown": "error",
        "skip": "skip",
        "expected": "expected failure",
        "now_and_then": "pass",
        "unexpected": "fail",
        "each[1]": "pass",
        "each[2]": "fail",
    }
    assert "assert False" in found.details["test_hand_made.py::test_fail"]


def test_it_runs_where_its_files_are_and_knows_its_server(run: Run) -> None:
    """Also in what it spawns, which imports the main program once more."""
    found = run(
        "import multiprocessing, os\n"
        "def child(): assert os.environ['SERVER'] == 'here'\n"
        "def test_server():\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    assert process.exitcode == 0\n"
    )
    assert found.outcomes == {"test_hand_made.py::test_server": "pass"}


def test_what_cannot_be_loaded_is_an_error(run: Run) -> None:
    found = run("import no_such_module\n")
    assert found.outcomes == {"test_hand_made.py": "error"}


def test_a_run_without_tests_is_refused(run: Run) -> None:
    """Nothing on both sides would be the same."""
    from _conformance.sides import SideError

    with pytest.raises(SideError, match="did not run: in or after loading"):
        run("")


def test_functions_of_ours_are_where_they_have_to_be(
    run: Run, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side without our hook would agree with bare Python, and prove nothing."""
    from _conformance.compare import ModuleRun
    from _conformance.sides import Side, SideError

    place = "otel_concurrency.hooks.patch:Patch"  # whose functions are ours, on any side
    with pytest.raises(SideError, match=r"with functions of ours in \('otel_concurrency.*not in nothing"):
        run("def test_pass(): pass\n", (place,))
    module = "made.test_hand_made"
    side = Side("native", sys.executable, (), {})
    monkeypatch.setattr(Side, "is_ours", True)
    runner = conformance.Runner([side], tmp_path)
    told = runner._problem(module, side, ModuleRun({"a": "pass"}, ours=()))
    assert told == f"ran with functions of ours in nothing, not in ('{place}',)"
    assert runner._problem(module, side, ModuleRun({"a": "pass"}, ours=(place,))) is None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """The library, or what its tests need."""
    from _conformance.libraries import Workshop

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"pytest": "9.0", "redis": "8.1.0"}\'\n')
    python.chmod(0o755)
    workshop = Workshop(str(python), {"OTEL_CONCURRENCY_CACHE": str(tmp_path)})
    assert workshop.why_not("asyncpg.test_pool") == "asyncpg not installed"
    assert workshop.why_not("redis.test_connection_pool") == "pytest-asyncio and pytest-timeout not installed"


def test_a_release_without_these_tests_is_named(tmp_path: Path) -> None:
    """SQLAlchemy 2.0 has other files than 2.1."""
    from _conformance.libraries import Workshop

    (tmp_path / "upstream-sources" / "sqlalchemy-2.0" / "test").mkdir(parents=True)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"SQLAlchemy": "2.0"}\'\n')
    python.chmod(0o755)
    workshop = Workshop(str(python), {"OTEL_CONCURRENCY_CACHE": str(tmp_path)})
    said = "sqlalchemy 2.0 has no test/base/test_concurrency.py"
    assert workshop.why_not("sqlalchemy.test_concurrency") == said


def test_sources_are_laid_out_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests write beside themselves; the kept ones stay as they are."""
    from _conformance import libraries, servers

    @contextmanager
    def running(name: str) -> Iterator[tuple[str, dict[str, str]]]:
        yield f"{name}@here", {"PGHOST": "here"}

    monkeypatch.setattr(servers, "running", running)
    kept = tmp_path / "upstream-sources" / "made-1.0"
    (kept / "tests" / "parts").mkdir(parents=True)
    (kept / "tests" / "parts" / "test_a.py").write_text("a")
    (kept / "setup.cfg").write_text("b")
    (kept / "README").write_text("c")
    library = libraries.Library(
        "made", ("--url", "{address}", "tests"), ("tests/parts", "setup.cfg"), ("plugin",), "postgres"
    )
    monkeypatch.setitem(libraries.LIBRARIES, "made.all", library)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"Made": "1.0"}\'\n')
    python.chmod(0o755)
    workshop = libraries.Workshop(str(python), {"OTEL_CONCURRENCY_CACHE": str(tmp_path)})
    folder = tmp_path / "run"
    folder.mkdir()
    with workshop.prepared("made.all", folder) as (words, variables):
        assert words[-7:] == ["--rootdir", str(folder), "-p", "plugin", "--url", "postgres@here", "tests"]
    assert variables == {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PGHOST": "here"}
    laid = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert laid == ["setup.cfg", "tests/parts/test_a.py"]
    assert workshop.release("made.all") == "made 1.0"
