"""OpenTelemetry's Operator starts no command: it puts two folders on PYTHONPATH, and sets variables."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from typing import Any

import yaml
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

import otel_concurrency
from tests.e2e.conftest import clean_environ, environ_for

TREE = Path(otel_concurrency.__file__).parents[1]
KUBERNETES = TREE / "deploy" / "kubernetes"

OF_THE_OPERATOR = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_PROPAGATORS": "tracecontext,baggage",
    "OTEL_TRACES_SAMPLER": "parentbased_always_on",
    "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=shop.shop-7d4b.main,k8s.pod.name=shop-7d4b",
    "OTEL_SERVICE_NAME": "shop",
}
"""What its `internal/instrumentation` adds by itself: python.go and sdk.go, 2026-08."""

PROGRAM = """
    import asyncio

    async def work():
        await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*(asyncio.create_task(work()) for _ in range(5)))

    asyncio.run(main())
"""


def instrumentation() -> dict[str, Any]:
    """Return the resource's `spec`."""
    loaded = yaml.safe_load((KUBERNETES / "instrumentation.yaml").read_text(encoding="utf-8"))
    assert (loaded["apiVersion"], loaded["kind"]) == ("opentelemetry.io/v1alpha1", "Instrumentation")
    spec: dict[str, Any] = loaded["spec"]
    return spec


def test_a_pod_with_the_resource_is_ours(tmp_path: Path, receiver: OtlpProtoTestServer) -> None:
    """An interpreter that has nothing installed counts its tasks."""
    packages = sysconfig.get_paths()["purelib"]
    compiled = sysconfig.get_paths()["platlib"]
    path = [f"{packages}/opentelemetry/instrumentation/auto_instrumentation", packages, compiled, str(TREE)]
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    chosen = {one["name"]: one["value"] for one in instrumentation()["python"]["env"]}
    ended = subprocess.run(
        [sys._base_executable, "-s", str(program)],  # type: ignore[attr-defined]
        cwd=tmp_path,
        env=clean_environ()
        | OF_THE_OPERATOR
        | chosen
        | environ_for(receiver)
        | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(path))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    counted = {
        point.attributes[0].value.string_value: point.as_int
        for metric in receiver.drain_metrics()
        if metric.metric.name == "asyncio.task.created"
        for point in metric.metric.sum.data_points
        if point.attributes[0].value.string_value.startswith("__main__.")
    }
    assert counted == {"__main__.main": 1, "__main__.work": 5}


def test_the_image_has_our_extension_for_every_python_that_we_support() -> None:
    """Each version's own file is copied beside the others."""
    recipe = (KUBERNETES / "Dockerfile").read_text(encoding="utf-8")
    supported = {"3.10", "3.11", "3.12", "3.13", "3.14"}
    built = {
        line.split()[1].removeprefix("python:").removesuffix("-bookworm")
        for line in recipe.splitlines()
        if line.startswith("FROM python:") and line.split()[1].endswith("-bookworm")
    }
    copied = {
        line.split()[1].removeprefix("--from=native-")
        for line in recipe.splitlines()
        if "--from=native-" in line
    }
    assert built == supported
    assert copied == supported - {"3.13"}  # in whose folder the others come together
