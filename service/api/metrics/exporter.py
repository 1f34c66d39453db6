"""Count what the signals of this process report, and write it as Prometheus or OpenMetrics text.

With several worker processes each writes its figures to files of `PROMETHEUS_MULTIPROC_DIR`, and any of them returns
the sum of all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from service import __version__
from service.api.metrics.rows import GAUGES, PROCESS_GAUGES, ROWS, Row
from service.core.concurrency import sleep, spawn

#: The directory where worker processes share their figures; prometheus_client reads the variable when it is imported.
SHARED_DIRECTORY_KEY = "PROMETHEUS_MULTIPROC_DIR"

_SHARE_SECONDS = 5.0
_CPU_SECONDS = "process_cpu_seconds_total"

#: Values of the gauges, by their names and labels.
Figures = Mapping[tuple[str, tuple[str, ...]], float]


class Metrics:
    """The metrics of this process; `connect` begins to count. `read_figures` returns the values of `GAUGES`."""

    def __init__(self, read_figures: Callable[[], Figures]) -> None:
        self._read_figures = read_figures
        self._is_shared = SHARED_DIRECTORY_KEY in os.environ
        self._registry = CollectorRegistry()
        self._process = ProcessCollector(registry=None if self._is_shared else self._registry)
        self._receivers = [(row.signal, partial(_add, self._adder(row), row.read)) for row in ROWS]
        shown = (*GAUGES, *PROCESS_GAUGES) if self._is_shared else GAUGES
        self._gauges = {name: self._gauge(name, text, labels) for name, text, labels in shown}
        self._gauge("openclaw_build_info", "1, with the version.", ("version",), "max").labels(__version__).set(1)
        if self._is_shared:
            self._cpu = Counter(_CPU_SECONDS, "CPU time of all workers, in seconds.", registry=self._registry)
            self._cpu_seconds = 0.0

    def connect(self) -> None:
        """Begin to count."""
        for signal, receiver in self._receivers:
            signal.connect(receiver)
        if self._is_shared:
            self._sharing = spawn(self._share)

    def disconnect(self) -> None:
        """Stop counting."""
        for signal, receiver in self._receivers:
            signal.disconnect(receiver)
        if self._is_shared:
            self._sharing.kill()

    def to_text(self, accept: str) -> tuple[str, bytes]:
        """Return a media type, that of OpenMetrics if `accept` names it, and the text of all metrics."""
        self._update()
        registry = self._registry
        if self._is_shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        encode, media_type = choose_encoder(accept)
        return media_type, encode(registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...], mode: Any = "livesum") -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)

    def _adder(self, row: Row) -> Callable[..., Callable[[float], None]]:
        """Return a function of a row's labels to the function that adds to its metric: looking it up costs the most."""
        metric: Any
        if row.kind is Histogram:
            metric = Histogram(row.name, row.text, row.labels, registry=self._registry, buckets=row.buckets)
        elif row.kind is Gauge:
            metric = self._gauge(row.name, row.text, row.labels)
        else:
            metric = Counter(row.name, row.text, row.labels, registry=self._registry)

        @lru_cache(maxsize=1024)
        def find(*labels: str) -> Callable[[float], None]:
            child = metric.labels(*labels) if labels else metric
            add: Callable[[float], None] = child.observe if row.kind is Histogram else child.inc
            return add

        return find

    def _share(self) -> None:
        """Keep the gauges of this process current for the workers that return them."""
        while True:
            self._update()
            sleep(_SHARE_SECONDS)

    def _update(self) -> None:
        for (name, labels), value in self._read_figures().items():
            gauge = self._gauges[name]
            (gauge.labels(*labels) if labels else gauge).set(value)
        if self._is_shared:
            self._update_process()

    def _update_process(self) -> None:
        found = {sample.name: sample.value for family in self._process.collect() for sample in family.samples}
        for name, _, _ in PROCESS_GAUGES:
            if name in found:
                self._gauges[name].set(found[name])
        cpu_seconds = found.get(_CPU_SECONDS, self._cpu_seconds)
        self._cpu.inc(cpu_seconds - self._cpu_seconds)
        self._cpu_seconds = cpu_seconds


def _add(find: Callable[..., Callable[[float], None]], read: Callable[[Any], Any], event: object) -> None:
    for labels, value in read(event):
        find(*labels)(value)
