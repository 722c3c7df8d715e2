"""Each program of `examples/` that has something wrong with it, and what is said of it; of others nothing is.

Windows are short here, so that nobody has to wait: what has to be so for half a minute, has to be so for one
second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.conftest import WITH_UVLOOP
from tests.e2e.conftest import COMMAND, clean_environ, environ_for

EXAMPLES = Path(__file__).parents[2] / "examples"
WINDOW_S = "0.3"
PREFIX = "concurrency.diagnosis."
EVENTS = ("opened", "updated", "closed")


@dataclass(frozen=True, slots=True)
class Told:
    """What an example's process has exported.

    Attributes:
        opened: Rule and function to blame of each finding, in their order.
        sentences: By rule.
        changes: All changes of findings, by rule.
        detections: The counter, by rule.
        active: The gauge's last values, by rule.
    """

    opened: list[tuple[str, str]]
    sentences: dict[str, str]
    changes: dict[str, list[str]]
    detections: dict[str, int]
    active: dict[str, int]
    evidence: dict[str, list[dict[str, Any]]]


def text(attributes: Any, key: str) -> str:
    return next((each.value.string_value for each in attributes if each.key == key), "")


def tell(receiver: OtlpProtoTestServer) -> Told:
    told = Told([], {}, {}, {}, {}, {})
    for each in receiver.drain_log_records():
        record = each.log_record
        change = record.event_name.removeprefix(PREFIX)
        if change not in EVENTS:
            continue
        rule = text(record.attributes, f"{PREFIX}rule")
        told.changes.setdefault(rule, []).append(change)
        if change == "opened":
            told.opened.append((rule, text(record.attributes, "code.function.name")))
            told.sentences[rule] = record.body.string_value
            told.evidence[rule] = json.loads(text(record.attributes, f"{PREFIX}evidence"))
    for each in receiver.drain_metrics():
        metric = each.metric
        if metric.name == f"{PREFIX}detections":
            for point in metric.sum.data_points:
                told.detections[text(point.attributes, f"{PREFIX}rule")] = point.as_int
        if metric.name == f"{PREFIX}active":
            for point in metric.gauge.data_points:
                told.active[text(point.attributes, f"{PREFIX}rule")] = point.as_int
    return told


Play = Callable[..., Told]


@pytest.fixture(params=["asyncio", WITH_UVLOOP])
def play(request: pytest.FixtureRequest, receiver: OtlpProtoTestServer) -> Play:
    """Run an example to its end."""

    def play(name: str, **env: str) -> Told:
        settings = {"OTEL_PYTHON_CONCURRENCY_DIAGNOSIS_WINDOW": WINDOW_S}
        ended = subprocess.run(
            [str(COMMAND), sys.executable, str(EXAMPLES / f"{name}.py"), request.param],
            env=clean_environ() | environ_for(receiver) | settings | env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        return tell(receiver)

    return play


HANDLE = "__main__.handle"
FOUND = {
    "stalls/cpu_hogs": ("cpu_starvation", "", "not your code"),
    "stalls/regex": ("gil_held_by_native", HANDLE, "in re.match kept the GIL"),
    "diagnosis/gil_bound_threads": ("gil_contention", "__main__.crunch", "compete for the GIL"),
    "stalls/gc_pause": ("gc_pauses", HANDLE, "garbage collector"),
    "stalls/blocking_call": ("loop_blocked_io", HANDLE, "in time.sleep"),
    "diagnosis/short_sleeps": ("loop_blocked_io", HANDLE, "inside a blocking call"),
    "stalls/spin": ("spin", "__main__.wait_for_it", "with nothing to do"),
    "stalls/cpu_in_coroutine": ("loop_cpu_bound", HANDLE, "a step is too long"),
    "diagnosis/too_coarse": ("loop_cpu_bound", HANDLE, "a step is too long"),
    "diagnosis/pool_too_small": ("pool_exhausted", HANDLE, "the pool is too small"),
    "diagnosis/held_across_await": ("pool_exhausted", HANDLE, "held across an await of something else"),
    "diagnosis/leaked_connection": ("pool_exhausted", "", "a leak"),
    "diagnosis/executor_saturated": ("executor_saturated", "__main__.render", "executor reports"),
    "diagnosis/nested_submit": ("executor_saturated", "__main__.outer", "is deadlocked"),
    "diagnosis/lock_convoy": ("lock_contention", HANDLE, "wait at any time for a lock"),
    "diagnosis/straggler": ("granularity_imbalance", "__main__.convert", "had nothing to do meanwhile"),
    "diagnosis/small_items": ("granularity_imbalance", "__main__.square", "they are too small"),
    "diagnosis/downstream": ("io_wait", "", "downstream"),
    "diagnosis/task_leak": ("task_leak", "__main__.watch", "do not end"),
    "diagnosis/lock_cycle": ("deadlock", "__main__.transfer", "wait for each other"),
    "diagnosis/cancel_ignored": ("cancel_ignored", "__main__.poll", "was cancelled and goes on"),
    "diagnosis/errors_swallowed": ("errors_swallowed", "__main__.refresh", "LookupError"),
    "diagnosis/fork_with_threads": ("fork_with_threads", "__main__.spawn_worker", "refresher"),
}
"""By example: the one rule that fires, the function to blame, and words of the sentence."""


@pytest.mark.scenario
@pytest.mark.parametrize("name", FOUND)
def test_what_is_wrong_is_found_and_nothing_else(play: Play, name: str) -> None:
    rule, function, words = FOUND[name]
    told = play(name)
    assert told.opened == [(rule, function)]
    assert words in told.sentences[rule]
    assert told.changes[rule][-1] == "closed"
    assert told.detections == {rule: 1}
    assert told.active == {rule: 0}
    assert any(
        each["threshold"] is not None and each["value"] >= each["threshold"] for each in told.evidence[rule]
    )


HEALTHY = ("stalls/healthy", "stalls/gil_free_thread", "diagnosis/healthy", "diagnosis/healthy_consumers")


@pytest.mark.scenario
@pytest.mark.parametrize("name", HEALTHY)
def test_of_what_is_well_nothing_is_said(play: Play, name: str) -> None:
    told = play(name)
    assert (told.opened, told.detections) == ([], {})


@pytest.mark.scenario
def test_two_faults_are_two_findings_the_weightier_first(play: Play) -> None:
    assert play("diagnosis/mixed").opened == [
        ("loop_blocked_io", HANDLE),
        ("executor_saturated", "__main__.render"),
    ]


def test_a_fork_among_threads_is_told_once_it_happened(play: Play) -> None:
    """One that depends on no clock, for every run."""
    told = play("diagnosis/fork_with_threads")
    assert ("fork_with_threads", "__main__.spawn_worker") in told.opened


def test_it_can_be_turned_off(play: Play) -> None:
    told = play("diagnosis/fork_with_threads", OTEL_PYTHON_CONCURRENCY_DIAGNOSIS="false")
    assert (told.opened, told.detections) == ([], {})
