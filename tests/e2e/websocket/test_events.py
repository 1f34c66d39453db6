"""Events: every run, whatever its protocol, told in order to those who may know; and what slow readers cost."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
from support.chat import ask
from support.live import LiveGateway, live_gateway, scripted_config
from support.operator_client import OperatorClient, operator_client
from support.polling import until
from support.raw_websocket import UPGRADE, masked, paused_frames, raw_connection, raw_operator
from support.scripted_upstream import Play, calls
from support.upstream import Upstream


def events_of(client: OperatorClient, session_key: str) -> list[dict[str, Any]]:
    """The payloads of the `agent` events of a session so far."""
    events = [frame["payload"] for frame in client.frames if frame.get("event") == "agent"]
    return [event for event in events if event["sessionKey"] == session_key]


def test_run_over_http_is_broadcast_in_order(gateway: LiveGateway, client: httpx.Client) -> None:
    session = f"told-{uuid.uuid4()}"
    with operator_client(gateway) as operator:
        ask(client, "one two three", headers={"x-openclaw-session-key": session})
        key = f"agent:main:{session}"
        final = operator.event("chat", sessionKey=key, state="final")["payload"]
        events = events_of(operator, key)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [(event["stream"], event["data"].get("phase")) for event in (events[0], events[-1])] == [
        ("lifecycle", "start"),
        ("lifecycle", "end"),
    ]
    said = [event["data"] for event in events if event["stream"] == "assistant"]
    assert "".join(data["delta"] for data in said) == said[-1]["text"] == "one two three"
    assert (final["stopReason"], final["usage"]["output"]) == ("stop", 3)
    chats = [frame["payload"] for frame in operator.frames if frame.get("event") == "chat"]
    deltas = [chat["deltaText"] for chat in chats if chat["state"] == "delta" and chat["sessionKey"] == key]
    assert "".join(deltas) == "one two three"
    numbers = [frame["seq"] for frame in operator.frames if frame["type"] == "event" and "seq" in frame]
    assert numbers == list(range(1, len(numbers) + 1))


def test_client_that_joins_mid_run_gets_earlier_text(gateway: LiveGateway) -> None:
    key = str(uuid.uuid4())
    with operator_client(gateway) as first:
        params = {"message": "x", "idempotencyKey": key, "sessionKey": key, "model": "scripted/slow"}
        request_id = first.send("agent", params)
        first.event("chat", runId=key, state="delta")
        with operator_client(gateway) as second:
            text = second.event("chat", runId=key, state="delta")["payload"]["message"]["content"][0]["text"]
            assert text.startswith("This answer")
            final = second.event("chat", runId=key, state="final")["payload"]["message"]["content"][0]["text"]
        outcome = first.receive_until(lambda frame: "result" in frame.get("payload", {}))
        assert outcome["id"] == request_id
        assert outcome["payload"]["result"]["payloads"][0]["text"] == final


def test_failed_and_aborted_runs_are_broadcast_as_such(gateway: LiveGateway) -> None:
    with operator_client(gateway) as operator:
        failed, aborted = str(uuid.uuid4()), str(uuid.uuid4())
        operator.run("x", failed, model="scripted/fail-midway")
        event = operator.event("chat", runId=failed, state="error")["payload"]
        assert event["errorMessage"]
        assert event["message"]["content"][0]["text"] == "This will not"
        assert operator.event("agent", runId=failed, stream="lifecycle")["payload"]["data"]["phase"] == "start"
        params = {"message": "x", "idempotencyKey": aborted, "sessionKey": aborted, "model": "scripted/silent"}
        operator.send("agent", params)
        operator.event("agent", runId=aborted)
        operator.call("chat.abort", {"sessionKey": aborted})
        assert operator.event("chat", runId=aborted, state="aborted")["payload"]["stopReason"] == "rpc"


def test_client_without_read_scope_gets_no_events(gateway: LiveGateway) -> None:
    with operator_client(gateway, scopes=[]) as deaf, operator_client(gateway) as operator:
        operator.run("secret", str(uuid.uuid4()))
        deaf.refusal("health")
        assert [frame for frame in deaf.frames if frame.get("event") in ("agent", "chat")] == []


@pytest.fixture
def tool_gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    """An agent that looks around in its workspace once."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "notes.txt").write_text("apples")
    config = scripted_config()
    with Upstream() as upstream:
        play = Play(calls(("read", {"path": "notes.txt"})), calls(text="It says apples."))
        upstream.answers["play"] = play
        config["models"]["providers"]["stub"] = {"baseUrl": upstream.url, "models": [{"id": "play"}]}
        config["agents"]["defaults"] |= {"model": "stub/play", "workspace": str(workspace)}
        with live_gateway(tmp_path / "gateway", config) as running:
            yield running


def test_tool_events_are_sent_to_clients_with_capability(tool_gateway: LiveGateway) -> None:
    with (
        operator_client(tool_gateway, caps=["tool-events"]) as asking,
        operator_client(tool_gateway) as other,
    ):
        asking.run("what do my notes say?", "k1")
        start, result = (event["data"] for event in events_of(asking, "agent:main:main") if event["stream"] == "tool")
        assert start == {"phase": "start", "name": "read", "toolCallId": "call_0", "args": {"path": "notes.txt"}}
        assert (result["phase"], result["isError"]) == ("result", False)
        assert "apples" in result["result"]["content"][0]["text"]
        other.event("chat", state="final")
        assert {event["stream"] for event in events_of(other, "agent:main:main")} == {"lifecycle", "assistant"}
        history = asking.call("chat.history", {"sessionKey": "main"})["messages"]
        assert [message["role"] for message in history] == ["user", "assistant", "toolResult", "assistant"]
        assert history[1]["content"][0]["arguments"] == {"path": "notes.txt"}


def resident_bytes(gateway: LiveGateway) -> int:
    return int(psutil.Process(gateway.process.pid).memory_info().rss)


def test_a_long_answer_reaches_a_slow_reader_whole(gateway: LiveGateway) -> None:
    text, key = "0123456789abcdef" * (4 * 1024 * 1024 // 16), str(uuid.uuid4())
    with operator_client(gateway) as client:
        request_id = client.send("agent", {"message": text, "idempotencyKey": key, "sessionKey": key})
        assert client.response(request_id)["payload"]["status"] == "accepted"
        time.sleep(1.5)
        outcome = client.response(request_id)["payload"]
    assert outcome["result"]["payloads"][0]["text"] == text


def test_a_frame_of_20_mb_reaches_a_reader_that_pauses_whole(gateway: LiveGateway) -> None:
    said = [f"{number} {'0123456789abcdef' * 11_700}" for number in range(112)]
    with operator_client(gateway) as client:
        for text in said:
            client.call("chat.inject", {"sessionKey": "told at length", "message": text})
    with raw_connection(gateway) as sock:
        params = {"sessionKey": "told at length", "limit": 1000, "maxChars": 500_000}
        sock.sendall(masked({"type": "req", "id": "h", "method": "chat.history", "params": params}))
        frames = paused_frames(sock, pause_after=(0, 1_000_000, 8_000_000, 16_000_000))
        whole = next(data for data in frames if b'"id":"h"' in data[:100])
        sock.sendall(masked({"type": "req", "id": "s", "method": "health"}))
        assert next(data for data in frames if b'"id":"s"' in data[:100])
    assert len(whole) > 20 * 1024 * 1024
    assert [message["content"][0]["text"] for message in orjson.loads(whole)["payload"]["messages"]] == said


def test_client_that_does_not_read_is_dropped_without_delaying_others(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as running, operator_client(running) as client:
        client.run("x" * 150_000, "big", sessionKey="big")
        before = resident_bytes(running)
        sock = raw_operator(running)
        with sock:
            request = masked(
                {
                    "type": "req",
                    "id": "h",
                    "method": "chat.history",
                    "params": {"sessionKey": "big", "maxChars": 500_000},
                }
            )
            for _ in range(240):
                try:
                    sock.sendall(request)
                except OSError:
                    break
            until(lambda: client.call("health")["ok"] and "was dropped: it reads too slowly" in running.output)
        assert resident_bytes(running) - before < 200 * 1024 * 1024
        assert client.run("still here", "after")[1]["ok"]


def test_slow_observer_does_not_slow_run(gateway: LiveGateway, client: httpx.Client) -> None:
    def count_seconds() -> float:
        began = time.monotonic()
        assert ask(client, "count", headers={"x-openclaw-model": "scripted/count-20000"}).status_code == 200
        return time.monotonic() - began

    alone = count_seconds()
    with raw_operator(gateway):
        assert count_seconds() < 10 * alone + 5


def is_admitted(running: LiveGateway) -> bool:
    try:
        with operator_client(running) as again:
            return bool(again.call("health")["ok"])
    except OSError:
        return False


def test_strangers_have_bounded_room(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as running, operator_client(running) as client:
        waiting: list[socket.socket] = []
        try:
            for _ in range(100):
                sock = socket.create_connection(running.address, timeout=20)
                waiting.append(sock)
                sock.sendall(UPGRADE)
                assert sock.recv(12) == b"HTTP/1.1 101"
            for sock in waiting[:36]:  # the oldest make room
                while sock.recv(4096):
                    pass
            with operator_client(running) as late:
                assert late.call("health")["ok"]
            assert client.call("health")["ok"]
            with running.client() as http_client:
                assert http_client.get("/healthz").status_code == 200
        finally:
            for sock in waiting:
                sock.close()
        until(partial(is_admitted, running))


def test_a_flood_of_requests_is_answered_or_refused_one_by_one(gateway: LiveGateway) -> None:
    with operator_client(gateway) as client:
        key = str(uuid.uuid4())
        params = {"message": "x", "idempotencyKey": key, "sessionKey": key, "model": "scripted/silent"}
        client.response(client.send("agent", params))
        waits = [client.send("agent.wait", {"runId": key, "timeoutMs": 60_000}) for _ in range(300)]
        refused = client.receive_until(lambda frame: frame.get("ok") is False)
        assert refused["error"]["details"]["code"] == "TOO_MANY_REQUESTS"
        with operator_client(gateway) as other:
            assert other.call("chat.abort", {"sessionKey": key})["aborted"]
        answered = {refused["id"]}
        while not answered >= set(waits):
            frame = client.receive()
            if frame["type"] == "res":
                assert frame["id"] not in answered or frame["id"] == "r2"
                answered.add(frame["id"])


def test_many_idle_connections_are_cheap(tmp_path: Path) -> None:
    count = 300
    with live_gateway(tmp_path, scripted_config()) as running:
        with operator_client(running) as client:
            client.run("warm up", "k")
        before = resident_bytes(running)
        sockets: list[socket.socket] = []
        try:
            sockets.extend(raw_operator(running) for _ in range(count))
            cost = (resident_bytes(running) - before) / count
            assert cost < 200 * 1024
            with operator_client(running) as client:
                assert client.call("status")["connections"] == count + 1
        finally:
            for sock in sockets:
                sock.close()
