"""Upstream's system-metrics instrumentor tells of the process that it runs in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor

from otel_concurrency.hooks.runtime import system_metrics
from otel_concurrency.hooks.runtime.system_metrics import SystemMetricsHook, emitted_by_upstream

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture
def upstream() -> Iterator[SystemMetricsInstrumentor]:
    before = SystemMetricsInstrumentor._instance
    SystemMetricsInstrumentor._instance = None
    yield SystemMetricsInstrumentor(config={"process.cpu.time": ["user"], "process.memory.usage": None})
    SystemMetricsInstrumentor._instance = before


def pid_in_child(upstream: SystemMetricsInstrumentor) -> str:
    """Fork, and tell whose process upstream reads there: `child` or `parent`."""
    if not (child := os.fork()):
        code = 3
        try:
            code = 0 if upstream._proc.pid == os.getpid() else 1
        finally:
            os._exit(code)
    return {0: "child", 1: "parent"}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_in_a_forked_child_it_is_the_child_s_while_we_are_there(upstream: SystemMetricsInstrumentor) -> None:
    """Without us it is the parent's: then this hook has nothing to do any more."""
    hook = SystemMetricsHook()
    assert pid_in_child(upstream) == "parent"
    hook.install()
    hook.install()
    assert pid_in_child(upstream) == "child"
    assert upstream._proc.pid == os.getpid()
    hook.remove()
    hook.remove()
    assert pid_in_child(upstream) == "parent"


def test_what_it_emits_is_known_while_it_does(upstream: SystemMetricsInstrumentor) -> None:
    assert set(emitted_by_upstream()) == set()
    upstream.instrument(skip_dep_check=True)
    assert set(emitted_by_upstream()) == {"process.cpu.time", "process.memory.usage"}
    upstream.uninstrument()
    assert set(emitted_by_upstream()) == set()


@pytest.mark.parametrize("strange", [None, object(), type("Other", (), {"_proc": "mine", "_config": 3})()])
def test_an_upstream_that_is_built_differently_is_left_alone(
    strange: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "_instrumentor", lambda: strange)
    system_metrics.begin_anew()
    assert set(emitted_by_upstream()) == set()
    assert getattr(strange, "_proc", "mine") == "mine"


def test_it_is_not_imported_for_our_sake() -> None:
    program = """
import json, sys
from otel_concurrency.hooks.runtime.system_metrics import begin_anew, emitted_by_upstream
begin_anew()
wanted = {"opentelemetry.instrumentation.system_metrics", "psutil"}
print(json.dumps([list(emitted_by_upstream()), sorted(wanted & sys.modules.keys())]))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == [[], []]
