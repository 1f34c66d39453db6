"""Counts of the signals of this process, and their sums over several processes.

An event costs a look-up and an addition for each metric. The figures of a process are plain lists of numbers by metric
and labels, so that processes can share them as files.
"""

from __future__ import annotations

import fcntl
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from service.api.metrics.rows import CPU_SECONDS, ROWS, Kind, Row

#: The environment variable with the directory where worker processes share their figures.
DIRECTORY_KEY = "OPENCLAW_METRICS_DIR"

#: By the name of the metric and the values of its labels: one number, or for a histogram the observations in each
#: bucket, those above all of them, and the sum of what was observed.
Figures = dict[str, dict[tuple[str, ...], list[float]]]

_ENDED = "ended.json"

#: Metrics of a process that still count when it has ended.
_LASTING = {CPU_SECONDS, *(row.name for row in ROWS if row.kind is not Kind.GAUGE)}


class Tally:
    """The sums of what events add to the metric of `row`."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.figures: dict[tuple[str, ...], list[float]] = {}
        self._empty = [0.0] * (len(row.buckets) + 2 if row.kind is Kind.HISTOGRAM else 1)
        if not row.labels:
            self.figures[()] = self._empty.copy()
        self.receive = self._observe if row.kind is Kind.HISTOGRAM else self._add

    def _add(self, event: Any) -> None:
        figures = self.figures
        for labels, amount in self.row.read(event):
            counts = figures.get(labels)
            if counts is None:
                counts = figures[labels] = self._empty.copy()
            counts[0] += amount

    def _observe(self, event: Any) -> None:
        figures, row = self.figures, self.row
        for labels, amount in row.read(event):
            counts = figures.get(labels)
            if counts is None:
                counts = figures[labels] = self._empty.copy()
            counts[bisect_left(row.buckets, amount)] += 1
            counts[-1] += amount


def add_up(parts: Iterable[Figures]) -> Figures:
    """Return the sums of figures."""
    total: Figures = {}
    for part in parts:
        for name, series in part.items():
            sums = total.setdefault(name, {})
            for labels, numbers in series.items():
                sums[labels] = [a + b for a, b in zip(sums.get(labels, [0.0] * len(numbers)), numbers, strict=True)]
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
