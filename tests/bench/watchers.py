"""Cost of a thousand watchers of one run: CPU of the gateway, and how late the run and its stream are.

Run it from the top of the repository: `python tests/bench/watchers.py [watchers]`. The model writes a word every 20 ms;
the caller's stream shows how late each word is, from the moment when all watchers have connected. They are a process of
their own, so that they do not hold up the one that reads the clock.
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import statistics
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream

WORDS = 400
PAUSE_SECONDS = 0.02
SETTLING_SECONDS = 0.5
RUNS = 2
SPAWN = multiprocessing.get_context("spawn")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as directory, Upstream() as upstream:
        sent: list[float] = []

        def answer(exchange: Exchange) -> None:
            exchange.head()
            sent.clear()
            for number in range(WORDS):
                sent.append(time.monotonic())
                exchange.event({"content": f"w{number} "})
                exchange.wait(PAUSE_SECONDS)
            exchange.end()

        upstream.answers["slow"] = answer
        with live_gateway(Path(directory), stubbed_config(upstream.url, "stub/slow")) as running:
            for watchers in (0, count, 0, count):
                figures = [measure(running, watchers, sent) for _ in range(RUNS)]
                cpu, median, p99, took = (statistics.median(one) for one in zip(*figures, strict=True))
                print(
                    f"{watchers} watchers: {cpu:.2f} s of CPU, a word late by {median:.1f} ms (median), {p99:.1f} ms"
                    f" (p99), run of {took:.2f} s"
                )


def measure(running: LiveGateway, watchers: int, sent: list[float]) -> tuple[float, float, float, float]:
    """Return the CPU seconds of one run, the median and p99 of the lateness in ms, and its duration in seconds."""
    process = psutil.Process(running.process.pid)
    used: float | None = None
    words, late = 0, [0.0]
    began = time.monotonic()
    body = {"messages": [{"role": "user", "content": "go on"}], "stream": True}
    headers = {"Authorization": f"Bearer {TOKEN}", "x-openclaw-on-disconnect": "continue"}
    with (
        httpx.Client(base_url=running.url, headers=headers, timeout=120) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        ready, stop = SPAWN.Event(), SPAWN.Event()
        path = f"/v1/runs/{response.headers['x-openclaw-run-id']}/events"
        watching = SPAWN.Process(target=watch, args=(running.address, path, watchers, ready, stop))
        watching.start()
        for line in response.iter_lines():
            if '"content":"w' in line:
                words += line.count(" ") - 1
                if ready.is_set():
                    used = sum(process.cpu_times()[:2]) if used is None else used
                    late.append((time.monotonic() - sent[words - 1]) * 1000)
        took = time.monotonic() - began
        stop.set()
        watching.join()
    late.sort()
    return sum(process.cpu_times()[:2]) - (used or 0.0), statistics.median(late), late[int(len(late) * 0.99)], took


def watch(address: tuple[str, int], path: str, watchers: int, ready: Event, stop: Event) -> None:
    """Open connections that watch the run, and read what they get until it has ended.

    `ready` is set some time after the last one got something: connecting has its own price.
    """
    waiting: set[Any] = set()
    selector: Any = selectors.DefaultSelector()
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    for _ in range(watchers):
        connection = socket.create_connection(address)
        connection.sendall(request)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
        waiting.add(connection)
    ready_at = None
    while not stop.is_set() and (selector.get_map() or not ready.is_set()):
        if not waiting:
            ready_at = ready_at or time.monotonic() + SETTLING_SECONDS
            if time.monotonic() >= ready_at:
                ready.set()
        for key, _ in selector.select(0.1):
            waiting.discard(key.fileobj)
            if not key.fileobj.recv(256 * 1024):
                selector.unregister(key.fileobj)
                key.fileobj.close()
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    selector.close()


if __name__ == "__main__":
    main()
