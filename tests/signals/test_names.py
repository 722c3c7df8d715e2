"""The names on the wire, and the page that lists them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from opentelemetry.semconv._incubating.attributes import (
    cpu_attributes,
    disk_attributes,
    process_attributes,
    system_attributes,
    thread_attributes,
)
from opentelemetry.semconv.attributes import code_attributes, error_attributes

from otel_concurrency.signals import names

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_script_prints():
    """`scripts/metrics-doc --write` brings it up to date."""
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "metrics-doc"], capture_output=True, check=True, encoding="utf-8"
    ).stdout
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == printed


def test_every_instrument_is_listed():
    in_module = [value for value in vars(names).values() if isinstance(value, names.Instrument)]
    assert in_module == list(names.INSTRUMENTS)


def test_every_name_stands_once():
    listed = [instrument.name for instrument in names.INSTRUMENTS]
    assert len(set(listed)) == len(listed)
    assert [
        name
        for name in listed
        if not re.fullmatch(
            r"(asyncio|celery|concurrency|python|cpython|process|http|db\.client|otel_concurrency)(\.[a-z_]+)+",
            name,
        )
    ] == []


def test_every_attribute_has_a_meaning():
    used = {key for instrument in names.INSTRUMENTS for key in instrument.attributes}
    used.update(
        names.LOG_ATTRIBUTES,
        names.POOL_WAIT_ATTRIBUTES,
        names.IDENTITY_ATTRIBUTES,
        names.SPAN_ATTRIBUTES,
        names.TASK_SPAN_ATTRIBUTES,
        names.REQUEST_ATTRIBUTES,
        names.CANCELLATION_ATTRIBUTES,
        names.DIAGNOSIS_SPAN_ATTRIBUTES,
        *(keys for _, keys in names.EVENTS.values()),
    )
    assert used == set(names.ATTRIBUTE_MEANINGS)


def test_registered_keys_are_spelled_as_registered():
    assert (
        names.CODE_FUNCTION_NAME,
        names.ERROR_TYPE,
        names.PROCESS_PID,
        names.THREAD_ID,
        names.THREAD_NAME,
        names.CPU_MODE,
        names.CONTEXT_SWITCH_TYPE,
        names.DISK_IO_DIRECTION,
        names.PAGING_FAULT_TYPE,
    ) == (
        code_attributes.CODE_FUNCTION_NAME,
        error_attributes.ERROR_TYPE,
        process_attributes.PROCESS_PID,
        thread_attributes.THREAD_ID,
        thread_attributes.THREAD_NAME,
        cpu_attributes.CPU_MODE,
        process_attributes.PROCESS_CONTEXT_SWITCH_TYPE,
        disk_attributes.DISK_IO_DIRECTION,
        system_attributes.SYSTEM_PAGING_FAULT_TYPE,
    )


def test_histograms_are_in_seconds():
    """The producer folds nanoseconds into seconds by this."""
    assert {each.unit for each in names.INSTRUMENTS if each.kind == "histogram"} == {"s"}
