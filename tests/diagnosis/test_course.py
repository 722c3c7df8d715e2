"""From window to window: three in a row open a finding, six without it close it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from otel_concurrency.diagnosis.course import Course, News
from otel_concurrency.diagnosis.finding import Culprit, Finding

SO = Finding("loop_cpu_bound", "loop 0", "warn", "It computes.", culprit=Culprit("app.a"), began_unix_ns=1)
HAPPENED = Finding("errors_swallowed", "process", "warn", "It failed.", is_event=True)


def play(course: Course, *windows: Sequence[Finding]) -> list[list[tuple[str, str]]]:
    return [[(news.change, news.finding.rule) for news in course.go_on(each)] for each in windows]


def test_what_is_so_is_opened_after_three_windows_and_closed_after_six() -> None:
    course = Course()
    assert play(course, [SO], [SO]) == [[], []]
    assert (course.open, course.recheck) == ((), (SO,))
    assert play(course, [SO], [SO]) == [[("opened", SO.rule)], []]
    assert (course.open, course.recheck) == ((SO,), ())
    assert play(course, *[[]] * 5) == [[]] * 5
    assert course.open == (SO,)
    assert play(course, []) == [[("closed", SO.rule)]]
    assert course.open == ()


def test_a_window_without_it_begins_the_count_anew() -> None:
    course = Course()
    assert play(course, [SO], [SO], [], [SO], [SO]) == [[]] * 5
    assert play(course, [SO]) == [[("opened", SO.rule)]]


def test_an_open_finding_that_is_seen_now_and_then_stays_open() -> None:
    course = Course()
    play(course, [SO], [SO], [SO])
    assert play(course, *([[]] * 5 + [[SO]]) * 3) == [[]] * 18


def test_what_happened_is_opened_at_once() -> None:
    course = Course()
    assert play(course, [HAPPENED], [HAPPENED]) == [[("opened", HAPPENED.rule)], []]


@pytest.mark.parametrize(
    ("later", "changes"),
    [
        (SO.with_(sentence="It computes much."), []),
        (SO.with_(severity="info"), []),  # it stays what it was at its worst
        (SO.with_(severity="crit"), [("updated", SO.rule)]),
        (SO.with_(culprit=Culprit("app.b")), [("updated", SO.rule)]),
        (SO.with_(culprit=Culprit()), []),
    ],
)
def test_what_gets_worse_or_has_another_culprit_is_told(
    later: Finding, changes: list[tuple[str, str]]
) -> None:
    course = Course()
    play(course, [SO], [SO], [SO])
    assert play(course, [later]) == [changes]
    assert course.open[0].sentence == later.sentence


def test_traces_are_kept_and_the_beginning_too() -> None:
    course = Course()
    for number in range(8):
        course.go_on([HAPPENED.with_(traces=(f"{number:032x}",), began_unix_ns=number + 1)])
    assert course.open[0].traces == tuple(f"{number:032x}" for number in range(3, 8))
    assert course.open[0].began_unix_ns == 1


def test_the_weightiest_comes_first() -> None:
    course = Course()
    grave = Finding("deadlock", "A", "crit", "They wait.", is_event=True)
    news = course.go_on([SO.with_(is_event=True), HAPPENED, grave])
    assert [each.finding.rule for each in news] == ["deadlock", "loop_cpu_bound", "errors_swallowed"]
    assert [each.rule for each in course.open] == ["deadlock", "loop_cpu_bound", "errors_swallowed"]


def test_at_the_end_all_are_closed() -> None:
    course = Course()
    course.go_on([HAPPENED, SO])
    assert course.close_all() == [News("closed", HAPPENED)]
    assert (course.open, course.recheck) == ((), ())


def test_so_many_are_followed_and_no_more() -> None:
    course = Course()
    news = course.go_on([HAPPENED.with_(subject=str(number)) for number in range(200)])
    assert len(news) == len(course.open) == 100
