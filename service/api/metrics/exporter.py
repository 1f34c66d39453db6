"""Count what the signals of this process report, and write it as Prometheus or OpenMetrics text.

Several worker processes share their figures in a directory, and any of them returns the sums. What another worker has
counted since it last shared is missing; no counter ever goes down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service import __version__
from service.api.metrics.definitions import ROWS, Events, Kind, Row
from service.api.metrics.gauges import CPU_SECONDS, GAUGES, PROCESS
from service.api.metrics.tallies import DIRECTORY_KEY, Figures, Tally, publish, read_published
from service.core.concurrency import sleep, spawn

_SHARE_SECONDS = 1.0

#: Values of the gauges, by their names and labels.
Gauges: TypeAlias = Mapping[tuple[str, tuple[str, ...]], float]


class Metrics(Collector):
    """The metrics of this process; `connect` begins to count. `read_gauges` returns the values of `GAUGES`."""

    def __init__(self, read_gauges: Callable[[], Gauges]) -> None:
        directory = os.environ.get(DIRECTORY_KEY)
        self._shared = None if directory is None else Path(directory)
        self._read_gauges = read_gauges
        self._tallies = [Tally(events, rows) for events, rows in _rows_by_events().items()]
        self._process = ProcessCollector(registry=None)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def connect(self) -> None:
        """Begin to count."""
        for tally in self._tallies:
            tally.events.signal.connect(tally.receive)
        if self._shared is not None:
            self._sharing = spawn(self._share, self._shared)

    def disconnect(self) -> None:
        """Stop counting."""
        for tally in self._tallies:
            tally.events.signal.disconnect(tally.receive)
        if self._shared is not None:
            self._sharing.kill()

    def publish(self) -> None:
        """Share the figures with the other workers, if there are any."""
        if self._shared is not None:
            publish(self._shared, self._read())

    def to_text(self, accept: str) -> tuple[str, bytes]:
        """Return a media type, that of OpenMetrics if `accept` names it, and the text of all metrics."""
        encode, media_type = choose_encoder(accept)
        return media_type, encode(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, those of all workers added up."""
        figures = self._read()
        if self._shared is None:
            yield from self._process.collect()
        else:
            publish(self._shared, figures)  # or a counter might go down when another worker is asked next
            figures = read_published(self._shared)
            yield from _to_process_families(figures)
        for row in ROWS:
            yield _to_family(row, figures.get(row.name, {}))
        for name, text, labels in GAUGES:
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, (value,) in figures[name].items():
                family.add_metric(values, value)
            yield family
        build = GaugeMetricFamily("openclaw_build_info", "1, with the version.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build

    def _share(self, directory: Path) -> None:
        while True:
            publish(directory, self._read())
            sleep(_SHARE_SECONDS)

    def _read(self) -> Figures:
        figures: Figures = {}
        for tally in self._tallies:
            figures |= tally.read()
        for (name, labels), value in self._read_gauges().items():
            figures.setdefault(name, {})[labels] = [value]
        if self._shared is not None:
            samples = (sample for family in self._process.collect() for sample in family.samples)
            figures |= {sample.name: {(): [sample.value]} for sample in samples if sample.name in PROCESS}
        return figures


def _rows_by_events() -> dict[Events, list[Row]]:
    rows: dict[Events, list[Row]] = {}
    for row in ROWS:
        rows.setdefault(row.events, []).append(row)
    return rows


def _to_family(row: Row, series: Mapping[tuple[str, ...], list[float]]) -> Metric:
    if row.kind is not Kind.HISTOGRAM:
        counter = CounterMetricFamily(row.name, row.text, labels=row.labels)
        for labels, (value,) in series.items():
            counter.add_metric(labels, value)
        return counter
    family = HistogramMetricFamily(row.name, row.text, labels=row.labels)
    bounds = [*map(floatToGoString, row.buckets), "+Inf"]
    for labels, (*counts, total) in series.items():
        family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
    return family


def _to_process_families(figures: Figures) -> Iterable[Metric]:
    for name, text in PROCESS.items():
        if name in figures:
            kind = CounterMetricFamily if name == CPU_SECONDS else GaugeMetricFamily
            yield kind(name, text, value=figures[name][()][0])
