"""Benchmark harness: servers in separate processes, pinned to a core, and load generators."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import httpx
import psutil
from geventhttpclient import HTTPClient

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.live import TOKEN, live_gateway

PATH = "/v1/chat/completions"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
MEGABYTE = 1024 * 1024
#: The server that is measured has the first core to itself; the upstream and those who ask share the others.
CORES = sorted(os.sched_getaffinity(0))
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A server under test: its port, its processes, and the request for a model, with headers of its own."""

    name: str
    port: int
    process: psutil.Process
    model: str = "{model}"
    own_headers: Mapping[str, str] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(times.user + times.system for times in (one.cpu_times() for one in family))

    def cpu_seconds_of_threads(self) -> float:
        """Time of the threads that are alive, as exact as the scheduler's clock: for a few requests."""
        family = [self.process, *self.process.children(recursive=True)]
        tasks = (task for one in family for task in Path(f"/proc/{one.pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident_bytes(self) -> int:
        """Memory in use."""
        return sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)])

    def body(self, model: str = "m", **fields: Any) -> bytes:
        """Return a request for `model` of the upstream, by default with one short user message."""
        asked = {"model": self.model.format(model=model), "messages": [{"role": "user", "content": "hi"}], **fields}
        return json.dumps(asked).encode()

    def headers(self, model: str = "m") -> dict[str, str]:
        """Return the headers of a request."""
        chosen = {"x-openclaw-model": f"instant/{model}"} if self.name == "gateway" else {}
        return {**HEADERS, **self.own_headers, **chosen}


def pin(pid: int, *, measured: bool) -> None:
    """Pin a process to its cores."""
    os.sched_setaffinity(pid, CORES[:1] if measured else CORES[1:] or CORES)


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    measured: bool,
    own_headers: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start `command` and yield its server once it listens on `port`."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pin(process.pid, measured=measured)
    try:
        give_up_at = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"{shlex.join(command)} does not listen on port {port}")
            time.sleep(0.05)
        yield Server(name, port, psutil.Process(process.pid), own_headers=own_headers or {})
    finally:
        process.terminate()
        process.wait()


@contextmanager
def program(name: str, *arguments: str, measured: bool = True) -> Iterator[Server]:
    """Start one of the servers of `servers.py`."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("servers.py")), name, str(port), *arguments]
    with started(name, command, port, measured=measured) as server:
        yield server


@contextmanager
def gateway(
    directory: Path,
    upstream_port: int,
    *,
    arguments: tuple[str, ...] = (),
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start the gateway with validation, authentication, transcripts and access log."""
    http = {"endpoints": {"chatCompletions": {"enabled": True}}}
    config = {
        "gateway": {"auth": {"mode": "token", "token": TOKEN}, "http": http},
        "agents": {"defaults": {"model": "instant/m"}},
        "models": {"providers": {"instant": {"baseUrl": f"http://127.0.0.1:{upstream_port}/v1"}}},
    }
    with live_gateway(directory, config, arguments=arguments, before=before, env=env) as live:
        pin(live.process.pid, measured=True)
        yield Server("gateway", live.address[1], psutil.Process(live.process.pid), "openclaw")


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def client_of(server: Server, connections: int = 1) -> HTTPClient:
    """Return a client with a pool of connections."""
    return HTTPClient("127.0.0.1", server.port, concurrency=connections, network_timeout=120, connection_timeout=60)


def ask(client: HTTPClient, server: Server, body: bytes, expected: bytes = b"word19", model: str = "m") -> None:
    """Send one request and read the answer; a wrong answer ends the benchmark."""
    response = client.post(PATH, body, headers=server.headers(model))
    text = response.read()
    if response.status_code != httpx.codes.OK or expected not in text:
        raise RuntimeError(f"a wrong answer of {server.name}: {response.status_code} {bytes(text[:300])!r}")


def side_by_side(job: Callable[[int], object], count: int) -> None:
    """Run `job(0)` to `job(count - 1)` at once; the first failure is raised."""
    gevent.joinall([gevent.spawn(job, number) for number in range(count)], raise_error=True)


def load(server: Server, callers: int, seconds: float, *, stream: bool) -> tuple[int, float]:
    """Send requests as fast as possible; return the number of answers and the seconds."""
    client, body = client_of(server, callers), server.body(stream=stream)
    end, answers = time.monotonic() + seconds, 0

    def call(_: int) -> None:
        nonlocal answers
        while time.monotonic() < end:
            ask(client, server, body)
            answers += 1

    begun = time.monotonic()
    side_by_side(call, callers)
    client.close()
    return answers, time.monotonic() - begun
