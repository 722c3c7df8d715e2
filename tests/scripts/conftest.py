"""Lets tests import `scripts/`: its packages by name, its executables, without a suffix, by a loader."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))


def load_script(name: str) -> ModuleType:
    """Import an executable of `scripts/` as a module."""
    module_name = f"script_{name.replace('-', '_')}"
    if module_name not in sys.modules:
        loader = SourceFileLoader(module_name, str(SCRIPTS / name))
        spec = importlib.util.spec_from_loader(module_name, loader)
        assert spec is not None
        sys.modules[module_name] = module = importlib.util.module_from_spec(spec)  # dataclasses look it up
        loader.exec_module(module)
    return sys.modules[module_name]


@pytest.fixture
def pythons() -> ModuleType:
    """`scripts/pythons`."""
    return load_script("pythons")


@pytest.fixture
def conformance() -> ModuleType:
    """`scripts/conformance`."""
    return load_script("conformance")


@pytest.fixture
def upstream_tests() -> ModuleType:
    """`scripts/upstream-tests`."""
    return load_script("upstream-tests")
