"""Counts of signals, against prometheus_client's own metrics, and their sums over processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from service.api.metrics.rows import CPU_SECONDS, ROWS, Kind, Row
from service.api.metrics.tallies import Tally, publish, read_published, retire
from service.core.signals import Signal

BUCKETS = (0.5, 1, 2.5)


def tally_of(kind: Kind, labels: tuple[str, ...] = ("label",)) -> Tally:
    return Tally(Row(kind, "name", "Text.", labels, Signal(), lambda event: event, BUCKETS))


@given(st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.5, 2.6, 1e9])))
def test_observation_counts_in_the_bucket_of_prometheus(values: list[float]) -> None:
    tally = tally_of(Kind.HISTOGRAM)
    registry = CollectorRegistry()
    histogram = Histogram("name", "Text.", ("label",), registry=registry, buckets=BUCKETS).labels("a")
    for value in values:
        tally.receive([(("a",), value)])
        histogram.observe(value)
    *counts, total = tally.figures.get(("a",), [0.0] * 5)
    bounds = ("0.5", "1.0", "2.5", "+Inf")
    expected = [registry.get_sample_value("name_bucket", {"label": "a", "le": bound}) for bound in bounds]
    assert [sum(counts[: index + 1]) for index in range(4)] == expected
    assert total == pytest.approx(registry.get_sample_value("name_sum", {"label": "a"}))


def test_amounts_add_up_by_their_labels() -> None:
    tally = tally_of(Kind.COUNTER)
    tally.receive([(("a",), 1), (("b",), 2)])
    tally.receive([(("a",), 3)])
    assert tally.figures == {("a",): [4], ("b",): [2]}


def test_metric_without_labels_begins_with_zero() -> None:
    assert tally_of(Kind.COUNTER, labels=()).figures == {(): [0]}
    assert tally_of(Kind.COUNTER).figures == {}


def test_process_that_ended_keeps_its_counts_and_loses_its_gauges(tmp_path: Path) -> None:
    counter = next(row.name for row in ROWS if row.kind is Kind.COUNTER)
    gauge = next(row.name for row in ROWS if row.kind is Kind.GAUGE)
    process = os.getpid()
    for generation in (1, 2):
        publish(
            tmp_path, {counter: {("a",): [1.0]}, gauge: {(): [5.0]}, CPU_SECONDS: {(): [0.5]}, "other": {(): [7.0]}}
        )
        assert read_published(tmp_path)[counter] == {("a",): [generation]}
        assert read_published(tmp_path)[gauge] == {(): [5.0]}
        retire(tmp_path, process)
        assert read_published(tmp_path) == {counter: {("a",): [generation]}, CPU_SECONDS: {(): [generation / 2]}}
    retire(tmp_path, process)  # it never counted
    assert read_published(tmp_path)[counter] == {("a",): [2]}
