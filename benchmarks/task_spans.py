"""The price of 100,000 tasks inside one recorded span, none notable: ours, beside upstream and Sentry.

As in `benchmarks.tasks`, each value comes from a process of its own and is the CPU time of the loop's thread.
Spans that are made go to a processor that counts them: exporting is no part of it.

The tasks are those of a request, so they add to its account; the base of `lazy` is the probe alone, without
spans and account. What `all` adds is held against a bare task and a span of the SDK's that says the same
eight things of it, told when it starts; what the SDK takes for an empty one stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import report
from benchmarks.environments import InstallError, peer_environment
from benchmarks.tasks import ROOT, Effort
from benchmarks.variants import LOOPS, is_installed, new_loop
from otel_concurrency.signals import names

TASKS = 100_000
TASKS_PER_BATCH = 100
TASKS_PER_READING = 2_000
LAZY_BUDGET_US = 1.5
"""What `lazy` may add to the probe alone where no task is notable."""
ALL_BUDGET_US = 3.0
"""What `all` may add to the SDK's own span."""

FULL = Effort(rounds=5, seconds=0.0, flat_tasks=0)
QUICK = Effort(rounds=2, seconds=0.0, flat_tasks=0)


async def empty() -> None:
    """The shortest task there is."""


SAID: dict[str, Any] = {
    names.CODE_FUNCTION_NAME: "benchmarks.task_spans.empty",
    names.TASK_OUTCOME: "finished",
    names.CODE_FILE_PATH: __file__,
    names.CODE_LINE_NUMBER: 1,
    names.TASK_NAME: "Task-1",
    names.TASK_SPAN_STEPS: 1,
    names.TASK_SPAN_BUSY_TIME: 0.00001,
    names.TASK_SPAN_START_DELAY: 0.00001,
}
"""What our span of such a task says."""


def _ours(mode: str, native: bool) -> Callable[[Any], None]:
    def install(provider: Any) -> None:
        from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor

        AsyncioTaskInstrumentor().instrument(
            native=native, task_spans=mode, request_times=mode != "none", tracer_provider=provider
        )

    return install


def _upstream(provider: Any) -> None:
    from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor

    os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "empty"
    AsyncioInstrumentor().instrument(tracer_provider=provider)


VARIANTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "bare": ("bare", lambda provider: None),
    "sdk": ("bare, and an empty span of the SDK's each", lambda provider: None),
    "sdk-said": ("bare, and one that says what ours says", lambda provider: None),
    "native-none": ("ours, native, none", _ours("none", True)),
    "native-lazy": ("ours, native, lazy", _ours("lazy", True)),
    "native-all": ("ours, native, all", _ours("all", True)),
    "pure-none": ("ours, pure, none", _ours("none", False)),
    "pure-lazy": ("ours, pure, lazy", _ours("lazy", False)),
    "pure-all": ("ours, pure, all", _ours("all", False)),
    "upstream": ("upstream, this coroutine named", _upstream),
}
SENTRY = "sentry"
LABELS = {key: label for key, (label, _) in VARIANTS.items()} | {SENTRY: "Sentry's asyncio integration"}


def measure(variant: str, loop_name: str) -> dict[str, float]:
    """Return the CPU time of a task, µs, the best reading, and how many spans there were of each."""
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import SpanKind

    ended = 0

    class Count(SpanProcessor):
        def on_end(self, span: Any) -> None:
            nonlocal ended
            ended += 1

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Count())
    VARIANTS[variant][1](provider)
    tracer = provider.get_tracer("benchmark")
    attributes = SAID if variant == "sdk-said" else None

    async def run() -> float:
        readings = []
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            for _ in range(TASKS // TASKS_PER_READING):
                began_ns = time.thread_time_ns()
                for _ in range(TASKS_PER_READING // TASKS_PER_BATCH):
                    await asyncio.gather(*[asyncio.create_task(empty()) for _ in range(TASKS_PER_BATCH)])
                    if variant.startswith("sdk"):
                        for _ in range(TASKS_PER_BATCH):
                            tracer.start_span("task", attributes=attributes).end()
                readings.append(time.thread_time_ns() - began_ns)
        return min(readings) / TASKS_PER_READING / 1e3

    value = new_loop(loop_name).run_until_complete(run())
    return {"value": value, "spans": (ended - 1) / TASKS}


def measure_sentry(loop_name: str) -> dict[str, float]:
    """Return the same of Sentry's SDK, which keeps 1,000 spans a transaction: so each batch has one."""
    import sentry_sdk
    from sentry_sdk.integrations.asyncio import AsyncioIntegration
    from sentry_sdk.transport import Transport

    spans = 0

    class Count(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            nonlocal spans
            for item in envelope.items:
                spans += len((item.payload.json or {}).get("spans", ()))

    async def run() -> float:
        sentry_sdk.init(
            dsn="http://key@localhost/1",
            transport=Count,
            traces_sample_rate=1.0,
            default_integrations=False,
            integrations=[AsyncioIntegration()],
        )
        readings = []
        for _ in range(TASKS // TASKS_PER_READING):
            began_ns = time.thread_time_ns()
            for _ in range(TASKS_PER_READING // TASKS_PER_BATCH):
                with sentry_sdk.start_transaction(name="request"):
                    await asyncio.gather(*[asyncio.create_task(empty()) for _ in range(TASKS_PER_BATCH)])
            readings.append(time.thread_time_ns() - began_ns)
        return min(readings) / TASKS_PER_READING / 1e3

    value = new_loop(loop_name).run_until_complete(run())
    return {"value": value, "spans": spans / TASKS}


def _measured(variant: str, loop: str) -> dict[str, float]:
    environ = dict(os.environ)
    if variant == SENTRY:
        (packages,) = peer_environment("sentry-sdk").parent.glob("lib/python*/site-packages")
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (environ.get("PYTHONPATH", ""), str(packages))))
    command = [sys.executable, "-m", "benchmarks.task_spans", "--measure", variant, "--loop", loop]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: {variant} on {loop} could not be measured:\n{done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    loops = [loop for loop in LOOPS if loop == "asyncio" or is_installed(loop)]
    variants = [
        key
        for key in VARIANTS
        if not key.startswith("native") or is_installed("otel_concurrency.probes._native")
    ]
    try:
        peer_environment("sentry-sdk")
        variants.append(SENTRY)
    except InstallError as error:
        report.progress(f"task spans: without Sentry's: {error}")
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        loop: {key: [] for key in variants} for loop in loops
    }
    for number in range(effort.rounds):
        report.progress(f"task spans: round {number + 1} of {effort.rounds}")
        for loop in loops:
            for variant in variants:
                found[loop][variant].append(_measured(variant, loop))
    rows = []
    for loop in loops:
        best = {key: min(each["value"] for each in found[loop][key]) for key in variants}
        for key in variants:
            way, _, mode = key.partition("-")
            budget = {"lazy": LAZY_BUDGET_US, "all": ALL_BUDGET_US}.get(mode) if way == "native" else None
            base = best["sdk-said"] if mode == "all" else best.get(f"{way}-none", best["bare"])
            rows.append(
                (
                    loop,
                    LABELS[key],
                    f"{best[key]:.2f}",
                    f"{best[key] - best['bare']:+.2f}",
                    f"{best[key] - base:+.2f}" if mode in ("lazy", "all") else "",
                    f"{budget:+.1f}" if budget is not None else "",
                    report.mark(best[key] - base, budget),
                    f"{found[loop][key][0]['spans']:g}",
                )
            )
    head = ("loop", "variant", "µs per task", "over bare", "over its base", "budget", "", "spans per task")
    text = "\n\n".join(
        (
            "## Task spans",
            (
                f"{report.machine()} · {report.versions()} · {effort.rounds} rounds, best of each. The base "
                "of `lazy` is `none`, the probe alone; that of `all` a bare task and a span of the SDK's "
                "with the same attributes. "
                "Sentry's has a transaction for every 100 tasks."
            ),
            report.table(head, rows, names=2),
        )
    )
    return text, {"values": found}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_spans", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--measure", choices=sorted(LABELS), help="only this variant, in this process")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    arguments = parser.parse_args()
    if arguments.measure:
        sentry = arguments.measure == SENTRY
        found = measure_sentry(arguments.loop) if sentry else measure(arguments.measure, arguments.loop)
        print(json.dumps(found))
    else:
        print(run(QUICK if arguments.quick else FULL)[0])


if __name__ == "__main__":
    main()
