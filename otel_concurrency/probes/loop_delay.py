"""What a callback would have waited for its turn: worked out from iterations.

Of callbacks that become due at any time, one every `EVERY_NS` on average, say: who comes while the loop waits
is called at once; who comes in an iteration waits for the rest of it. If more was due by then, the loop looks
for events without waiting, and the next iteration calls it in the order in which it came: who comes first in
an iteration that took `d`, with `e` for the next one, waits for `d`, who comes last for `e`, all others for
what lies between. If nothing was due, `e` is 0. That is what `call_soon_threadsafe` would have told at any
time, without a callback; a test compares the two. Not in it is what waking up takes. Where one callback keeps
an iteration for itself and asks for the next one at its end, those between the extremes are told too high,
the extremes are not.

So a histogram of delays is one of times: each bucket says for how long the loop was in a state in which a
callback would have waited for so long.
"""

from __future__ import annotations

from dataclasses import replace

from otel_concurrency.probes.histogram import HistogramState

EVERY_NS = 1_000_000
"""A delay is counted for each of these."""

SPREAD_NS = 500_000
"""Delays of iterations that are shorter are told by their mean; nobody notices, and counting costs less."""

SLICES = 16
"""Into how many delays a longer iteration is cut."""


def delays(times: HistogramState, idle_ns: int) -> HistogramState:
    """Return how many callbacks would have waited for how long.

    Args:
        times: A histogram whose buckets hold ns; its sum is that of the delays already.
        idle_ns: For how long the loop waited for events.
    """
    zero_count = idle_ns // EVERY_NS
    counts = tuple(ns // EVERY_NS for ns in times.bucket_counts)
    return replace(
        times, count=zero_count + sum(counts), min_ns=0, zero_count=zero_count, bucket_counts=counts
    )
