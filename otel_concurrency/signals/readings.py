"""What a source hands to the metric producer: numbers that were aggregated before OpenTelemetry saw them.

A reading gives the running total of every series, from the source's beginning; the producer makes deltas for
the readers that want them. Durations are whole numbers: nanoseconds where the instrument's unit is `s`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.signals.names import Instrument

Labels = Mapping[str, str | int]
"""The attributes of one series. A source lists the keys of an instrument in the same order every time, and
does not change a mapping that it has handed out: data points share it."""


@dataclass(frozen=True, slots=True)
class SumReading:
    """Totals of a counter or an up-down counter.

    Attributes:
        instrument: Of kind `counter` or `updowncounter`.
        points: Attributes and total, one of each series; ns where the unit is `s`.
    """

    instrument: Instrument
    points: Sequence[tuple[Labels, int]]


@dataclass(frozen=True, slots=True)
class GaugeReading:
    """Current values.

    Attributes:
        instrument: Of kind `gauge`.
        points: Attributes and value, one of each series; ns where the unit is `s`.
    """

    instrument: Instrument
    points: Sequence[tuple[Labels, int | float]]


@dataclass(frozen=True, slots=True)
class HistogramReading:
    """Distributions of durations.

    Attributes:
        instrument: Of kind `histogram` and unit `s`.
        points: Attributes and state, one of each series. Exemplars come in one reading only.
    """

    instrument: Instrument
    points: Sequence[tuple[Labels, HistogramState]]


Reading = SumReading | GaugeReading | HistogramReading


class Source(Protocol):
    """Something that can be read at any time, from any thread, and is never read by two at once."""

    @property
    def start_unix_ns(self) -> int:
        """When its totals were zero, ns since the epoch."""
        ...

    def collect(self) -> Iterable[Reading]:
        """Read every instrument once; a series that is left out has ended."""
        ...
