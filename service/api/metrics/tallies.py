"""Counts of the signals of this process, and their sums over several processes.

An event waits until there are enough to be counted together, by their labels: less than half of the cost of counting
each. The figures of a process are plain lists of numbers by metric and labels, so that processes can share
them as files.
"""

from __future__ import annotations

import fcntl
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import add, attrgetter
from pathlib import Path
from typing import Any

import orjson

from service.api.metrics.definitions import ROWS, Amounts, Events, Kind, Labels, Row
from service.api.metrics.gauges import CPU_SECONDS, FULLEST

#: The environment variable with the directory where worker processes share their figures.
DIRECTORY_KEY = "OPENCLAW_METRICS_DIR"

#: By the name of the metric and the values of its labels: one number, or for a histogram the observations in each
#: bucket, those above all of them, and the sum of what was observed.
Figures = dict[str, dict[Labels, list[float]]]

_ENDED = "ended.json"

#: Metrics of a process that still count when it has ended.
_LASTING = {CPU_SECONDS, *(row.name for row in ROWS)}


class Tally:
    """The sums of what events add to the metrics of `rows`, all of the same signal."""

    def __init__(self, events: Events, rows: Iterable[Row]) -> None:
        self.events = events
        self._read_key = attrgetter(*events.key)
        self._rows = [(row, _zeros(row), _starting_series(row)) for row in rows]
        self._waiting: list[Any] = []

    def receive(self, event: Any) -> None:
        """Count an event."""
        waiting = self._waiting
        waiting.append(event)
        if len(waiting) >= self.events.batch:
            self._count()

    def read(self) -> Figures:
        """Return the figures of the metrics."""
        self._count()
        return {row.name: series for row, _, series in self._rows}

    def _count(self) -> None:
        events, self._waiting = self._waiting, []
        groups: dict[Any, list[Any]] = defaultdict(list)
        for event in events:
            groups[self._read_key(event)].append(event)
        for read_key, group in groups.items():
            key = read_key if len(self.events.key) > 1 else (read_key,)
            read: dict[Amounts, list[float]] = {}  # rows share what they read
            for row, zeros, series in self._rows:
                labels = row.to_labels(*key)
                for further, amounts in row.amounts.items():
                    values = read.get(amounts)
                    if values is None:
                        values = read[amounts] = _read_amounts(amounts, group)
                    if values:
                        numbers = series.setdefault((*labels, *further), zeros.copy())
                        numbers[-1] += sum(values) / amounts.divisor
                        if row.kind is Kind.HISTOGRAM:
                            _add_to_buckets(row.buckets, numbers, values)


def _read_amounts(amounts: Amounts, events: Sequence[Any]) -> list[float]:
    """Return what `events` add, in ascending order."""
    if amounts.read is None:
        return [1] * len(events)
    read = map(amounts.read, events)
    return sorted([one for one in read if one is not None] if amounts.with_zero else filter(None, read))


def _zeros(row: Row) -> list[float]:
    return [0.0] * (len(row.buckets) + 2 if row.kind is Kind.HISTOGRAM else 1)


def _starting_series(row: Row) -> dict[Labels, list[float]]:
    return {} if row.labels else {(): _zeros(row)}


def _add_to_buckets(bounds: Sequence[float], counts: list[float], values: Sequence[float]) -> None:
    """Count `values`, which ascend: a third of the cost of finding the bucket of each."""
    begin = 0
    for bucket, bound in enumerate(bounds):
        end = bisect_right(values, bound, begin)
        counts[bucket] += end - begin
        begin = end
    counts[len(bounds)] += len(values) - begin


def add_up(parts: Iterable[Figures]) -> Figures:
    """Return the sums of figures, and of `FULLEST` the largest."""
    total: Figures = {}
    for part in parts:
        for name, series in part.items():
            combine, sums = max if name == FULLEST else add, total.setdefault(name, {})
            for labels, numbers in series.items():
                sums[labels] = list(map(combine, sums.get(labels, [0.0] * len(numbers)), numbers))
    return total


def publish(directory: Path, figures: Figures) -> None:
    """Replace the figures of this process in `directory`."""
    _write(directory, f"{os.getpid()}.json", figures)


def read_published(directory: Path) -> Figures:
    """Return the sums of the figures in `directory`: of the processes that run, and of those that have ended."""
    with _locked(directory):
        return add_up(_read(path) for path in directory.glob("*.json"))


def retire(directory: Path, process: int) -> None:
    """Add the counts of a process that has ended to those of earlier ones, and leave out its gauges."""
    own, ended = directory / f"{process}.json", directory / _ENDED
    if not own.exists():
        return
    kept = {name: series for name, series in _read(own).items() if name in _LASTING}
    with _locked(directory):
        _write(directory, _ENDED, add_up([kept, _read(ended)] if ended.exists() else [kept]))
        own.unlink()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep readers from the moment when a process counts twice, or not at all."""
    file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _write(directory: Path, name: str, figures: Figures) -> None:
    new = directory / f"{name}.new"
    new.write_bytes(orjson.dumps({metric: list(series.items()) for metric, series in figures.items()}))
    new.replace(directory / name)


def _read(path: Path) -> Figures:
    rows = orjson.loads(path.read_bytes())
    return {name: {tuple(labels): numbers for labels, numbers in series} for name, series in rows.items()}
