"""The examination of this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from otel_concurrency.distro import ConcurrencyDistro
from otel_concurrency.doctor import choices, round_trips, surroundings
from otel_concurrency.doctor.report import Check, Report, Section

_logger = logging.getLogger(__name__)


def examine(*, sends: bool = True) -> Report:
    """Look at everything.

    Args:
        sends: Whether an empty export is sent by each exporter, which may take some seconds.
    """
    distro = ConcurrencyDistro()
    parts: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("Start", lambda: choices.start_checks(distro)),
        ("Runtime", lambda: surroundings.runtime_checks(distro.config)),
        ("Settings that are not the default", lambda: _settings(distro)),
        ("Instrumentors", lambda: choices.instrumentor_checks(distro)),
        ("One source for each operation", lambda: choices.source_checks(distro)),
        ("Waiting to be sent", surroundings.drop_checks),
    ]
    if sends:
        parts.append(("Round trips", round_trips.round_trip_checks))
    return Report(tuple(Section(title, _made(title, make)) for title, make in parts))


def _settings(distro: ConcurrencyDistro) -> Iterable[Check]:
    return surroundings.setting_checks(distro.config, distro.options)


def _made(title: str, make: Callable[[], Iterable[Check]]) -> tuple[Check, ...]:
    found: list[Check] = []
    try:
        found.extend(make())
    except Exception as error:  # the other sections go on
        _logger.debug("%s failed", title, exc_info=True)
        found.append(Check("doctor", f"this could not be looked at: {error!r}", "fail"))
    return tuple(found)
