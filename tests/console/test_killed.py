"""A console that is killed has lost nothing of what it said it had stored."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from pathlib import Path

from otel_concurrency.console import Store
from tests.console.conftest import PROTOBUF, trace_request

PATIENCE_S = 60.0
SENDERS = 4
ENOUGH = 60
CONSOLE = """
import sys
from otel_concurrency.console import Receiver, Store
with Store(sys.argv[1]) as store, Receiver(store, http_port=0, grpc_port=0) as receiver:
    print(receiver.http_endpoint.rpartition(":")[2], flush=True)
    sys.stdin.read()
"""


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    """Four senders at once, so that commits are shared; killed amid them, three times over the same file."""
    path = tmp_path / "telemetry.duckdb"
    acknowledged: list[str] = []
    for lap in range(3):
        acknowledged += send_until_killed(path, lap)
        with Store(path) as store:
            stored = {name for (name,) in store.query("SELECT name FROM spans")}
            assert set(acknowledged) <= stored
            described = (
                "SELECT count(*) FROM spans LEFT JOIN resources USING (resource_key) WHERE service IS NULL"
            )
            assert store.query(described) == [(0,)]
            assert store.counts()["spans"].stored == store.query("SELECT count(*) FROM spans")[0][0]
    assert len(acknowledged) >= 3 * ENOUGH


def send_until_killed(path: Path, lap: int) -> list[str]:
    acknowledged: list[str] = []
    enough = threading.Event()
    line = [sys.executable, "-c", CONSOLE, str(path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as console:
        assert console.stdout is not None
        port = int(console.stdout.readline())

        def send(sender: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            number = 0
            while True:
                names = [f"{lap} {sender} {number} {part}" for part in range(10)]
                body = trace_request(*({"name": name} for name in names)).SerializeToString()
                try:
                    connection.request("POST", "/v1/traces", body, {"Content-Type": PROTOBUF})
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException):
                    break
                if answer.status == 200:
                    acknowledged.extend(names)
                number += 1
                if len(acknowledged) >= ENOUGH:
                    enough.set()
            connection.close()

        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(SENDERS)]
        for thread in threads:
            thread.start()
        try:
            assert enough.wait(PATIENCE_S)
        finally:
            console.kill()
            for thread in threads:
                thread.join()
    return acknowledged
