"""Rows of the benchmark: each measures one thing and adds one figure per round to the results."""

from __future__ import annotations

import base64
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from harness import MEGABYTE, PATH, Server, ask, client_of, gateway, load
from results import Results
from streams import disturbed_by, percentile, run_streams
from write_lock import start_sampling

from service.api.http.contract import load_contract
from service.api.http.schema_validation import CompiledSchema

CALLERS = (8, 64)
KINDS = ("JSON", "SSE")
CONVERSATION = 500
#: Portkey's gateway 1.15 answers every streamed request with 500 on Node 20 (`TypeError: immutable`).
JSON_ONLY = ("fold", "portkey")
LENGTHS = (20, 5_000, 20_000)
RESENT = (20, 500)
AT_ONCE = 9_000  # a request has at most 10,000 messages

_QUESTION = {"role": "user", "content": "hi"}


class Bench:
    """The compared servers, `floor` and `fold` first and the gateway last, and their results."""

    def __init__(
        self, upstream: Server, servers: Sequence[Server], results: Results, rounds: int, streams: int
    ) -> None:
        self.upstream = upstream
        self.servers = servers
        self.gateway = servers[-1]
        self.floor = servers[0]
        self.results = results
        self.rounds = rounds
        self.slow_count = streams
        self._answer = ""  # the last one

    def throughput(self, seconds: float = 1.5) -> None:
        """Measure CPU per request and requests per second, JSON and SSE, rounds interleaved."""
        for server in self.servers:
            load(server, CALLERS[0], 1, stream=False)
        for _ in range(self.rounds):
            for kind in KINDS:
                for callers in CALLERS:
                    for server in self.servers:
                        if kind == "SSE" and server.name in JSON_ONLY:
                            continue
                        before = server.cpu_seconds()
                        answers, took = load(server, callers, seconds, stream=kind == "SSE")
                        cpu_ms = (server.cpu_seconds() - before) / answers * 1000
                        self.results.add(f"{kind}, {callers} callers: CPU a request", "ms", server.name, cpu_ms)
                        self.results.add(f"{kind}, {callers} callers: throughput", "/s", server.name, answers / took)
        for server in self.servers:
            self.results.add("memory after this load", "MB", server.name, server.resident_bytes() / MEGABYTE)

    def tokens_apart(self, streams: int = 32, tokens: int = 100, pause_ms: int = 10) -> None:
        """Measure CPU per token of slow streams, including the cost of the requests."""
        for _ in range(self.rounds):
            for server in (self.floor, self.gateway):
                before = server.cpu_seconds()
                followed = run_streams(server, streams, tokens, pause_ms, 0.1)
                cpu_us = (server.cpu_seconds() - before) / len(followed.late_seconds) * 1e6
                self.results.add("SSE, tokens one by one: CPU a token", "µs", server.name, cpu_us)

    def latency(self, requests: int = 200) -> None:
        """Measure the latency of one caller without the upstream's own time."""
        asked = [self.upstream, self.floor, self.gateway]
        clients = {server.name: client_of(server) for server in asked}
        for _ in range(self.rounds):
            took: dict[str, list[float]] = {server.name: [] for server in asked}
            for _ in range(requests):
                for server in asked:
                    begun = time.perf_counter()
                    ask(clients[server.name], server, server.body())
                    took[server.name].append((time.perf_counter() - begun) * 1000)
            for server in asked[1:]:
                for name, share in (("p50", 0.5), ("p99", 0.99)):
                    added = percentile(took[server.name], share) - percentile(took[self.upstream.name], share)
                    self.results.add(f"added latency, 1 caller, {name}", "ms", server.name, added)

    def first_byte(self, requests: int = 100) -> None:
        """Measure the times of a stream's head and of its first byte."""
        for _ in range(self.rounds):
            for server in (self.floor, self.gateway):
                client, took = client_of(server), []
                for _ in range(requests):
                    begun = time.perf_counter()
                    response = client.post(PATH, server.body(stream=True), headers=server.headers())
                    response.read(1)
                    took.append((time.perf_counter() - begun) * 1000)
                    response.read()
                client.close()
                self.results.add("first byte of a stream, p50", "ms", server.name, statistics.median(took))

    def conversation(self) -> None:
        """Measure the validation of 500 messages (1 MB) and the longest stall of another stream."""
        messages = [
            {"role": "assistant" if number % 2 else "user", "content": f"{number} " + "x" * 2000}
            for number in range(CONVERSATION)
        ] + [{"role": "user", "content": "hi"}]
        body = {"model": "openclaw", "messages": messages}
        document = load_contract()
        operation = document["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]
        schema = CompiledSchema(operation["schema"], document)
        for _ in range(self.rounds * 5):
            begun = time.perf_counter()
            schema.check(body)
            self.results.add("500 messages: validation", "ms", "gateway", (time.perf_counter() - begun) * 1000)
        for server in (self.floor, self.gateway):
            asker = client_of(server)
            for _ in range(self.rounds):
                quiet = run_streams(server, 1, 150, 5, 0)
                with disturbed_by(partial(ask, asker, server, server.body(messages=messages)), 0.1):
                    stalled = run_streams(server, 1, 150, 5, 0)
                stall = max(stalled.late_seconds) - percentile(quiet.late_seconds, 0.5)
                self.results.add("500 messages: longest stall of another stream", "ms", server.name, stall * 1000)

    def slow_streams(self, tokens: int = 40) -> None:
        """Measure the delay of tokens of many streams (one token per 250 ms), during and after their start."""
        count = self.slow_count
        for server in (self.floor, self.gateway):
            peak = [idle := server.resident_bytes()]
            with disturbed_by(partial(_note_memory, server, peak), 0.5):
                followed = run_streams(server, count, tokens, 250, 4.0)
            prefix = f"{count} slow streams"
            self.results.add(f"{prefix}: complete", "", server.name, followed.complete)
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                late = percentile(followed.late_in_crowd, share) * 1000
                self.results.add(f"{prefix}: lateness {name}", "ms", server.name, late)
            late = percentile(followed.late_seconds, 0.99) * 1000
            self.results.add(f"{prefix}: lateness p99, their beginning included", "ms", server.name, late)
            self.results.add(f"{prefix}: memory of one", "KB", server.name, (max(peak) - idle) / count / 1024)
            self.results.notes += followed.problems[:3]

    def mixed(self, streams: int = 200, tokens: int = 60, pause_ms: int = 100) -> None:
        """Measure streams while a client sends an image of 10 MB every second."""
        picture = f"data:image/png;base64,{base64.b64encode(_png(10_000_000)).decode()}"
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "What is it?"}]
        for server in (self.floor, self.gateway):
            sender, body = client_of(server), server.body(messages=[{"role": "user", "content": content}])
            with disturbed_by(partial(ask, sender, server, body), 1.0):
                followed = run_streams(server, streams, tokens, pause_ms, 1.0)
            late = percentile(followed.late_seconds, 0.99) * 1000
            self.results.add(f"{streams} streams beside 10 MB pictures: lateness p99", "ms", server.name, late)
            self.results.notes += followed.problems[:3]

    def sessions(self, turns: int = 20) -> None:
        """Measure consecutive turns of sessions of different length beside requests without a session."""
        client = client_of(self.gateway)
        for count in (0, *LENGTHS):
            row = f"session turn behind {count:,} messages: CPU"
            for number in range(self.rounds):
                key = f"long-{count}" if count else f"new-{number}"
                if count and not number:
                    self._fill(client, key, count)
                self.results.add(row, "ms", "stateless", self._turns(client, [_QUESTION], None, turns))
                self.results.add(row, "ms", "gateway", self._turns(client, [_QUESTION], key, turns))
        client.close()

    def _fill(self, client: Any, key: str, count: int) -> None:
        for start in range(0, count, AT_ONCE):
            said = range(start, min(start + AT_ONCE, count))
            messages = [{"role": "user", "content": f"message {number} of a long session"} for number in said]
            self._turns(client, messages, key, 1)
        self._turns(client, [_QUESTION], key, 1)  # the first turn after a start reads everything

    def resends(self, turns: int = 10) -> None:
        """Measure turns of a client that sends the whole conversation, with and without a session."""
        client = client_of(self.gateway)
        for count in RESENT:
            row = f"turn that resends {count} messages: CPU"
            roles = ("user", "assistant")
            begun = [
                {"role": roles[number % 2], "content": f"message {number} " + "x" * 200} for number in range(count)
            ]
            for number in range(self.rounds):
                for server, key in (("stateless", None), ("gateway", f"resent-{count}-{number}")):
                    messages = [*begun, _QUESTION]
                    self._turns(client, messages, key, 1)
                    used = 0.0
                    for _ in range(turns):
                        messages += [{"role": "assistant", "content": self._answer}, _QUESTION]
                        used += self._turns(client, messages, key, 1)
                    self.results.add(row, "ms", server, used / turns)
        client.close()

    def _turns(self, client: Any, messages: list[Any], key: str | None, turns: int) -> float:
        """Send the messages several times and return the CPU of each in ms."""
        headers = self.gateway.headers() | ({} if key is None else {"x-openclaw-session-key": key})
        before = self.gateway.cpu_seconds_of_threads()
        for _ in range(turns):
            response = client.post(PATH, self.gateway.body(messages=messages), headers=headers)
            answer = response.read()
            if b"word19" not in answer:
                raise RuntimeError(f"a turn of a session failed: {answer[:300]!r}")
            self._answer = orjson.loads(answer)["choices"][0]["message"]["content"]
        return (self.gateway.cpu_seconds_of_threads() - before) / turns * 1000

    def workers(self, seconds: float = 2.0) -> None:
        """Compare CPU per request of two processes on one port with one."""
        with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
            pair = stack.enter_context(gateway(Path(directory), self.upstream.port, arguments=("--workers", "2")))
            load(pair, CALLERS[0], 1, stream=False)
            for _ in range(self.rounds):
                for name, server in (("gateway", pair), ("one worker", self.gateway)):
                    before = server.cpu_seconds()
                    answers, _ = load(server, CALLERS[1], seconds, stream=False)
                    cpu_ms = (server.cpu_seconds() - before) / answers * 1000
                    self.results.add("two workers, JSON, 64 callers: CPU", "ms", name, cpu_ms)

    def write_lock(self, seconds: float = 3) -> None:
        """Measure how long requests hold the lock of the database, and what that is with four workers on four cores.

        Each of the four is taken to answer as many requests as one, without commits that they would share.
        """
        with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
            server = stack.enter_context(gateway(Path(directory), self.upstream.port))
            load(server, CALLERS[0], 1, stream=False)
            for _ in range(self.rounds):
                for callers in CALLERS:
                    sampling = start_sampling(_database_of(Path(directory)), seconds)
                    answers, took = load(server, callers, seconds, stream=False)
                    held = float(sampling.communicate()[0])
                    row = f"write lock, JSON, {callers} callers"
                    self.results.add(f"{row}: held for a request", "µs", "gateway", held * took / answers * 1e6)
                    self.results.add(f"{row}: held, one worker", "%", "gateway", held * 100)
                    self.results.add(f"{row}: held, four workers (model)", "%", "gateway", held * 400)

    def stored(self, seconds: float = 5) -> None:
        """Measure what a request without a session, whose messages have 130 bytes, adds to the database."""
        for _ in range(self.rounds):
            with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
                server = stack.enter_context(gateway(Path(directory), self.upstream.port))
                load(server, CALLERS[0], 1, stream=False)
                before = _database_bytes(Path(directory))
                answers, _ = load(server, CALLERS[0], seconds, stream=False)
                grown = (_database_bytes(Path(directory)) - before) / answers
                self.results.add("stateless request in the database", "bytes", "gateway", grown)

    def start(self) -> None:
        """Measure the time to the first `/readyz` and the memory of an idle gateway."""
        for _ in range(self.rounds):
            with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
                begun = time.perf_counter()
                server = stack.enter_context(gateway(Path(directory), self.upstream.port))
                client = client_of(server)
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.01)
                self.results.add("start to /readyz", "s", "gateway", time.perf_counter() - begun)
                time.sleep(0.5)
                self.results.add("memory idle", "MB", "gateway", server.resident_bytes() / MEGABYTE)


def _database_of(directory: Path) -> Path:
    [path] = directory.rglob("sessions.sqlite")
    return path


def _database_bytes(directory: Path) -> int:
    """Return the size of the pages in use, those in the write-ahead log included."""
    with closing(sqlite3.connect(_database_of(directory))) as database:
        ((pages,), (free,), (size,)) = (
            database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def _note_memory(server: Server, seen: list[int]) -> None:
    seen.append(server.resident_bytes())


def _png(size: int) -> bytes:
    """Return an image of one pixel and `size` bytes."""
    pixel = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    return pixel + bytes(size - len(pixel))
