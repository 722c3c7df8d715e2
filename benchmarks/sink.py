"""An OTLP/HTTP sink that answers 200 and nothing else; it counts what it got when asked, not while loaded.

`GET /report` answers with the counts since the last report, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gzip
import json
from typing import cast

from benchmarks.load import content_length
from benchmarks.variants import is_installed, new_loop

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class Sink:
    """What arrived since the last report, undecoded."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes, bytes]] = []

    def report(self) -> dict[str, object]:
        """Decode and count what arrived, and forget it."""
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        bodies, self.bodies = self.bodies, []
        counts: collections.Counter[str] = collections.Counter()
        spans: collections.Counter[str] = collections.Counter()
        metrics: set[str] = set()
        for path, head, body in bodies:
            counts["exports"] += 1
            counts["bytes"] += len(body)
            plain = gzip.decompress(body) if b"\r\ncontent-encoding: gzip" in head.lower() else body
            if path.endswith("/traces"):
                for resource_spans in ExportTraceServiceRequest.FromString(plain).resource_spans:
                    for scope_spans in resource_spans.scope_spans:
                        for span in scope_spans.spans:
                            spans[f"{scope_spans.scope.name} {kind_name(span.kind)} {span.name}"] += 1
            elif path.endswith("/logs"):
                for resource_logs in ExportLogsServiceRequest.FromString(plain).resource_logs:
                    counts["log_records"] += sum(len(logs.log_records) for logs in resource_logs.scope_logs)
            elif path.endswith("/metrics"):
                for resource_metrics in ExportMetricsServiceRequest.FromString(plain).resource_metrics:
                    for scope_metrics in resource_metrics.scope_metrics:
                        metrics.update(metric.name for metric in scope_metrics.metrics)
        return {**counts, "spans": dict(spans), "metrics": sorted(metrics)}


def kind_name(kind: int) -> str:
    """Return a span kind's name in lower case, as OTLP numbers them."""
    return ("unspecified", "internal", "server", "client", "producer", "consumer")[kind]


class Connection(asyncio.Protocol):
    """One keep-alive connection of an exporter, or of whoever asks for the report."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._received = bytearray()
        self._missing = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        if len(self._received) < self._missing:
            return
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._received[:head_end])
        self._missing = head_end + 4 + content_length(head)
        if len(self._received) < self._missing:
            return
        body = bytes(self._received[head_end + 4 : self._missing])
        del self._received[: self._missing]
        self._missing = 0
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if method == "POST":
            self._sink.bodies.append((path, head, body))
            self._transport.write(OK)
        else:
            answer = json.dumps(self._sink.report()).encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(answer), answer)
            )


async def serve(port: int) -> None:
    """Serve on loopback for ever; print the port once connections are welcome."""
    sink = Sink()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(sink), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 for a free one, printed")
    arguments = parser.parse_args()
    new_loop("uvloop" if is_installed("uvloop") else "asyncio").run_until_complete(serve(arguments.port))


if __name__ == "__main__":
    main()
