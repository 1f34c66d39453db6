"""Operators see the runs of every process that shares the database, each run once, on both databases."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support.chat import ask
from support.conformance import Conformance
from support.live import LiveGateway, live_gateway, stubbed_config
from support.operator_client import OperatorClient, operator_client
from support.run_events import parse_events, text_of
from support.scripted_upstream import Play, calls
from support.upstream import Exchange, Upstream

TEXT = "Hello from the upstream."


@pytest.fixture(scope="module")
def pair(
    module_upstream: Upstream, lasting_database_url: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LiveGateway, LiveGateway]]:
    """Two gateways of one database."""
    directory = tmp_path_factory.mktemp("pair")
    config = stubbed_config(module_upstream.url, defaults={"timeoutSeconds": 60})
    config |= {"state": {"url": lasting_database_url}}
    env = {"OPENCLAW_STATE_DIR": str(directory / "state")}
    with (
        live_gateway(directory / "one", config, env=env) as one,
        live_gateway(directory / "two", config, env=env) as two,
    ):
        yield one, two


@pytest.fixture
def operator(pair: tuple[LiveGateway, LiveGateway]) -> Iterator[OperatorClient]:
    with operator_client(pair[1]) as connected:
        connected.call("sessions.subscribe")
        yield connected


def agent_events(operator: OperatorClient, run_id: str) -> list[dict[str, Any]]:
    events = [one["payload"] for one in operator.frames if one["type"] == "event" and one["event"] == "agent"]
    return [event for event in events if event["runId"] == run_id]


def test_run_of_a_session_is_seen(pair: tuple[LiveGateway, LiveGateway], operator: OperatorClient) -> None:
    key = f"agent:main:{uuid.uuid4().hex}"
    with pair[0].client() as client:
        for number in range(2):
            answer = ask(client, f"hi {number}", headers={"x-openclaw-session-key": key})
            final = operator.event("chat", runId=answer.json()["id"], state="final")["payload"]
            assert final["sessionKey"] == key
            assert final["message"]["content"][0]["text"] == TEXT
            events = agent_events(operator, answer.json()["id"])
            assert [event["data"].get("phase") for event in events if event["stream"] == "lifecycle"] == [
                "start",
                "end",
            ]
            assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    operator.event("sessions.changed", sessionKey=key)


def test_failed_run_is_seen(pair: tuple[LiveGateway, LiveGateway], operator: OperatorClient) -> None:
    with pair[0].client() as client:
        headers = {"x-openclaw-session-key": uuid.uuid4().hex, "x-openclaw-model": "stub/status-500"}
        run_id = ask(client, "hi", headers=headers).headers["x-openclaw-run-id"]
    assert operator.event("chat", runId=run_id, state="error")


def start_detached(client: httpx.Client, model: str) -> None:
    assert client.post("/v1/runs", json={"input": "hi", "model": model}).status_code == 202


def start_whole(client: httpx.Client, model: str) -> None:
    headers = {"x-openclaw-session-key": uuid.uuid4().hex, "x-openclaw-model": model}
    assert ask(client, "hi", headers=headers).status_code == 200


def start_streamed(client: httpx.Client, model: str) -> None:
    headers = {"x-openclaw-session-key": uuid.uuid4().hex, "x-openclaw-model": model}
    assert ask(client, "hi", stream=True, headers=headers).status_code == 200


@pytest.mark.parametrize("start", [start_detached, start_whole, start_streamed])
def test_run_is_seen_while_it_goes_on(
    pair: tuple[LiveGateway, LiveGateway],
    upstream: Upstream,
    operator: OperatorClient,
    start: Callable[[httpx.Client, str], None],
) -> None:
    name, release = uuid.uuid4().hex, threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": "one "})
        assert release.wait(30)
        exchange.event({"content": "two"})
        exchange.end()

    upstream.answers[name] = answer
    with pair[0].client() as client, pair[1].client() as elsewhere, ThreadPoolExecutor(1) as pool:
        started = pool.submit(start, client, f"stub/{name}")
        delta = operator.event("chat", state="delta")["payload"]
        run_id = delta["runId"]
        assert delta["deltaText"] == "one "
        release.set()
        final = operator.event("chat", runId=run_id, state="final")["payload"]
        started.result()
        watched = text_of(parse_events(Conformance(), elsewhere.get(f"/v1/runs/{run_id}/events").content))
    assert watched == "one two"
    assert final["message"]["content"][0]["text"] == "one two"
    deltas = [one["data"]["delta"] for one in agent_events(operator, run_id) if one["stream"] == "assistant"]
    assert "".join(deltas) == "one two"


@pytest.mark.parametrize("is_followed", [True, False])
def test_tools_are_seen_once(pair: tuple[LiveGateway, LiveGateway], upstream: Upstream, *, is_followed: bool) -> None:
    name, release = uuid.uuid4().hex, threading.Event()
    play = Play(calls(("session_status", {}), text="one "), calls(text="two"))

    def answer(exchange: Exchange) -> None:
        if len(play.lines) == 1 and is_followed:
            assert release.wait(30)
        play(exchange)

    upstream.answers[name] = answer
    headers = {"x-openclaw-session-key": uuid.uuid4().hex, "x-openclaw-model": f"stub/{name}"}
    with (
        pair[0].client() as client,
        operator_client(pair[1], caps=["tool-events"]) as operator,
        ThreadPoolExecutor(1) as pool,
    ):
        operator.call("sessions.subscribe")
        answered = pool.submit(ask, client, "hi", headers=headers)
        if is_followed:
            operator.event("agent", stream="tool")
            release.set()
        run_id = answered.result().json()["id"]
        operator.event("chat", runId=run_id, state="final")
        phases = [one["data"]["phase"] for one in agent_events(operator, run_id) if one["stream"] == "tool"]
    assert phases == ["start", "result"]


def test_run_of_this_process_is_seen_once(pair: tuple[LiveGateway, LiveGateway], operator: OperatorClient) -> None:
    key = f"agent:main:{uuid.uuid4().hex}"
    with pair[1].client() as here, pair[0].client() as there:
        mine = ask(here, "hi", headers={"x-openclaw-session-key": key}).json()["id"]
        other = ask(there, "hi", headers={"x-openclaw-session-key": key}).json()["id"]
        operator.event("chat", runId=other, state="final")
    for run_id in (mine, other):
        ends = [one for one in agent_events(operator, run_id) if one["data"].get("phase") == "end"]
        assert len(ends) == 1
