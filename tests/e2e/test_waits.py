"""Each symptom of `examples/waits/` under `opentelemetry-instrument`: in metrics, and on requests that wait.

What the figures have to be follows from the spans: who waits for a lock waits until another request ends.
"""

from __future__ import annotations

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
from tests.e2e.test_stalls import values

EXAMPLES = Path(__file__).parents[2] / "examples" / "waits"
REQUEST, ORDER = "request", "order"
WAIT = "concurrency.wait.lock"
HELD_S = 0.1
CLOSE = 0.05


@dataclass(frozen=True, slots=True)
class Span:
    """When a span began and ended, in seconds, and what its request says of waiting."""

    name: str
    start_s: float
    end_s: float
    waited_s: float

    @property
    def took_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Told:
    """What an example's process has exported.

    Attributes:
        points: The last point of each metric with `asyncio.sync.type` or `asyncio.queue.name`, by both.
        sizes: Each value of `asyncio.queue.size`, in their order.
        spans: In the order in which they began.
    """

    points: dict[tuple[str, str], Any]
    sizes: list[int]
    spans: list[Span]

    def of(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def sums(self, kind: str) -> dict[str, float]:
        """Return the sums of one type or name, those that are 0 left out."""
        found = {
            name: point.as_int or point.as_double
            for (name, of), point in self.points.items()
            if of == kind and hasattr(point, "as_int")
        }
        return {name: value for name, value in found.items() if value}


def tell(receiver: OtlpProtoTestServer) -> Told:
    points: dict[tuple[str, str], Any] = {}
    sizes: list[int] = []
    for each in receiver.drain_metrics():
        metric = each.metric
        for point in (*metric.sum.data_points, *metric.exponential_histogram.data_points):
            labels = values(point.attributes)
            kind = labels.get("asyncio.sync.type") or labels.get("asyncio.queue.name")
            if kind is not None:
                points[metric.name, kind] = point
            if metric.name == "asyncio.queue.size":
                sizes.append(point.as_int)
    spans = [
        Span(
            each.span.name,
            each.span.start_time_unix_nano / 1e9,
            each.span.end_time_unix_nano / 1e9,
            values(each.span.attributes).get(WAIT, 0.0),
        )
        for each in receiver.drain_spans()
    ]
    return Told(points, sizes, sorted(spans, key=lambda span: span.start_s))


def queue_of(example: str) -> str:
    """Return the name that the queue of an example goes by: the line in which it is made."""
    lines = (EXAMPLES / f"{example}.py").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.startswith("orders:"))
    return f"__main__:{number}"


Play = Callable[[str], Told]


@pytest.fixture(params=["asyncio", WITH_UVLOOP, "pure"])
def play(request: pytest.FixtureRequest, receiver: OtlpProtoTestServer) -> Play:
    """Run an example to its end."""
    is_pure = request.param == "pure"
    settings = {
        "OTEL_PYTHON_CONCURRENCY_NATIVE": "false" if is_pure else "true",
        "OTEL_METRIC_EXPORT_INTERVAL": "250",
    }

    def play(name: str) -> Told:
        ended = subprocess.run(
            [
                str(COMMAND),
                sys.executable,
                str(EXAMPLES / f"{name}.py"),
                "asyncio" if is_pure else request.param,
            ],
            env=clean_environ() | environ_for(receiver) | settings,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        return tell(receiver)

    return play


@pytest.mark.scenario  # 5 % of 0.2 s is less than a busy machine may keep a task in line
@pytest.mark.parametrize(
    ("name", "kind", "places", "ideal_s"),
    [("lock_convoy", "lock", 1, 9.0), ("semaphore_too_small", "semaphore", 2, 4.0)],
)
def test_who_waits_for_a_place_waits_until_another_request_has_left(
    play: Play, name: str, kind: str, places: int, ideal_s: float
) -> None:
    told = play(name)
    requests = told.of(REQUEST)
    assert len(requests) == 10
    ends = sorted(span.end_s for span in requests)
    waited = [ends[number] - span.start_s for number, span in enumerate(requests[places:])]
    assert [span.waited_s for span in requests[:places]] == [0.0] * places
    assert [span.waited_s for span in requests[places:]] == pytest.approx(waited, rel=CLOSE)
    assert told.sums(kind) == {
        "asyncio.sync.contentions": len(waited),
        "asyncio.sync.wait.time": pytest.approx(sum(waited), rel=CLOSE),
    }
    durations = told.points["asyncio.sync.wait.duration", kind]
    assert durations.count == len(waited)
    assert [durations.sum, durations.max] == pytest.approx([sum(waited), max(waited)], rel=CLOSE)
    # A machine that is busy makes it longer, never shorter; a timer of uvloop's may be 1 ms early.
    assert sum(waited) >= (1 - CLOSE) * ideal_s


def test_a_queue_that_grows_is_as_long_as_what_was_put_and_not_taken(play: Play) -> None:
    told = play("queue_growing")
    requests, orders = told.of(REQUEST), told.of(ORDER)
    assert len(requests) == 40
    left = len(requests) - len(orders)
    assert told.sums(queue_of("queue_growing")) == {"asyncio.queue.size": left}
    assert told.sizes[-1] == max(told.sizes) == left
    assert len({*told.sizes}) >= 4  # it grew, as who looks now and then can see
    # An order takes 0.1 s.
    assert left >= (1 - CLOSE) * (len(requests) - (orders[-1].end_s - orders[0].start_s) / HELD_S - 1)


@pytest.mark.scenario
def test_who_waits_for_a_place_in_a_queue_waits_as_long_as_it_takes_to_put(play: Play) -> None:
    told = play("queue_full")
    requests = told.of(REQUEST)
    assert len(requests) == 20
    waited = [span.took_s for span in requests if span.took_s >= 0.02]
    assert told.sums("queue_put") == {
        "asyncio.sync.contentions": len(waited),
        "asyncio.sync.wait.time": pytest.approx(sum(waited), rel=CLOSE),
    }
    assert told.sums(queue_of("queue_full")) == {"asyncio.queue.size": 5, "asyncio.queue.limit": 5}
    assert max(told.sizes) == 5
    assert [span.waited_s for span in requests] == [0.0] * 20  # that is said of locks
