"""How many calls of a dependency should be under way at once, judged by how long they take.

Below its saturation a dependency answers more calls in the time that one takes; beyond it, it only answers
later. The limit looks for the point in between, in windows of calls: Little's law (throughput times the time
that an unhurried call takes) says how many calls keep the dependency busy, and the 99th percentile, beside
that of unhurried calls, says whether they wait there for each other. The step is that of Netflix's
`concurrency-limits`, `Gradient2Limit`; its long average of latencies drifts up with a queue that stays, so
the one here is anchored: now and then, for a moment, the limit is halved to see what a call takes unhurried.
"""

from __future__ import annotations

import math

INITIAL = 20
MINIMUM = 1
MAXIMUM = 1_000
TOLERANCE = 1.3
"""How much later the slowest calls may come back than unhurried ones, before the limit falls."""

WINDOW_NS = 250_000_000
"""How long calls are gathered before the limit moves, at least."""

SAMPLES = 50
"""How many calls, at least; a window lasts until it has them."""

MAX_SAMPLES = 2_000
PROBE_EVERY = 40
"""Windows of saturation after which an unhurried call is measured anew."""

_SMOOTHING = 0.5
_FALL = 0.5
_RISE = 0.1
_NEWS = 0.9  # what is less than this of what was known
_SOON = 3  # windows until the first one


class ConcurrencyLimit:
    """The limit and what it is judged by; knows no clock, and one caller at a time.

    Args:
        initial: Where to begin.
        minimum: Never less, 1 at least.
        maximum: Never more.
        tolerance: See `TOLERANCE`; above 1.
        window_ns: See `WINDOW_NS`.

    Attributes:
        limit: How many calls may be under way.
        throughput: Moving average of calls that came back, a second.
        p99_ns: Moving average of the windows' 99th percentile.
        unhurried_p99_ns: The same of calls that do not wait for each other; 0 before there were any.
        unhurried_mean_ns: Their mean.

    Raises:
        ValueError: The numbers leave no room for a limit.
    """

    def __init__(
        self,
        *,
        initial: int = INITIAL,
        minimum: int = MINIMUM,
        maximum: int = MAXIMUM,
        tolerance: float = TOLERANCE,
        window_ns: int = WINDOW_NS,
    ) -> None:
        if not 1 <= minimum <= initial <= maximum:
            raise ValueError(f"not 1 <= minimum {minimum} <= initial {initial} <= maximum {maximum}")
        if not (tolerance > 1 and math.isfinite(tolerance)):
            raise ValueError(f"a tolerance of {tolerance} is not above 1")
        self._minimum, self._maximum = minimum, maximum
        self._tolerance = tolerance
        self._window_ns = window_ns
        self._estimate = float(initial)
        self.limit = initial
        self.throughput = 0.0
        self.p99_ns = self.unhurried_p99_ns = self.unhurried_mean_ns = 0.0
        self._latencies: list[int] = []
        self._began_ns: int | None = None
        self._most = 0
        self._saturated = PROBE_EVERY - _SOON  # nobody knows what an unhurried call takes
        self._probe = 0  # windows until the probe is over: in the first one, those from before it come back

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {self.limit} [{self.throughput:.3g}/s, p99 {self.p99_ns / 1e6:.3g} ms]>"

    def observe(self, latency_ns: int, in_flight: int, now_ns: int, *, is_frozen: bool = False) -> bool:
        """Take note of a call that came back.

        Args:
            latency_ns: How long it took.
            in_flight: How many were under way just then, itself among them.
            now_ns: Monotonic time.
            is_frozen: Whether latencies say nothing about the dependency now: this process has no CPU, say.

        Returns:
            Whether the limit is another one now.
        """
        if self._began_ns is None or is_frozen:
            self._begin(now_ns)
            if is_frozen:
                return False
        self._latencies.append(latency_ns)
        self._most = max(self._most, in_flight)
        began_ns = self._began_ns
        elapsed_ns = now_ns - began_ns if began_ns is not None else 0
        count = len(self._latencies)
        if elapsed_ns <= 0 or not (
            count >= MAX_SAMPLES or (count >= SAMPLES and elapsed_ns >= self._window_ns)
        ):
            return False
        before = self.limit
        self._step(elapsed_ns)
        self._begin(now_ns)
        return self.limit != before

    def _begin(self, now_ns: int) -> None:
        self._began_ns = now_ns
        self._latencies = []
        self._most = 0

    def _step(self, elapsed_ns: int) -> None:
        latencies = sorted(self._latencies)
        mean_ns = sum(latencies) / len(latencies)
        p99_ns = float(latencies[math.ceil(0.99 * len(latencies)) - 1])
        if self._probe:
            self._probe -= 1
            if not self._probe:
                self._end_probe(p99_ns, mean_ns)
            return
        throughput = len(latencies) / elapsed_ns * 1e9
        self.throughput += (throughput - self.throughput) * (_SMOOTHING if self.throughput else 1)
        self.p99_ns += (p99_ns - self.p99_ns) * (_SMOOTHING if self.p99_ns else 1)
        is_saturated = self._most >= self.limit
        if not self.unhurried_p99_ns:
            self._anchor(p99_ns, mean_ns, fall=1, rise=1)
        else:  # where nobody waits, that is what a call takes
            self._anchor(p99_ns, mean_ns, fall=_FALL, rise=0 if is_saturated else _RISE)
        self._move(is_saturated)
        self._saturated += is_saturated
        if self._saturated >= PROBE_EVERY:
            self._begin_probe()

    def _end_probe(self, p99_ns: float, mean_ns: float) -> None:
        is_news = p99_ns < self.unhurried_p99_ns * _NEWS or mean_ns < self.unhurried_mean_ns * _NEWS
        if is_news and self.limit > self._minimum:  # half of far too many are too many, too
            self._anchor(p99_ns, mean_ns, fall=1, rise=0)
            self._begin_probe()
        else:
            self._anchor(p99_ns, mean_ns, fall=1 if is_news else _FALL, rise=_FALL)
            self._set(self._estimate)

    def _begin_probe(self) -> None:
        self._saturated, self._probe = 0, 2
        self.limit = max(self._minimum, self.limit // 2)

    def _anchor(self, p99_ns: float, mean_ns: float, *, fall: float, rise: float) -> None:
        """Go so far towards what was measured, each number by itself: one slow call is no slow mean."""
        more = p99_ns - self.unhurried_p99_ns
        self.unhurried_p99_ns += more * (rise if more > 0 else fall)
        more = mean_ns - self.unhurried_mean_ns
        self.unhurried_mean_ns += more * (rise if more > 0 else fall)

    def _move(self, is_saturated: bool) -> None:
        gradient = self._tolerance * self.unhurried_p99_ns / self.p99_ns if self.p99_ns else 1.0
        gradient = min(1.0, max(0.5, gradient))
        if gradient == 1.0 and not is_saturated:
            return  # nobody asks for more
        room = math.sqrt(self._estimate)
        wanted = self._estimate * gradient + (room if is_saturated else 0.0)
        # Little's law: so many keep it busy. Fewer than are wanted now, where more would only wait there.
        keeps_busy = self.throughput * self.unhurried_mean_ns / 1e9
        if is_saturated:
            wanted = min(wanted, keeps_busy * self._tolerance + room)
        self._set(self._estimate + (wanted - self._estimate) * _SMOOTHING)

    def _set(self, estimate: float) -> None:
        self._estimate = min(float(self._maximum), max(float(self._minimum), estimate))
        self.limit = int(self._estimate)
