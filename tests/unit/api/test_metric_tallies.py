"""Counts of signals, against prometheus_client's own metrics, and their sums over processes."""

from __future__ import annotations

import os
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from service.api.metrics.definitions import ROWS, Amounts, Events, Kind, Row
from service.api.metrics.gauges import CPU_SECONDS, FULLEST, GAUGES
from service.api.metrics.tallies import Figures, Tally, add_up, publish, read_published, retire
from service.core.dataclass import replace
from service.core.signals import Signal

BUCKETS = (0.5, 1, 2.5)


class Event(NamedTuple):
    """An event with one label."""

    label: str
    amount: float | None


def row_of(kind: Kind, labels: tuple[str, ...] = ("label",), *, batch: int = 3) -> Row:
    """Return a metric of events."""
    events = Events(Signal(), ("label",), batch)
    amounts = Amounts(attrgetter("amount"))
    return Row(kind, "name", "Text.", labels, events, lambda *key: key if labels else (), {(): amounts}, BUCKETS)


def figures_of(row: Row, *events: tuple[str, float | None]) -> dict[tuple[str, ...], list[float]]:
    tally = Tally(row.events, [row])
    for event in events:
        tally.receive(Event(*event))
    return tally.read()[row.name]


@given(st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.5, 2.6, 1e9])), st.integers(1, 4))
def test_observation_counts_in_the_bucket_of_prometheus(values: list[float], batch: int) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("name", "Text.", ("label",), registry=registry, buckets=BUCKETS).labels("a")
    for value in values:
        histogram.observe(value)
    figures = figures_of(row_of(Kind.HISTOGRAM, batch=batch), *(("a", value) for value in values))
    *counts, total = figures.get(("a",), [0.0] * 5)
    bounds = ("0.5", "1.0", "2.5", "+Inf")
    expected = [registry.get_sample_value("name_bucket", {"label": "a", "le": bound}) for bound in bounds]
    assert [sum(counts[: index + 1]) for index in range(4)] == expected
    assert total == pytest.approx(registry.get_sample_value("name_sum", {"label": "a"}))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=10), st.integers(1, 4))
def test_amounts_add_up_by_their_labels(events: list[tuple[str, int]], batch: int) -> None:
    expected = {(label,): [sum(amount for one, amount in events if one == label)] for label, _ in events}
    assert figures_of(row_of(Kind.COUNTER, batch=batch), *events) == expected


def test_event_without_an_amount_adds_no_series() -> None:
    assert figures_of(row_of(Kind.HISTOGRAM), ("a", None), ("b", 1)) == {("b",): [0, 1, 0, 0, 1]}


def test_zero_adds_a_series_only_where_it_counts() -> None:
    row = row_of(Kind.COUNTER)
    assert figures_of(row, ("a", 0), ("b", 1)) == {("a",): [0], ("b",): [1]}
    without = replace(row, amounts={(): Amounts(attrgetter("amount"), with_zero=False)})
    assert figures_of(without, ("a", 0), ("a", None), ("b", 1)) == {("b",): [1]}


def test_events_are_counted_where_they_have_no_amount() -> None:
    row = replace(row_of(Kind.COUNTER), amounts={(): Amounts()})
    assert figures_of(row, ("a", None), ("a", 5), ("b", 0)) == {("a",): [2], ("b",): [1]}


def test_events_are_grouped_by_all_fields_of_their_key() -> None:
    row = replace(
        row_of(Kind.COUNTER), events=Events(Signal(), ("label", "amount")), to_labels=lambda *key: tuple(map(str, key))
    )
    assert figures_of(row, ("a", 1), ("a", 2), ("a", 1)) == {("a", "1"): [2], ("a", "2"): [2]}


def test_share_of_the_fullest_process_is_kept_and_not_the_sum() -> None:
    parts: list[Figures] = [
        {FULLEST: {(): [share]}, "openclaw_in_flight_bytes": {(): [share]}} for share in (0.25, 0.75, 0.5)
    ]
    assert add_up(parts) == {FULLEST: {(): [0.75]}, "openclaw_in_flight_bytes": {(): [1.5]}}


def test_amounts_of_one_event_count_under_further_labels() -> None:
    read = attrgetter("amount")
    row = replace(row_of(Kind.COUNTER), amounts={("first",): Amounts(read), ("half",): Amounts(read, divisor=2)})
    assert figures_of(row, ("a", 1), ("a", 2)) == {("a", "first"): [3], ("a", "half"): [1.5]}


def test_figures_that_were_read_count_on() -> None:
    row = row_of(Kind.COUNTER)
    tally = Tally(row.events, [row])
    for amount in (1, 2):
        tally.receive(Event("a", amount))
        figures = tally.read()
    assert figures[row.name] == {("a",): [3]}


def test_metric_without_labels_begins_with_zero() -> None:
    assert figures_of(row_of(Kind.COUNTER, labels=())) == {(): [0]}
    assert figures_of(row_of(Kind.COUNTER)) == {}


def test_process_that_ended_keeps_its_counts_and_loses_its_gauges(tmp_path: Path) -> None:
    counter = next(row.name for row in ROWS if row.kind is Kind.COUNTER)
    gauge = GAUGES[0][0]
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
