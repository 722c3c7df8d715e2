"""Who was chosen: distro, configurator, and for each library the instrumentor that speaks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint

from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_CONFIGURATOR,
    OTEL_PYTHON_DISABLED_INSTRUMENTATIONS,
    OTEL_PYTHON_DISTRO,
)
from opentelemetry.util._importlib_metadata import entry_points

from otel_concurrency.distro import _SWITCHES, STANDS_IN, ConcurrencyDistro
from otel_concurrency.doctor.report import Check
from otel_concurrency.environment_variables import NAME

_QUERIES = ("sqlalchemy", "asyncpg", "psycopg", "psycopg2", "aiopg", "mysql", "pymysql", "sqlite3")
ONE_SOURCE = {  # operation: instrumentors that would each tell it
    **{f"what {upstream} does": (upstream, ours) for upstream, ours in STANDS_IN.items()},
    "HTTP requests served": ("fastapi", "starlette", "asgi"),
    "HTTP requests sent": ("requests", "urllib3", "urllib"),
}
"""Operations that two instrumentors would report twice."""


def start_checks(distro: ConcurrencyDistro) -> Iterator[Check]:
    """Tell which distro and configurator there are, which was taken, and who said so."""
    for what, variable in (("distro", OTEL_PYTHON_DISTRO), ("configurator", OTEL_PYTHON_CONFIGURATOR)):
        known = sorted(point.name for point in entry_points(group=f"opentelemetry_{what}"))
        chosen = os.environ.get(variable, "")
        if not chosen:
            text = f"{variable} is not set: the first of {', '.join(known)} is taken"
            yield Check(what, text, "info" if distro.started else "warn")
        elif chosen != NAME:
            yield Check(what, f"{chosen}, by {variable}; there are {', '.join(known)}", "warn")
        else:
            told = f"{chosen}, by {variable} (ours, unless you set it); there are {', '.join(known)}"
            yield Check(what, told)
    if not distro.started:
        yield Check(
            "start", "otel-concurrency was not started here: opentelemetry-instrument does it", "fail"
        )
    elif not distro.config.enabled:
        yield Check("start", "OTEL_PYTHON_CONCURRENCY_ENABLED=false: nothing of ours is on", "warn")
    elif not distro.is_active:
        yield Check("start", "the SDK is switched off (OTEL_SDK_DISABLED, or the configuration file)", "warn")
    else:
        yield Check("start", f"{len(distro.loaded)} instrumentors are active")


def instrumentor_checks(distro: ConcurrencyDistro) -> Iterator[Check]:
    """Tell of each instrumentor that is installed whether it is active, and why not."""
    for point in sorted(entry_points(group="opentelemetry_instrumentor"), key=lambda point: point.name):
        if point.name in distro.loaded:
            yield Check(point.name, f"active ({point.value.partition(':')[0]})")
        elif distro.started:
            yield Check(point.name, _reason(point, distro), "info")


def source_checks(distro: ConcurrencyDistro) -> Iterator[Check]:
    """Tell whether an operation is told by one instrumentor only."""
    for operation, names in ONE_SOURCE.items():
        active = [name for name in names if name in distro.loaded]
        if len(active) > 1 and operation.startswith("HTTP"):  # each tells what passes through it
            yield Check(operation, f"{' and '.join(active)} are active: spans may be nested", "info")
        elif len(active) > 1:
            yield Check(operation, f"{' and '.join(active)} both tell it: everything counts twice", "warn")
        elif active:
            yield Check(operation, f"{active[0]} alone")
    queries = [name for name in _QUERIES if name in distro.loaded]
    if "sqlalchemy" in queries and len(queries) > 1:
        text = f"{' and '.join(queries)}: a query by way of SQLAlchemy has a span of each"
        yield Check("database queries", text, "warn")
    elif queries:
        yield Check("database queries", f"{' and '.join(queries)}, each for its own")


def _reason(point: EntryPoint, distro: ConcurrencyDistro) -> str:
    name = point.name
    stand_in = STANDS_IN.get(name)
    if stand_in in distro.loaded:
        return f"replaced by {stand_in}; OTEL_PYTHON_CONCURRENCY_KEEP_UPSTREAM={name} keeps it beside ours"
    disabled = os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",")
    if name in (each.strip() for each in disabled):
        return f"left out: {OTEL_PYTHON_DISABLED_INSTRUMENTATIONS} names it"
    switch = _SWITCHES.get(name)
    if switch is not None and not getattr(distro.config, switch):
        return f"left out: OTEL_PYTHON_CONCURRENCY_{switch.upper()} is off"
    try:
        conflict: object = get_dist_dependency_conflicts(point.dist) if point.dist is not None else None
    except Exception as error:  # a package whose metadata cannot be read
        conflict = error
    return f"left out: {conflict}" if conflict is not None else "left out: it did not load; the log tells why"
