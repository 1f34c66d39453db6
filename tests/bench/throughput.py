"""Throughput and CPU of the gateway against the floor, on the same upstream in the same run.

`python tests/bench/throughput.py [--rounds 5] [--seconds 3]` prints one table: the median of interleaved rounds. CPU
for each request is the figure to look at: load generator, upstream and server
share the machine's cores.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402  # what follows must already be patched
import json  # noqa: E402
import socket  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import ExitStack, contextmanager  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from geventhttpclient import HTTPClient  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))

from live import TOKEN, live_gateway  # noqa: E402

CALLERS = (8, 64)


@dataclass
class Row:
    """The rounds of one server under one kind of load."""

    requests_per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


@contextmanager
def server(name: str, *arguments: str) -> Iterator[tuple[int, psutil.Process]]:
    """One of `servers.py`, listening."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("servers.py")), name, str(port), *arguments]
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def load(port: int, callers: int, seconds: float, *, stream: bool) -> tuple[int, float]:
    """Ask as often as possible; returns answers and seconds."""
    client = HTTPClient("127.0.0.1", port, concurrency=callers, network_timeout=30)
    body = json.dumps({"model": "openclaw", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    end, answers = time.monotonic() + seconds, 0

    def call() -> None:
        nonlocal answers
        while time.monotonic() < end:
            response = client.post("/v1/chat/completions", body, headers=headers)
            text = response.read()
            if response.status_code != 200 or b"word19" not in text:
                raise RuntimeError(f"a wrong answer: {response.status_code} {text[:200]!r}")
            answers += 1

    started = time.monotonic()
    gevent.joinall([gevent.spawn(call) for _ in range(callers)], raise_error=True)
    client.close()
    return answers, time.monotonic() - started


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of the process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(rounds: int, seconds: float) -> tuple[dict[tuple[str, str, int], Row], float]:
    """Interleaved rounds over both servers; also the gateway's resident memory at the end, in MB."""
    rows: dict[tuple[str, str, int], Row] = {}
    with ExitStack() as stack:
        upstream_port, _ = stack.enter_context(server("upstream"))
        floor_port, floor_process = stack.enter_context(server("floor", str(upstream_port)))
        config = {
            "gateway": {
                "auth": {"mode": "token", "token": TOKEN},
                "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
            },
            "agents": {"defaults": {"model": "instant/m"}},
            "models": {"providers": {"instant": {"baseUrl": f"http://127.0.0.1:{upstream_port}/v1"}}},
        }
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway = stack.enter_context(live_gateway(directory, config))
        gateway_process = psutil.Process(gateway.process.pid)
        targets = {"floor": (floor_port, floor_process), "gateway": (gateway.address[1], gateway_process)}
        for port, _ in targets.values():
            load(port, 8, 1, stream=False)
        for _ in range(rounds):
            for kind in ("JSON", "SSE"):
                for callers in CALLERS:
                    for name, (port, process) in targets.items():
                        before = cpu_seconds(process)
                        answers, took = load(port, callers, seconds, stream=kind == "SSE")
                        row = rows.setdefault((name, kind, callers), Row())
                        row.requests_per_second.append(answers / took)
                        row.cpu_ms.append((cpu_seconds(process) - before) / answers * 1000)
        memory = gateway_process.memory_info().rss / 1e6
    return rows, memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    rows, memory = measure(options.rounds, options.seconds)
    print("| load | callers | floor req/s | gateway req/s | floor CPU ms | gateway CPU ms | CPU ratio |")
    print("|---|---|---|---|---|---|---|")
    for kind in ("JSON", "SSE"):
        for callers in CALLERS:
            floor, ours = rows["floor", kind, callers], rows["gateway", kind, callers]
            median = statistics.median
            ratio = median(ours.cpu_ms) / median(floor.cpu_ms)
            speeds = f"{median(floor.requests_per_second):.0f} | {median(ours.requests_per_second):.0f}"
            costs = f"{median(floor.cpu_ms):.2f} | {median(ours.cpu_ms):.2f}"
            print(f"| {kind} | {callers} | {speeds} | {costs} | {ratio:.1f} |")
    print(f"\nThe gateway's resident memory after this load: {memory:.0f} MB.")


if __name__ == "__main__":
    main()
