"""Two gateways, one database: one run at a time in each session across both, and no loss when one dies."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from support.databases import Postgres
from support.live import TOKEN, LiveGateway, live_gateway
from support.operator_client import operator_client
from support.polling import until
from support.upstream import Exchange, Upstream

from chaos.transcript import connected
from service.storage.database.open import open_database
from service.storage.sessions.transcripts import TranscriptStore


class Witness:
    """A model that detects overlapping runs of one session; the session is the first word of a question."""

    def __init__(self, seconds: float) -> None:
        self.overlaps: list[str] = []
        self.answered = 0
        self._seconds = seconds
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        question = exchange.body["messages"][-1]["content"]
        session = question.partition(" ")[0]
        with self._lock:
            if session in self._busy:
                self.overlaps.append(question)
            self._busy.add(session)
        time.sleep(self._seconds)
        with self._lock:
            self._busy.discard(session)
            self.answered += 1
        exchange.head()
        exchange.event({"content": f"answer of {question}"})
        exchange.end("stop")


@contextmanager
def gateways(directory: Path, upstream: Upstream, database_url: str, count: int = 2) -> Iterator[list[LiveGateway]]:
    """Gateways that share a database, each with its own state directory as on separate hosts."""
    config: dict[str, Any] = {
        "gateway": {
            "auth": {"mode": "token", "token": TOKEN},
            "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
        },
        "agents": {"defaults": {"model": "stub/witness", "timeoutSeconds": 120}},
        "models": {"providers": {"stub": {"baseUrl": upstream.url}}, "retry": {"attempts": 1}},
    }
    env = {"OPENCLAW_STATE_URL": database_url}
    with ExitStack() as stack:
        yield [
            stack.enter_context(live_gateway(directory / f"host-{number}", config, env=env)) for number in range(count)
        ]


def ask(gateway: LiveGateway, session: str, text: str, key: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}", "x-openclaw-session-key": session}
    if key is not None:
        headers["Idempotency-Key"] = key
    body = {"messages": [{"role": "user", "content": text}]}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=120)


def questions_of(database_url: str, directory: Path, session: str) -> list[str]:
    """Return the questions of a session, in order; fails for an incomplete turn."""
    database = open_database(database_url, directory)
    try:
        messages = TranscriptStore(database).load_conversation(f"agent:main:{session}")
    finally:
        database.close()
    asked, answered = messages[::2], messages[1::2]
    assert [message.text for message in answered] == [f"answer of {message.text}" for message in asked]
    return [message.text for message in asked]


def test_session_runs_one_run_at_a_time_across_gateways_and_protocols(
    postgres: Postgres, upstream: Upstream, tmp_path: Path, *, is_long: bool
) -> None:
    clients, sessions, turns = (200, 20, 3) if is_long else (24, 4, 2)
    witness = upstream.answers["witness"] = Witness(0.005)
    database_url = postgres.create_database()

    def talk(number: int) -> None:
        session, gateway = f"s{number % sessions}", hosts[number // sessions % 2]
        if number % 5 == 0:
            with operator_client(gateway) as client:
                for turn in range(turns):
                    key = f"agent:main:{session}"
                    _, final = client.run(f"{session} client {number} turn {turn}", str(uuid.uuid4()), sessionKey=key)
                    assert final["ok"], final
            return
        for turn in range(turns):
            response = ask(hosts[(number + turn) % 2], session, f"{session} client {number} turn {turn}")
            assert response.status_code == 200, response.text

    with gateways(tmp_path, upstream, database_url) as hosts, ThreadPoolExecutor(clients) as pool:
        list(pool.map(talk, range(clients)))
    assert witness.overlaps == []
    for index in range(sessions):
        asked = questions_of(database_url, tmp_path, f"s{index}")
        mine = [number for number in range(clients) if number % sessions == index]
        assert sorted(asked) == sorted(f"s{index} client {n} turn {turn}" for n in mine for turn in range(turns))
        for number in mine:
            assert [text for text in asked if f"client {number} " in text] == [
                f"s{index} client {number} turn {turn}" for turn in range(turns)
            ]


def test_killed_gateway_loses_no_finished_answer(
    postgres: Postgres, upstream: Upstream, tmp_path: Path, chance: random.Random, *, is_long: bool
) -> None:
    clients, sessions, turns = (40, 8, 6) if is_long else (8, 2, 3)
    upstream.answers["witness"] = Witness(0.02)
    database_url = postgres.create_database()
    answered: set[str] = set()

    def talk(number: int) -> None:
        session = f"s{number % sessions}"
        for turn in range(turns):
            text, key = f"{session} client {number} turn {turn}", str(uuid.uuid4())
            for attempt in range(60):
                try:
                    response = ask(hosts[(number + attempt) % 2], session, text, key)
                except httpx.TransportError:
                    continue
                if response.status_code == 200:
                    answered.add(text)
                    break
                assert response.status_code in (409, 503), response.text
                time.sleep(0.5)

    with gateways(tmp_path, upstream, database_url) as hosts, ThreadPoolExecutor(clients) as pool:
        talks = [pool.submit(talk, number) for number in range(clients)]
        time.sleep(chance.uniform(0.3, 1.0))
        hosts[1].process.send_signal(signal.SIGKILL)
        for each in talks:
            each.result()
    assert len(answered) == clients * turns
    asked = [text for index in range(sessions) for text in questions_of(database_url, tmp_path, f"s{index}")]
    assert sorted(asked) == sorted(answered)
    with connected(database_url, tmp_path) as connection:
        assert "running" not in {row.state for row in connection.exec_driver_sql("SELECT state FROM runs")}


def test_run_is_awaited_and_aborted_through_other_gateway(
    postgres: Postgres, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers["witness"] = Witness(1.5)
    database_url = postgres.create_database()
    with gateways(tmp_path, upstream, database_url) as hosts, ThreadPoolExecutor(2) as pool:
        key = str(uuid.uuid4())
        first = pool.submit(ask, hosts[0], "shared", "shared question", key)
        time.sleep(0.5)
        second = ask(hosts[1], "shared", "shared question", key)  # waits for the other's run
        assert second.json() == first.result().json()
        assert questions_of(database_url, tmp_path, "shared") == ["shared question"]
        with operator_client(hosts[0]) as here, operator_client(hosts[1]) as there:
            run_id = str(uuid.uuid4())
            session_key = "agent:main:aborted"
            upstream.answers["witness"] = lambda exchange: exchange.wait()
            request = here.send(
                "agent", {"message": "aborted question", "idempotencyKey": run_id, "sessionKey": session_key}
            )
            assert here.response(request)["payload"]["status"] == "accepted"
            until(lambda: "aborted question" in str(upstream.requests[-1].body))
            assert there.call("chat.abort", {"sessionKey": session_key, "runId": run_id})["aborted"] is True
            final = here.response(request)
        assert final["payload"]["summary"] == "aborted"
