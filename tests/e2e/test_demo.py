"""`otel-concurrency demo`, as a newcomer runs it: the trace, its logs, and the numbers of its traffic."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

COMMAND = Path(sys.executable).with_name("otel-concurrency")
ANY_PORTS = ("--http-port", "0", "--grpc-port", "0")

CREATED_AND_FAILED = {
    # Of 30 requests 15 are plain checkouts, 3 a guest's, 3 slow, 3 sold out, of 3 items each; 6 list goods.
    ("storefront.place_order", "shop"): (24, 3),
    ("storefront.reserve_item", "shop"): (72, 3),
    ("storefront.quote_shipping", "shop"): (24, 0),
    ("storefront.charge", "shop"): (21, 0),
    ("storefront.score_risk", "shop"): (21, 0),
    ("storefront.send_receipt", "shop"): (21, 0),
    ("storefront.award_points", "shop"): (21, 3),
    ("storefront.fetch_stock", "shop"): (6, 0),
    ("storefront.fetch_prices", "shop"): (6, 0),
    ("storefront.refresh_prices", "shop"): (1, 0),
    ("warehouse.fetch_from_shelf", "warehouse"): (72, 0),
    ("warehouse.check_quality", "warehouse"): (72, 0),
}


def rows(table: str) -> dict[tuple[str, str], list[str]]:
    """Return the table's numbers by coroutine and service: live, created, failed, p50, p99, busy, steps."""
    cells = [re.split(r"  +| (?=shop|warehouse)", line.strip(), maxsplit=1) for line in table.splitlines()]
    found = {}
    for function, rest in (row for row in cells if len(row) == 2):
        service, *numbers = re.findall(r"[\d.,]+ (?:s|ms|µs|ns)\b|\S+", rest)
        found[function, service] = numbers
    return found


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), "demo", "--requests", "30", *ANY_PORTS]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


@pytest.mark.timeout(120)
def test_it_succeeds_and_tells_its_progress(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.stderr.splitlines() == [
        "starting the warehouse and the storefront under opentelemetry-instrument",
        "sending 30 requests, 4 at a time",
        "waiting for the metrics",
        "stopping the services",
        "To look at all of it in the browser: otel-concurrency demo --console",
    ]
    assert demo.returncode == 0


def test_the_slowest_trace_is_a_checkout_through_both_services(
    demo: subprocess.CompletedProcess[str],
) -> None:
    """The order's task, three items asked for by tasks, the warehouse's answer under each, and the logs."""
    tree = demo.stdout.partition("\nTasks by coroutine")[0]
    lines = [re.split(r" {2,}(?=shop|warehouse|\+)", line)[0] for line in tree.splitlines()[5:] if line]
    story = [re.sub(r"\d+", "N", line.rstrip()) for line in lines]
    asked = [at for at, line in enumerate(story) if line.endswith("─ POST /reserve/N")]
    answered = [line for line in story if line.endswith("└─ POST /reserve/{item}")]
    assert story[0] == "POST /checkout"
    assert (len(asked), len(answered)) == (3, 3)
    assert {story[at - 1].rpartition("─ ")[2] for at in asked} == {"asyncio.task storefront.reserve_item"}
    (order,) = (
        at for at, line in enumerate(story) if line.endswith("· INFO order N: N items for customer N")
    )
    assert story[order - 1].endswith("─ asyncio.task storefront.place_order")
    (ladder,) = (at for at, line in enumerate(story) if line.endswith("· INFO item N: got the ladder"))
    assert story[ladder - 1].endswith("· INFO item N is on the top shelf, getting the ladder")
    assert story[ladder - 2].endswith("└─ asyncio.task warehouse.fetch_from_shelf")
    assert story[ladder - 3].endswith("└─ POST /reserve/{item}")
    assert re.search(r"trace [0-9a-f]{32} · 1[2-9] spans, [567] log records, shop and warehouse", tree)


def test_the_task_table_has_the_numbers_that_the_traffic_implies(
    demo: subprocess.CompletedProcess[str],
) -> None:
    table = rows(demo.stdout.partition("\nTasks by coroutine")[2])
    numbers = {key: tuple(map(int, row[1:3])) for key, row in table.items() if key in CREATED_AND_FAILED}
    assert numbers == CREATED_AND_FAILED
    live = {key: int(table[key][0]) for key in CREATED_AND_FAILED}
    assert live == dict.fromkeys(CREATED_AND_FAILED, 0) | {("storefront.refresh_prices", "shop"): 1}


def test_the_task_table_tells_waiting_from_working(demo: subprocess.CompletedProcess[str]) -> None:
    """The ladder is the slow ones' p99, and costs the loop next to nothing: busy time stays below it."""
    table = rows(demo.stdout.partition("\nTasks by coroutine")[2])
    _, _, _, _, p99, busy, steps = table["warehouse.fetch_from_shelf", "warehouse"]
    assert 300 <= float(p99.split()[0]) * {"ms": 1, "s": 1000}[p99.split()[1]] < 60_000
    assert float(busy.split()[0]) * {"µs": 0.001, "ms": 1, "s": 1000}[busy.split()[1]] < 3 * 300
    # Two steps each: up to the sleep, and after it; the three from the top shelf sleep twice.
    assert int(steps) >= 2 * 72 + 3


def test_it_fits_a_terminal_and_speaks_plainly(demo: subprocess.CompletedProcess[str]) -> None:
    assert max(map(len, demo.stdout.splitlines())) <= 110
    assert "\x1b" not in demo.stdout
    assert re.fullmatch(
        r"Received: [\d,]+ spans, [\d,]+ log records, [\d,]+ data points\.", demo.stdout.splitlines()[-1]
    )


@pytest.fixture
def endless_demo() -> Iterator[subprocess.Popen[str]]:
    command = [str(COMMAND), "demo", "--requests", "100000", *ANY_PORTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_process_behind(number: signal.Signals, endless_demo: subprocess.Popen[str]) -> None:
    assert endless_demo.stderr is not None
    assert any("sending 100000 requests" in line for line in endless_demo.stderr)
    children = psutil.Process(endless_demo.pid).children(recursive=True)
    services = {child for child in children if {"storefront", "warehouse"} & set(child.cmdline())}
    assert len(services) == 2
    endless_demo.send_signal(number)
    assert endless_demo.wait(60) == 130
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def run_with_shop(folder: Path, main: str) -> subprocess.CompletedProcess[str]:
    (folder / "__main__.py").write_text(main)
    command = [str(COMMAND), "demo", "--shop", str(folder), *ANY_PORTS]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_service_that_does_not_start_is_shown_with_its_own_words(tmp_path: Path) -> None:
    done = run_with_shop(tmp_path, "raise SystemExit('the warehouse is on fire')")
    assert done.returncode == 1
    assert "the demo failed: warehouse ended before it listened; the end of its output:" in done.stderr
    assert "    the warehouse is on fire" in done.stderr
    assert done.stdout == ""
