"""What `docs/` lists is what the code knows."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from opentelemetry.configuration import load_config_file

from otel_concurrency.config import (
    SETTINGS,
    ChildProcessOptions,
    EventLoopOptions,
    FailureOptions,
    FastAPIOptions,
    ProcessPoolOptions,
    TaskOptions,
    ThreadOptions,
)
from otel_concurrency.distro import STANDS_IN

DOCS = Path(__file__).parent.parent / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text()


def rows(pattern: str) -> list[tuple[str, ...]]:
    """The cells of each table row whose first cell matches."""
    lines = re.findall(rf"^\| (`{pattern}` \|.*) \|$", CONFIGURATION, re.MULTILINE)
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines]


def test_every_setting_is_listed_with_its_unit_default_and_meaning() -> None:
    """In the order of the code, and no other."""
    assert rows(r"OTEL_PYTHON_CONCURRENCY_\w+") == [
        (f"`{setting.variable}`", setting.unit, setting.shown_default, setting.meaning)
        for setting in SETTINGS
    ]


def test_every_instrumentor_that_is_replaced_is_listed() -> None:
    listed = {first.strip("`"): second.strip("`") for first, second, _ in rows(r"[a-z]+")}
    assert listed == STANDS_IN


def test_the_configuration_file_is_valid_and_names_options_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.yaml"
    path.write_text(CONFIGURATION.partition("```yaml\n")[2].partition("```")[0])
    instrumentation = load_config_file(str(path)).instrumentation_development
    assert instrumentation is not None
    declared = instrumentation.python
    assert declared is not None
    assert set(declared["concurrency_asyncio"]) == {field.name for field in fields(TaskOptions)}
    assert set(declared["concurrency_event_loops"]) == {field.name for field in fields(EventLoopOptions)}
    assert set(declared["concurrency_threading"]) == {field.name for field in fields(ThreadOptions)}
    assert set(declared["concurrency_failures"]) == {field.name for field in fields(FailureOptions)}
    assert set(declared["concurrency_fastapi"]) == {field.name for field in fields(FastAPIOptions)}
    assert set(declared["concurrency_process_pools"]) == {field.name for field in fields(ProcessPoolOptions)}
    assert set(declared["concurrency_processes"]) == {field.name for field in fields(ChildProcessOptions)}
