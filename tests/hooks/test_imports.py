"""A word when a module comes, and no trace in what the program sees of it."""

from __future__ import annotations

import importlib
import logging
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from otel_concurrency.hooks.imports import when_imported

NAME = "awaited_by_a_test"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = list(sys.meta_path)
    (tmp_path / f"{NAME}.py").write_text("ready = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop(NAME, None)
    assert sys.meta_path == before


@pytest.mark.usefixtures("folder")
def test_a_module_that_comes_later_is_told_of_once_complete() -> None:
    came: list[ModuleType] = []
    ready: list[bool] = []
    when_imported(NAME, came.append)
    when_imported(NAME, lambda module: ready.append(module.ready))
    assert came == []
    module = importlib.import_module(NAME)
    assert (came, ready) == ([module], [True])
    assert "exec_module" not in vars(module.__loader__)
    importlib.reload(module)
    assert came == [module]


def test_a_module_s_code_runs_inside_of_what_is_asked_to_be_around_it(folder: Path) -> None:
    (folder / f"{NAME}.py").write_text("import sys\nfound = sys.flag_of_a_test\n")

    @contextmanager
    def around() -> Iterator[None]:
        sys.flag_of_a_test = "inside"  # type: ignore[attr-defined]
        try:
            yield
        finally:
            del sys.flag_of_a_test  # type: ignore[attr-defined]

    when_imported(NAME, lambda module: None, around=around)
    assert importlib.import_module(NAME).found == "inside"
    assert not hasattr(sys, "flag_of_a_test")


@pytest.mark.usefixtures("folder")
def test_a_module_that_is_there_is_told_of_at_once() -> None:
    module = importlib.import_module(NAME)
    came: list[ModuleType] = []
    when_imported(NAME, came.append)
    assert came == [module]


@pytest.mark.usefixtures("folder")
def test_what_was_taken_back_is_not_called() -> None:
    came: list[ModuleType] = []
    kept: list[ModuleType] = []
    undo = when_imported(NAME, came.append)
    when_imported(NAME, kept.append)
    undo()
    undo()
    module = importlib.import_module(NAME)
    assert (came, kept) == ([], [module])


@pytest.mark.usefixtures("folder")
def test_the_last_one_taken_back_leaves_the_import_system_as_it_was() -> None:
    before = list(sys.meta_path)
    undo = when_imported(NAME, lambda module: None)
    assert sys.meta_path != before
    undo()
    assert sys.meta_path == before


def test_a_module_that_fails_fails_as_without_us_and_may_come_later(folder: Path) -> None:
    (folder / f"{NAME}.py").write_text("raise RuntimeError('not yet')\n")
    came: list[ModuleType] = []
    when_imported(NAME, came.append)
    with pytest.raises(RuntimeError, match="not yet"):
        importlib.import_module(NAME)
    assert came == []
    (folder / f"{NAME}.py").write_text("ready = 'at last'\n")
    importlib.invalidate_caches()
    module = importlib.import_module(NAME)
    assert came == [module]


@pytest.mark.usefixtures("folder")
def test_a_callback_that_raises_is_logged_and_the_module_is_there(caplog: pytest.LogCaptureFixture) -> None:
    def fail(module: ModuleType) -> None:
        raise ValueError(module.__name__)

    with caplog.at_level(logging.ERROR):
        when_imported(NAME, fail)
        module = importlib.import_module(NAME)
    assert module.ready
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_loader_of_many_modules_tells_of_the_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{NAME}.py").unlink()
    with zipfile.ZipFile(folder / "many.zip", "w") as many:
        many.writestr("another_of_a_test.py", "")
        many.writestr(f"{NAME}.py", "import another_of_a_test\nready = True\n")
    monkeypatch.syspath_prepend(str(folder / "many.zip"))
    came: list[ModuleType] = []
    when_imported(NAME, came.append)
    module = importlib.import_module(NAME)
    assert came == [module]
    assert "exec_module" not in vars(module.__loader__)
    del sys.modules["another_of_a_test"]


def test_a_module_that_is_not_found_is_not_found(tmp_path: Path) -> None:
    undo = when_imported("nobody_has_this", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match="No module named 'nobody_has_this'"):
        importlib.import_module("nobody_has_this")
    undo()
