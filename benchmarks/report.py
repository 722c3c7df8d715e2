"""Tables for a terminal and for the docs, and the machine that they were measured on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata

NAMED_PACKAGES = (
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "uvloop",
    "fastapi",
    "uvicorn",
)


def machine() -> str:
    """Return one line that names the CPU, its count and the interpreter; no host, no paths."""
    return (
        f"{cpu_model()}, {os.cpu_count()} CPUs, {platform.system()} · "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def cpu_model() -> str:
    """Return the CPU's name as the system gives it. Source: `/proc/cpuinfo` on Linux, else `platform`."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load_average() -> str:
    """Return what else the machine did while we measured, so that a reader can weigh the figures."""
    try:
        return f"load average {os.getloadavg()[0]:.1f}"
    except OSError:
        return "load average unknown"


def versions(packages: Sequence[str] = NAMED_PACKAGES) -> str:
    """Return `name version` of those packages that are installed here."""
    found: list[str] = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Lay out a Markdown table that also reads well in a terminal.

    Args:
        header: One title a column.
        rows: Cells, as many as titles.
        names: How many columns, from the left, hold names; they stand left, figures stand right.
    """
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if index >= names else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    ruler = "|" + "|".join(
        ("-" * (width + 1) + ":") if index >= names else ("-" * (width + 2))
        for index, width in enumerate(widths)
    )
    return "\n".join([line(header), ruler + "|", *(line(row) for row in rows)])


def mark(value: float, budget: float | None) -> str:
    """Return `ok` or `OVER` for a value and its budget, and nothing where there is no budget."""
    if budget is None:
        return ""
    return "ok" if value <= budget else "OVER"


def progress(message: str) -> None:
    """Tell whoever waits what is going on, beside the report."""
    print(message, file=sys.stderr, flush=True)
