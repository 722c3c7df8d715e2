"""Connections to the collector, in a forked child: its own.

A socket that parent and child both write to carries nonsense, and a gRPC channel does not work at all in a
child: a call on it waits for ever (docs/processes.md has what was measured). The parent's are put away
without a word on the wire, and new ones are made when the child has something to export.

Leans on `RequestsHTTPTransport._session`, `_OTLPHTTPClient` and `OTLPExporterMixin` (OTLP exporters 1.45).
"""

from __future__ import annotations

import copy
import logging
from typing import Any

from otel_concurrency.signals.first_call import before_first_call
from otel_concurrency.signals.fresh_locks import renew_locks

_logger = logging.getLogger(__name__)
_put_away: list[object] = []
"""Channels of the parent: gRPC must not close in a child what it opened in the parent."""


def renew(exporter: Any) -> None:
    """See to it that an exporter does not touch a connection of the parent again; any other is left alone."""
    renew_locks(exporter)
    if hasattr(exporter, "_initialize_channel_and_stub"):
        _renew_channel(exporter)
        return
    client = getattr(exporter, "_client", None)
    transport = getattr(client, "_transport", None)
    if client is not None and hasattr(transport, "_session"):
        renew_locks(client)
        before_first_call(exporter, "export", lambda: _renew_session(transport))


def _renew_session(transport: Any) -> None:
    """Give the session new adapters: the pools of the old ones, and what they hold, go without a word."""
    for prefix, adapter in list(transport._session.adapters.items()):
        try:
            transport._session.adapters[prefix] = copy.copy(adapter)  # its own way of being pickled
        except Exception:
            _logger.debug("%r cannot be made anew after a fork", adapter, exc_info=True)


def _renew_channel(exporter: Any) -> None:
    if exporter._channel is not None:
        _put_away.append((exporter._channel, exporter._client))
        exporter._channel = exporter._client = None
    if not exporter._shutdown:
        before_first_call(exporter, "export", exporter._initialize_channel_and_stub)
