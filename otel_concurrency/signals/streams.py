"""What one metric reader has been told: its temporality, its form of histogram, and the totals it knows.

A delta is the difference to what this reader heard last, so each reader needs its own memory. Cumulative
readers need one too: a total that went down began anew, and its start time must say so.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics._internal.point import ExponentialHistogram, ExponentialHistogramDataPoint
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataPointT,
    DataT,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from otel_concurrency.probes.histogram import EXEMPLARS_PER_HISTOGRAM, HistogramState
from otel_concurrency.signals.names import Instrument, Kind
from otel_concurrency.signals.points import began_anew, difference, explicit_point, exponential_point, seconds
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, Labels, Reading, SumReading

SeriesKey = tuple[tuple[str, str | int], ...]
Exemplars = dict[tuple[str, SeriesKey], list[Exemplar]]
"""Exemplars by the name of their instrument and their series."""


def series_key(attributes: Labels) -> SeriesKey:
    """Return what tells one series of an instrument from the others."""
    return tuple(attributes.items())


@dataclass(frozen=True, slots=True)
class Collected:
    """All readings of one source.

    Attributes:
        serial: The number of the source's registration; never used again for another.
        start_unix_ns: When the source's totals were zero.
        readings: Whole totals, exemplars apart.
    """

    serial: int
    start_unix_ns: int
    readings: Sequence[Reading]


@dataclass(slots=True)
class _Told:
    """What the reader heard last of one source: when, and per series the start of its total and the total."""

    at_unix_ns: int
    sums: dict[Instrument, dict[SeriesKey, tuple[int, int]]] = field(default_factory=dict)
    histograms: dict[Instrument, dict[SeriesKey, tuple[int, HistogramState]]] = field(default_factory=dict)


class Stream:
    """One reader's view of all sources.

    `lock` is for its owner: `tell` runs in one thread at a time.

    Args:
        temporalities: What the reader wants, per kind of instrument.
        explicit_histograms: Whether it gets histograms with explicit bounds rather than exponential ones.
    """

    def __init__(
        self, temporalities: Mapping[Kind, AggregationTemporality], *, explicit_histograms: bool
    ) -> None:
        self.lock = threading.Lock()
        self._temporalities = temporalities
        self._explicit_histograms = explicit_histograms
        self._told: dict[int, _Told] = {}
        self._waiting: Exemplars = {}

    def expect(self, exemplars: Exemplars) -> None:
        """Keep exemplars until this reader collects: the slowest few of each series."""
        for key, fresh in exemplars.items():
            kept = [*self._waiting.get(key, ()), *fresh]
            kept.sort(key=lambda exemplar: exemplar.value)
            self._waiting[key] = kept[-EXEMPLARS_PER_HISTOGRAM:]

    def take_expected(self) -> Exemplars:
        """Return the exemplars that waited for this reader, and forget them."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    def tell(
        self,
        collected: Sequence[Collected],
        registered: Collection[int],
        exemplars: Exemplars,
        at_unix_ns: int,
    ) -> list[Metric]:
        """Turn readings into this reader's metrics, and remember them.

        Args:
            collected: The sources that could be read; one that could not keeps what was told of it.
            registered: The serials of all sources; what was told of any other is forgotten.
            exemplars: Those for this reader.
            at_unix_ns: When the readings were made.
        """
        points: dict[Instrument, list[DataPointT]] = {}
        for source in collected:
            self._told[source.serial] = self._tell_source(source, exemplars, at_unix_ns, points)
        for serial in [serial for serial in self._told if serial not in registered]:
            self._tell_source(Collected(serial, 0, ()), exemplars, at_unix_ns, points)
            del self._told[serial]
        return [
            Metric(
                instrument.name,
                instrument.description,
                instrument.unit,
                self._data(instrument, of_instrument),
            )
            for instrument, of_instrument in points.items()
            if of_instrument
        ]

    def _tell_source(
        self,
        source: Collected,
        exemplars: Exemplars,
        at_unix_ns: int,
        points: dict[Instrument, list[DataPointT]],
    ) -> _Told:
        before = self._told.get(source.serial) or _Told(source.start_unix_ns)
        since = before.at_unix_ns
        # The wall clock may have been set back; a point must not end before it starts.
        now = _Told(max(at_unix_ns, since))
        for reading in source.readings:
            out = points.setdefault(reading.instrument, [])
            if isinstance(reading, SumReading):
                self._tell_sums(reading, before, now, out)
            elif isinstance(reading, HistogramReading):
                self._tell_histograms(reading, before, now, exemplars, out)
            else:
                _tell_gauges(reading, now, out)
        for instrument, sums in before.sums.items():
            if instrument.kind == "updowncounter" and self._is_delta(instrument):
                # Whoever adds up our deltas would otherwise keep the last level of a series that ended.
                still_there = now.sums.get(instrument, {})
                points.setdefault(instrument, []).extend(
                    _number(instrument, dict(key), since, now.at_unix_ns, -total)
                    for key, (_, total) in sums.items()
                    if total and key not in still_there
                )
        return now

    def _tell_sums(self, reading: SumReading, before: _Told, now: _Told, out: list[DataPointT]) -> None:
        instrument = reading.instrument
        only_grows = instrument.kind == "counter"
        is_delta = self._is_delta(instrument)
        known = before.sums.get(instrument, {})
        told = now.sums.setdefault(instrument, {})
        for attributes, total in reading.points:
            key = series_key(attributes)
            # A series that the reader does not know was not there when it heard last, so it began since then.
            start, value = before.at_unix_ns, total
            if (heard := known.get(key)) and not (only_grows and total < heard[1]):
                if is_delta:
                    value = total - heard[1]
                else:
                    start = heard[0]
            told[key] = (start, total)
            if value or not is_delta:
                out.append(_number(instrument, attributes, start, now.at_unix_ns, value))

    def _tell_histograms(
        self,
        reading: HistogramReading,
        before: _Told,
        now: _Told,
        exemplars: Exemplars,
        out: list[DataPointT],
    ) -> None:
        instrument = reading.instrument
        is_delta = self._is_delta(instrument)
        make_point = explicit_point if self._explicit_histograms else exponential_point
        known = before.histograms.get(instrument, {})
        told = now.histograms.setdefault(instrument, {})
        for attributes, total in reading.points:
            if not total.count:
                continue
            key = series_key(attributes)
            start, state = before.at_unix_ns, total
            if heard := known.get(key):
                if is_delta:
                    state = difference(total, heard[1])
                elif not began_anew(total, heard[1]):
                    start = heard[0]
            # What is remembered must not keep alive the contexts that the probe's exemplars come from.
            told[key] = (start, replace(total, exemplars=()) if total.exemplars else total)
            if state.count:
                slowest = exemplars.get((instrument.name, key), ())
                out.append(make_point(attributes, start, now.at_unix_ns, state, slowest))

    def _is_delta(self, instrument: Instrument) -> bool:
        return self._temporalities[instrument.kind] is AggregationTemporality.DELTA

    def _data(self, instrument: Instrument, points: list[DataPointT]) -> DataT:
        temporality = self._temporalities[instrument.kind]
        if instrument.kind == "gauge":
            return Gauge(cast("list[NumberDataPoint]", points))
        if instrument.kind != "histogram":
            return Sum(cast("list[NumberDataPoint]", points), temporality, instrument.kind == "counter")
        if self._explicit_histograms:
            return Histogram(cast("list[HistogramDataPoint]", points), temporality)
        return ExponentialHistogram(cast("list[ExponentialHistogramDataPoint]", points), temporality)


def _tell_gauges(reading: GaugeReading, now: _Told, out: list[DataPointT]) -> None:
    # Like the SDK's own gauges, these have no start: its annotation forbids None, its encoders never read it.
    start = cast(int, None)
    out.extend(
        _number(reading.instrument, attributes, start, now.at_unix_ns, value)
        for attributes, value in reading.points
    )


def _number(
    instrument: Instrument, attributes: Labels, start_unix_ns: int, at_unix_ns: int, value: int | float
) -> NumberDataPoint:
    in_unit = seconds(value) if instrument.unit == "s" else value
    return NumberDataPoint(attributes, start_unix_ns, at_unix_ns, in_unit)
