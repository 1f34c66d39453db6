"""Measured figures by row and server, as a table, as JSON and as a chart."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Target:
    """The target of a row's median, an upper or lower bound; with `than`, of its ratio to that server's figure."""

    bound: float
    than: str | None = None
    at_least: bool = False

    def __str__(self) -> str:
        side = "at least" if self.at_least else "at most"
        return f"{side} {self.bound:g}" + (f"x {self.than}" if self.than else "")


#: By the beginning of a row's name.
TARGETS = {
    "JSON, 8 callers: CPU": Target(2, "floor"),
    "JSON, 64 callers: CPU": Target(2, "floor"),
    "SSE, 8 callers: CPU": Target(2, "floor"),
    "SSE, 64 callers: CPU": Target(2, "floor"),
    "JSON, 64 callers: throughput": Target(18, "litellm", at_least=True),
    "SSE, 64 callers: throughput": Target(26, "litellm", at_least=True),
    "two workers": Target(1.15, "one worker"),
    "added latency, 1 caller, p50": Target(1.5),
    "added latency, 1 caller, p99": Target(6),
    "500 messages: validation": Target(3),
    "500 messages: longest stall": Target(15),
    "2000 slow streams: complete": Target(2000, at_least=True),
    "2000 slow streams: lateness p99": Target(100),
    "2000 slow streams: memory of one": Target(60),
    "session turn behind 20 messages": Target(1.5, "stateless"),
    "session turn behind 5,000 messages": Target(2, "stateless"),
    "session turn behind 20,000 messages": Target(3, "stateless"),
    "turn that resends 500 messages": Target(1.5, "stateless"),
    "start to /readyz": Target(1.2),
    "memory idle": Target(90),
}


class Results:
    """Collected figures; `told` is called with each row when it begins."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._rows: dict[str, Figures] = {}
        self._units: dict[str, str] = {}
        self._tell = tell
        self.notes: list[str] = []

    def add(self, row: str, unit: str, server: str, figure: float) -> None:
        """Add the figure of one round."""
        if row not in self._rows:
            self._tell(row)
        self._rows.setdefault(row, defaultdict(list))[server].append(figure)
        self._units[row] = unit

    def ratios(self, row: str, than: str) -> list[float]:
        """Return the ratio of the gateway's figure to another server's, per round."""
        figures = self._rows[row]
        if "gateway" not in figures or than not in figures:
            return []
        return [ours / other for ours, other in zip(figures["gateway"], figures[than], strict=True) if other]

    def to_table(self) -> str:
        """Return the rows in Markdown: ratios first, each figure as its median (minimum to maximum)."""
        lines = [
            "| what | to the floor | to fold | gateway | floor | others | target | met |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row, figures in self._rows.items():
            unit = self._units[row]
            others = [f"{name} {_spread(figures[name])}" for name in figures if name not in ("gateway", "floor")]
            cells = [
                f"{row}, {unit}" if unit else row,
                _spread(self.ratios(row, "floor")),
                _spread(self.ratios(row, "fold")),
                _spread(figures.get("gateway", [])),
                _spread(figures.get("floor", [])),
                "; ".join(others),
                *self._judge(row),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, *(f"\nNote: {note}" for note in dict.fromkeys(self.notes))])

    def to_json(self) -> bytes:
        """Return all figures of all rounds."""
        rows = {row: {"unit": self._units[row], "figures": figures} for row, figures in self._rows.items()}
        return orjson.dumps({"rows": rows, "notes": self.notes}, option=orjson.OPT_INDENT_2)

    def draw(self, path: Path) -> None:
        """Draw the CPU per kind of request and server; do nothing if it was not measured."""
        import matplotlib as mpl  # noqa: PLC0415 - only who wants the picture needs the package

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415

        rows = [row for row in self._rows if row.endswith("CPU a request")]
        if not rows:
            return
        names = list(dict.fromkeys(name for row in rows for name in self._rows[row]))
        figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
        height = 0.8 / max(1, len(names))
        for number, name in enumerate(names):
            points = [
                (place, statistics.median(self._rows[row][name]))
                for place, row in enumerate(rows)
                if name in self._rows[row]
            ]
            bars = axes.barh(
                [place + number * height for place, _ in points], [value for _, value in points], height, label=name
            )
            axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_yticks(
            [place + 0.4 - height / 2 for place in range(len(rows))], [row.partition(":")[0] for row in rows]
        )
        axes.invert_yaxis()
        axes.set_xlabel("CPU of the server a request, ms (median of the rounds)")
        axes.legend()
        figure.savefig(path)
        plt.close(figure)

    def _judge(self, row: str) -> tuple[str, str]:
        target = next((target for start, target in TARGETS.items() if row.startswith(start)), None)
        if target is None:
            return "", ""
        figures = self.ratios(row, target.than) if target.than else self._rows[row].get("gateway", [])
        if not figures:
            return str(target), "not measured"
        median = statistics.median(figures)
        return str(target), "yes" if (median >= target.bound if target.at_least else median <= target.bound) else "no"


def _spread(figures: Sequence[float]) -> str:
    if not figures:
        return ""
    low, median, high = (_shown(value) for value in (min(figures), statistics.median(figures), max(figures)))
    return median if low == high else f"{median} ({low} to {high})"


def _shown(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
