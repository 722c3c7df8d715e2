"""Log records as JSON under `opentelemetry-instrument`: from all processes, and to the end."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import SILENT, Run, environ_for

SPEAKS = """
    import asyncio, logging, multiprocessing, os, sys
    import otel_concurrency
    from opentelemetry import trace

    logger = logging.getLogger("shop")
    tracer = trace.get_tracer("shop")

    def child():
        logger.warning("child")

    async def works():
        otel_concurrency.set_request_id("order-7")
        with tracer.start_as_current_span("work"):
            logger.warning("in a task")

    async def main():
        await asyncio.create_task(works(), name="packing")

    if __name__ == "__main__":
        asyncio.run(main())
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        logger.warning("last words")
        {ending}
"""


def lines_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("ending", ["", "os._exit(0)", "raise SystemExit(0)"])
@pytest.mark.parametrize("where", ["stdout", "file"])
def test_every_record_is_a_line_whatever_ends_the_process(
    run: Run, tmp_path: Path, where: str, ending: str
) -> None:
    path = tmp_path / "log.jsonl"
    target = "stdout" if where == "stdout" else str(path)
    env = {**SILENT, "OTEL_PYTHON_CONCURRENCY_LOG_JSON": target, "PYTHONWARNINGS": "ignore"}
    ended = run(SPEAKS.replace("{ending}", ending), env=env)
    assert ended.code == 0, ended.err
    lines = lines_in(ended.out if where == "stdout" else path.read_text())
    assert Counter(line["message"] for line in lines) == {"in a task": 1, "child": 1, "last words": 1}
    by_message = {line["message"]: line for line in lines}
    told = by_message["in a task"]["attributes"]
    assert (told["asyncio.task.name"], told["request_id"]) == ("packing", "order-7")
    assert len(by_message["in a task"]["trace_id"]) == 32
    pids = [by_message[each]["attributes"]["process.pid"] for each in ("in a task", "child", "last words")]
    assert pids[0] == pids[2] != pids[1]


def test_they_are_exported_as_well_and_counted(
    run: Run, tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    path = tmp_path / "log.jsonl"
    env = environ_for(receiver) | {"OTEL_PYTHON_CONCURRENCY_LOG_JSON": str(path)}
    program = "import logging\nfor number in range(10):\n    logging.getLogger('shop').warning('hello')\n"
    assert run(program, env=env).code == 0
    exported = [each for each in receiver.drain_log_records() if each.scope.name == "shop"]
    assert (len(exported), len(lines_in(path.read_text()))) == (10, 10)
    totals = {
        point.attributes[0].value.string_value: point.as_int
        for each in receiver.drain_metrics()
        if each.metric.name == "otel_concurrency.log.records"
        for point in each.metric.sum.data_points
    }
    assert totals == {"written": 10, "dropped": 0}


STUCK = """
    import logging, os, sys
    read_end, write_end = os.pipe()
    os.dup2(write_end, 1)
    for number in range(2000):
        logging.getLogger("shop").warning("x" * 100)
    print("through", file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pipes block there")
def test_a_reader_that_never_reads_holds_neither_the_program_nor_its_end(run: Run) -> None:
    """The end waits for as long as it may, and no longer."""
    env = {
        **SILENT,
        "OTEL_PYTHON_CONCURRENCY_LOG_JSON": "stdout",
        "OTEL_PYTHON_CONCURRENCY_EXIT_TIMEOUT": "1",
    }
    began = time.monotonic()
    ended = run(STUCK, env=env)
    assert ended.code == 0
    assert "through" in ended.err.splitlines()
    assert time.monotonic() - began < 20


def test_by_default_nothing_is_written(run: Run) -> None:
    ended = run(SPEAKS.replace("{ending}", ""), env={**SILENT, "PYTHONWARNINGS": "ignore"})
    assert (ended.code, ended.out) == (0, "")
