"""Which standard `OTEL_*` variables our distro fills in, and with what, where the user has said nothing.

Pure: reads a mapping, returns what to set. `docs/configuration.md` tells the same to people.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

GRPC = "grpc"
HTTP = "http/protobuf"
GRPC_PORT = 4317

_SIGNALS = ("TRACES", "METRICS", "LOGS")
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL_OF_EXPORTER = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}


def default_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Decide what to set beside the user's own variables.

    All three signals go to OTLP. The protocol follows the endpoint's port, signal by signal; without any
    endpoint it is HTTP/protobuf to localhost:4318. HTTP spans and metrics get the stable semantic
    conventions, which is what FastAPI's own telemetry speaks already.

    Args:
        environ: The process environment.

    Returns:
        Variables that are not set, or set to nothing, with the value that ours start with.
    """
    chosen = {
        f"OTEL_{signal}_EXPORTER": "otlp" for signal in _SIGNALS if f"OTEL_{signal}_EXPORTER" not in environ
    }
    chosen |= _protocols(environ)
    if not environ.get("OTEL_SEMCONV_STABILITY_OPT_IN"):
        chosen["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    return chosen


def protocol_of(endpoint: str) -> str:
    """Tell which OTLP protocol an endpoint speaks, by its port: 4317 is gRPC's.

    Args:
        endpoint: A URL, or `host:port` as gRPC allows it.
    """
    try:
        port = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").port
    except ValueError:  # not a port: the exporter will say so, in its own words
        port = None
    return GRPC if port == GRPC_PORT else HTTP


def _protocols(environ: Mapping[str, str]) -> dict[str, str]:
    if environ.get(_PROTOCOL):
        return {}
    general = protocol_of(environ.get(_ENDPOINT, ""))
    chosen = {_PROTOCOL: general}
    for signal in _SIGNALS:
        variable = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
        if environ.get(variable):
            continue
        # An exporter that is named with its protocol has decided; a different default would only earn
        # the SDK's warning about conflicting values.
        exporter = environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
        endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        protocol = _PROTOCOL_OF_EXPORTER.get(exporter) or (protocol_of(endpoint) if endpoint else general)
        if protocol != general:
            chosen[variable] = protocol
    return chosen
