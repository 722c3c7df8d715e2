"""The real collector, Jaeger, Prometheus and Loki, started once a test session.

Leans on `otel_concurrency/stack`, the machinery behind `otel-concurrency stack`: people start the same.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from otel_concurrency.commands.stack import tell
from otel_concurrency.stack import stack
from otel_concurrency.stack.paths import missing_binaries, stack_folder
from otel_concurrency.stack.process import Identity
from tests.stack.backend import Backend


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip where the stack was never built; a stack that was built and does not start is a failure.

    Here and not in the fixture: pytest folds what skips at the same place into one line.
    """
    if item.get_closest_marker("stack") and missing_binaries(stack_folder()):
        pytest.skip("needs the real collector, Jaeger, Prometheus and Loki; once: scripts/stack build")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The running stack, on ports and in a folder of its own."""
    folder = stack_folder()
    sessions = folder / "sessions"
    stack.sweep(sessions, tell)
    state = sessions / str(os.getpid())
    try:
        yield Backend(stack.up(folder, state, tell, owner=Identity.of(os.getpid())))
    finally:
        stack.down(state, tell)
        if request.session.testsfailed:
            tell(f"the logs of this session: {state}")
        else:
            shutil.rmtree(state, ignore_errors=True)
