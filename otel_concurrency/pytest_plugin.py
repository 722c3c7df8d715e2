"""The pytest plugin: checks of what a test did to its event loops. Off unless asked for.

pytest loads this in every run where the package is installed, so it imports nothing but pytest; what checks
is in `checking/`, and loaded once somebody wants it.
"""

from __future__ import annotations

import pytest

MARKER = "otel_concurrency"
PLUGIN = "otel_concurrency_checks"
MODES = ("off", "warn", "fail")
CHECKS = ("blocked_loop", "slow_callback", "leaked_task", "unretrieved_exception")
THRESHOLD_S = 0.1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and the settings."""
    group = parser.getgroup("otel-concurrency", "checks of event loops, tasks and exceptions")
    group.addoption(
        "--otel-concurrency",
        choices=MODES,
        help="what to do about a test that blocks its event loop, leaks tasks, or leaves exceptions unread",
    )
    group.addoption(
        "--otel-concurrency-checks",
        metavar="NAMES",
        help=f"which checks, with commas in between (all: {','.join(CHECKS)})",
    )
    group.addoption(
        "--otel-concurrency-threshold",
        metavar="SECONDS",
        help=f"from when on a loop is held for too long ({THRESHOLD_S})",
    )
    parser.addini("otel_concurrency", f"{', '.join(MODES)}: as --otel-concurrency", default="off")
    parser.addini("otel_concurrency_checks", "as --otel-concurrency-checks", default=",".join(CHECKS))
    parser.addini("otel_concurrency_threshold", "as --otel-concurrency-threshold", default=str(THRESHOLD_S))


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and start where all tests are to be checked."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(mode='fail', checks=..., threshold=...): check what this test does to its event loops; "
        "mode is off, warn or fail, the others as the options of these names",
    )
    if setting(config, "otel_concurrency") != "off":
        _start(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start where a test asks for it."""
    if not config.pluginmanager.has_plugin(PLUGIN) and any(item.get_closest_marker(MARKER) for item in items):
        _start(config)


def setting(config: pytest.Config, name: str) -> str:
    """Return what the command line says, else the ini file."""
    given = config.getoption(name)
    return str(given if given is not None else config.getini(name)).strip()


def _start(config: pytest.Config) -> None:
    if pytest.version_tuple < (8,):
        raise pytest.UsageError("the checks of otel-concurrency need pytest 8 or later")
    from otel_concurrency.checking.plugin import Checker

    config.pluginmanager.register(Checker(config), PLUGIN)
