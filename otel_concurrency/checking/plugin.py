"""The part of the pytest plugin that is loaded when tests are to be checked."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import pytest

from otel_concurrency.checking.problems import Problem
from otel_concurrency.checking.watching import LoopChecks
from otel_concurrency.pytest_plugin import CHECKS, MARKER, MODES, setting


class ConcurrencyWarning(pytest.PytestWarning):
    """A test blocked its event loop, leaked a task, or left an exception unread."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of one test.

    Attributes:
        mode: `off`, `warn` or `fail`.
        checks: Names of checks.
        threshold_s: From when on a loop is held for too long.
    """

    mode: str
    checks: frozenset[str]
    threshold_s: float


class Checker:
    """Checks tests, each as it wishes; a plugin of pytest.

    Args:
        config: Tells what is wanted of tests that do not say.
    """

    def __init__(self, config: pytest.Config) -> None:
        try:
            self._usual = Wish(
                _mode(setting(config, "otel_concurrency")),
                _checks(setting(config, "otel_concurrency_checks").split(",")),
                _threshold(setting(config, "otel_concurrency_threshold")),
            )
        except ValueError as error:
            raise pytest.UsageError(f"otel-concurrency: {error}") from None
        self._loops: LoopChecks | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Attach, with the lowest threshold that any test wants."""
        wishes = [wish for item in session.items if (wish := self._wish_of(item)).mode != "off"]
        if wishes and not session.config.option.collectonly:
            self._loops = LoopChecks(min(wish.threshold_s for wish in wishes))
            self._loops.install()

    def pytest_sessionfinish(self) -> None:
        """Let go of event loops."""
        if self._loops is not None:
            self._loops.remove()
            self._loops = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Check the test itself."""
        return (yield from self._checked(item, "call"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Check what comes to light when its fixtures are taken down, such as exceptions nobody has read."""
        return (yield from self._checked(item, "teardown"))

    def _checked(self, item: pytest.Item, when: str) -> Generator[None, object, object]:
        loops, wish = self._loops, self._wish_of(item)
        if loops is None or wish.mode == "off":
            return (yield)
        loops.begin()
        try:
            result = yield
        except BaseException:
            if found := _wanted(loops.end(), wish, when):
                item.add_report_section(when, "otel-concurrency", _told(found))
            raise
        if found := _wanted(loops.end(), wish, when):
            if wish.mode == "fail":
                pytest.fail(_told(found), pytrace=False)
            item.warn(ConcurrencyWarning(_told(found)))
        return result

    def _wish_of(self, item: pytest.Item) -> Wish:
        marker = item.get_closest_marker(MARKER)
        if marker is None:
            return self._usual
        try:
            return _wish_of_marker(self._usual, *marker.args, **marker.kwargs)
        except (TypeError, ValueError) as error:
            raise pytest.UsageError(f"{item.nodeid}: marker {MARKER}: {error}") from None


def _wish_of_marker(
    usual: Wish, mode: str = "fail", *, checks: Iterable[str] | str = (), threshold: float | None = None
) -> Wish:
    names = checks.split(",") if isinstance(checks, str) else checks
    return Wish(
        _mode(mode),
        _checks(names) or usual.checks,
        usual.threshold_s if threshold is None else _threshold(threshold),
    )


def _wanted(problems: Iterable[Problem], wish: Wish, when: str) -> list[Problem]:
    """Return what the test is to hear of; in its teardown, fixtures may hold the loop and leave tasks."""
    checks = wish.checks if when == "call" else wish.checks & {"unretrieved_exception"}
    return [
        problem
        for problem in problems
        if problem.check in checks and (problem.seconds is None or problem.seconds >= wish.threshold_s)
    ]


def _told(problems: list[Problem]) -> str:
    return "\n".join(f"{problem.check}: {problem.text}" for problem in problems)


def _mode(word: str) -> str:
    if word not in MODES:
        raise ValueError(f"{word!r} is none of {', '.join(MODES)}")
    return word


def _checks(names: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(name.strip() for name in names) - {""}
    if unknown := wanted - set(CHECKS):
        raise ValueError(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    return wanted


def _threshold(value: object) -> float:
    seconds = float(str(value))
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{value} is no time in seconds")
    return seconds
