"""Our variables for `opentelemetry-instrument`, and the one moment at which it can learn about us.

The command imports every module of the entry-point group `opentelemetry_environment_variables` to make
a flag of each `OTEL_…` name in it, then replaces itself with the program. That import is the only code
of ours that runs early enough to make our distro and configurator the chosen ones: without it the first
in file-system order wins, and `opentelemetry-distro` is always installed beside us.

Anywhere else (documentation tools, tests, a program that imports us) importing this module only defines
the names: the environment is touched when the command's own `run()` is what imports it, and not otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from otel_concurrency.config import SETTINGS

NAME = "otel_concurrency"  # our entry points in both groups
_COMMAND = ("opentelemetry.instrumentation.auto_instrumentation", "run")
_PARTS = {  # variable: (the command's flag, entry-point group)
    "OTEL_PYTHON_DISTRO": ("--distro", "opentelemetry_distro"),
    "OTEL_PYTHON_CONFIGURATOR": ("--configurator", "opentelemetry_configurator"),
}

# OTEL_PYTHON_CONCURRENCY_X = "OTEL_PYTHON_CONCURRENCY_X" for every setting: config.py spells them once.
globals().update({setting.variable: setting.variable for setting in SETTINGS})

# Not a setting. Our flags begin with `--concurrency_`, so a program's own `--concurrency`, Celery's for one,
# would be an ambiguous abbreviation of them, for which argparse ends the command although it stands behind
# the program's name. A flag of exactly that name is none, and what stands there reaches the program.
OTEL_PYTHON_CONCURRENCY = "OTEL_PYTHON_CONCURRENCY"


def choose(environ: Mapping[str, str], argv: Sequence[str]) -> dict[str, str]:
    """Decide which distro and configurator to name, where the user has named none.

    A user who names one of the two gets the other from the same package, if that has one; else ours.

    Args:
        environ: The command's environment; an empty value counts as unset.
        argv: The command's arguments, whose flags count as the user's word too.

    Returns:
        The variables to set; empty when the user has named both.
    """
    flags = _flags(argv)
    named = {variable: flags.get(flag) or environ.get(variable) for variable, (flag, _) in _PARTS.items()}
    choice = {}
    for variable, (_, group) in _PARTS.items():
        if not named[variable]:
            partner = next((name for other, name in named.items() if other != variable and name), None)
            partner_group = next(g for other, (_, g) in _PARTS.items() if other != variable)
            choice[variable] = (partner and _same_package(partner, partner_group, group)) or NAME
    return choice


def _flags(argv: Sequence[str]) -> dict[str, str]:
    """Read our two flags as the command's argparse will: with `=` or not, abbreviated or not."""
    found: dict[str, str] = {}
    arguments = iter(argv[1:])
    for argument in arguments:
        if not argument.startswith("-") or argument == "--":
            break  # the program: what follows is not ours to read
        name, has_value, value = argument.partition("=")
        if not has_value:
            value = next(arguments, "")
        for flag, _ in _PARTS.values():
            if flag.startswith(name):  # an ambiguous abbreviation ends the command, whatever we think of it
                found[flag] = value
    return found


def _same_package(name: str, group: str, wanted_group: str) -> str | None:
    """Name the entry point of another group that comes in the same package as this one."""
    package = next((_package(point) for point in entry_points(group=group) if point.name == name), None)
    if package is None:
        return None
    return next(
        (point.name for point in entry_points(group=wanted_group) if _package(point) == package), None
    )


def _package(point: object) -> str | None:
    dist = getattr(point, "dist", None)
    return None if dist is None else str(dist.metadata["Name"]).lower()


def _imported_by_the_command() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == _COMMAND:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


if _imported_by_the_command():
    os.environ.update(choose(os.environ, sys.argv))
