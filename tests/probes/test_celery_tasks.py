"""Runs of Celery's tasks, counted."""

from __future__ import annotations

from otel_concurrency.probes.celery_tasks import MAX_NAMES, MAX_QUEUES, CeleryProbe, CeleryRow
from otel_concurrency.probes.histogram import MAX_PENDING, Histogram, HistogramState


def times(*values: int) -> HistogramState:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    return histogram.read()


def test_a_run_is_counted_from_begin_to_end() -> None:
    probe = CeleryProbe()
    probe.began("work", "celery", 300, 200, redelivered=False)
    probe.ended("work", "finished", run_ns=100)
    assert probe.read() == [
        CeleryRow(
            "work",
            {("finished", ""): 1},
            duplicates=0,
            redelivered=0,
            retries=0,
            queue_times={"celery": times(300)},
            prefetch_times=times(200),
            run_times={"finished": times(100)},
        )
    ]


def test_what_is_unknown_is_in_no_distribution() -> None:
    probe = CeleryProbe()
    probe.began("work", "celery", None, None, redelivered=True)
    probe.ended("work", "revoked")
    row = probe.read()[0]
    assert (row.redelivered, row.queue_times, row.prefetch_times, row.run_times) == (1, {}, times(), {})


def test_a_sender_whose_clock_is_ahead_makes_a_wait_of_nothing() -> None:
    probe = CeleryProbe()
    probe.began("work", "celery", -5, None, redelivered=False)
    assert probe.read()[0].queue_times["celery"].zero_count == 1


def test_a_duplicate_is_no_completion() -> None:
    probe = CeleryProbe()
    probe.ended("work", "finished", run_ns=1)
    probe.repeated("work", "failed", 2)
    row = probe.read()[0]
    assert (row.completed, row.duplicates) == ({("finished", ""): 1}, 1)
    assert row.run_times == {"finished": times(1), "failed": times(2)}


def test_names_queues_and_error_types_are_bounded() -> None:
    probe = CeleryProbe(max_error_types=2)
    for number in range(MAX_NAMES + 5):
        probe.began(f"work{number}", "celery", 1, 1, redelivered=False)
    assert [row.name for row in probe.read()][-2:] == [f"work{MAX_NAMES - 1}", "_other"]
    for number in range(MAX_QUEUES + 5):
        probe.began("work0", f"queue{number}", 1, 1, redelivered=False)
    assert len(probe.read()[0].queue_times) == MAX_QUEUES + 1
    assert probe.read()[0].queue_times["_other"].count == 6
    for kind in ("A", "B", "C", "D", "A"):
        probe.ended("work0", "failed", kind)
    assert probe.read()[0].completed == {("failed", "A"): 2, ("failed", "B"): 1, ("failed", "_other"): 2}


def test_a_distribution_keeps_all_values() -> None:
    probe = CeleryProbe()
    values = range(1, 2 * MAX_PENDING)
    for value in values:
        probe.ended("work", "finished", run_ns=value)
    assert probe.read()[0].run_times["finished"] == times(*values)


def test_a_reset_begins_at_nothing() -> None:
    probe = CeleryProbe()
    probe.retried("work")
    assert probe.read()[0].retries == 1
    probe.reset()
    assert probe.read() == []
