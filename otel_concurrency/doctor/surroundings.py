"""What this process runs on: interpreter, probes, event loops, settings, and what was lost so far."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from otel_concurrency import snapshot
from otel_concurrency._version import __version__
from otel_concurrency.config import SETTINGS, Config
from otel_concurrency.doctor.report import Check
from otel_concurrency.probes.loops import loop_type
from otel_concurrency.signals import pipelines

_SECRET = ("token", "password", "secret", "key")
_PACKAGES = ("opentelemetry-sdk", "opentelemetry-distro", "opentelemetry-exporter-otlp")


def runtime_checks(config: Config) -> Iterator[Check]:
    """Tell of the interpreter, of how tasks are counted, and of event loops."""
    yield Check(
        "python", f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    )
    yield Check("otel-concurrency", f"{__version__}, with {', '.join(_versions())}")
    yield _probe_check(config)
    loops = snapshot.take(max_tasks=0, with_threads=False).loops
    for each in loops:
        yield Check(f"event loop {each.id}", f"{each.type}, running, {each.tasks} tasks")
    if not loops:
        yield _usual_loop_check()


def setting_checks(config: Config, options: Mapping[str, object]) -> Iterator[Check]:
    """Tell of settings that are not what they are by default, and who set them."""
    for setting in SETTINGS:
        value = getattr(config, setting.option)
        if value == setting.default:
            continue
        is_secret = any(word in setting.option for word in _SECRET)
        shown = "set, not shown" if is_secret else _shown(value)
        who = "instrument()" if options.get(setting.option) is not None else setting.variable
        yield Check(setting.option, f"{shown} (default {setting.shown_default}), by {who}", "info")


def drop_checks() -> Iterator[Check]:
    """Tell what waits to be sent, beside what may wait."""
    ways = pipelines.current()
    for signal, found in (("spans", ways.spans), ("log records", ways.log_records)):
        for way in found:
            batch = getattr(way, "_batch", None)
            queue = getattr(batch, "_queue", None)
            if queue is None:
                continue
            waiting, limit = len(queue), getattr(queue, "maxlen", None)
            is_full = limit is not None and waiting >= limit
            text = f"{waiting} of at most {limit} wait to be sent"
            yield Check(signal, f"{text}: more are dropped" if is_full else text, "warn" if is_full else "ok")


def _probe_check(config: Config) -> Check:
    try:
        import otel_concurrency.probes._native  # noqa: F401
    except ImportError:
        return Check("probes", "pure Python: no C extension here, so steps of tasks are not seen", "warn")
    if not config.native:
        return Check("probes", "pure Python, by OTEL_PYTHON_CONCURRENCY_NATIVE: steps are not seen", "info")
    return Check("probes", "native")


def _usual_loop_check() -> Check:
    loop = asyncio.new_event_loop()
    try:
        kind = loop_type(loop)
    finally:
        loop.close()
    others = [name for name in ("uvloop", "winloop") if find_spec(name) is not None]
    text = f"none runs; a new one is of type {kind}"
    if others and kind not in others:
        text += f" ({others[0]} is installed: uvicorn takes it, asyncio.run does not by itself)"
    return Check("event loop", text)


def _versions() -> Iterator[str]:
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"no {package}"


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(map(str, value))) or "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)
