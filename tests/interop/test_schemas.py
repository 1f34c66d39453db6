"""Frames of the gateway, validated against the published JSON schemas of the protocol."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from support.live import LiveGateway, live_gateway, scripted_config
from support.operator_client import OperatorClient, connect_params, operator_client, raw_client
from websockets.exceptions import ConnectionClosed

from interop.conftest import Published

#: What the payloads of events and of methods' responses are called there.
EVENTS = {"agent": "AgentEvent", "chat": "ChatEvent", "tick": "TickEvent", "shutdown": "ShutdownEvent"}
RESULTS = {
    "connect": "HelloOk",
    "agents.list": "AgentsListResult",
    "models.list": "ModelsListResult",
    "sessions.delete": "SessionsDeleteResult",
}
PARAMS = {
    "connect": "ConnectParams",
    "agent": "AgentParams",
    "agent.wait": "AgentWaitParams",
    "chat.send": "ChatSendParams",
    "chat.abort": "ChatAbortParams",
    "chat.history": "ChatHistoryParams",
    "sessions.list": "SessionsListParams",
}

#: OpenClaw's own gateway sends these with `agent` events; its schema of them does not say so.
UNLISTED = ("sessionKey", "agentId")


class Schemas:
    """The published schemas, by name."""

    def __init__(self, path: Path) -> None:
        self.document = orjson.loads(path.read_bytes())
        self._compiled: dict[str, Any] = {}

    def check(self, name: str, value: Any) -> None:
        if name not in self._compiled:
            root = {"$ref": f"#/definitions/{name}", "definitions": self.document["definitions"]}
            self._compiled[name] = jsonschema_rs.Draft7Validator(root)
        faults = [str(fault)[:500] for fault in self._compiled[name].iter_errors(value)]
        assert faults == [], f"{name}: {value}"

    def check_frame(self, frame: Mapping[str, Any], methods: Mapping[str, str]) -> None:
        """Check a frame and, as far as the schemas go, its payload; `methods` names the requests by their ids."""
        self.check("GatewayFrame", frame)
        if frame["type"] == "event" and frame["event"] in EVENTS:
            dropped = UNLISTED if frame["event"] == "agent" else ()
            payload = {key: value for key, value in frame["payload"].items() if key not in dropped}
            self.check(EVENTS[frame["event"]], payload)
        elif frame["type"] == "res" and not frame["ok"]:
            self.check("ErrorShape", frame["error"])
        elif frame["type"] == "res" and methods.get(frame["id"]) in RESULTS:
            self.check(RESULTS[methods[frame["id"]]], frame["payload"])


class Recorder:
    """Sends requests, keeps their methods, checks every frame that came."""

    def __init__(self, client: OperatorClient, schemas: Schemas) -> None:
        self.client = client
        self.schemas = schemas
        self.methods: dict[str, str] = {}

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        if method in PARAMS and params is not None:
            self.schemas.check(PARAMS[method], params)
        request_id = self.client.send(method, params)
        self.methods[request_id] = method
        return self.client.response(request_id)

    def check(self) -> int:
        for frame in self.client.frames:
            self.schemas.check_frame(frame, self.methods)
        return len(self.client.frames)


@pytest.fixture(scope="module")
def schemas(published: Published) -> Schemas:
    return Schemas(published.schema)


def test_frames_of_whole_connection_match_schemas(gateway: LiveGateway, schemas: Schemas) -> None:
    session = f"schemas-{uuid.uuid4()}"
    with raw_client(gateway) as client:
        client.receive()
        recorder = Recorder(client, schemas)
        recorder.ask("connect", connect_params(caps=["tool-events"]))
        recorder.ask("sessions.subscribe")
        about = {"sessionKey": session}
        client.run("hello", f"{session}-1", **about)
        client.run("fails", f"{session}-2", **about, model="scripted/fail-midway")
        silent = client.send(
            "agent", {"message": "x", "idempotencyKey": f"{session}-3", **about, "model": "scripted/silent"}
        )
        client.event("agent", runId=f"{session}-3")
        recorder.ask("agent.wait", {"runId": f"{session}-3", "timeoutMs": 10})
        recorder.ask("chat.history", about)
        recorder.ask("chat.abort", about)
        client.response(silent)
        recorder.ask("chat.send", {"message": "hi", "idempotencyKey": f"{session}-4", **about})
        client.event("chat", runId=f"{session}-4", state="final")
        for method in ("agents.list", "models.list", "config.get", "health", "status", "no.such.method"):
            recorder.ask(method, {})
        rows = recorder.ask("sessions.list", {"limit": 20})["payload"]["sessions"]
        recorder.ask("chat.inject", {**about, "message": "by the way"})
        recorder.ask("sessions.get", {"key": session})
        recorder.ask("sessions.reset", {"key": session})
        recorder.ask("sessions.delete", {"key": session})
        client.connection.send("not a frame")
        client.receive_until(lambda frame: frame.get("id") == "invalid")
        assert recorder.check() > 50
    assert rows
    for row in rows:
        schemas.check("SessionRow", row)


def test_frames_of_refusals_and_shutdown_match_schemas(tmp_path: Path, schemas: Schemas) -> None:
    with live_gateway(tmp_path, scripted_config()) as running:
        faults: tuple[dict[str, Any], ...] = (
            {"auth": {"token": "wrong"}},
            {"minProtocol": 9, "maxProtocol": 9},
            {"client": {}},
        )
        for changes in faults:
            with raw_client(running) as client:
                client.receive()
                client.refusal("connect", connect_params(**changes))
                Recorder(client, schemas).check()
        with operator_client(running, scopes=["operator.read"]) as client:
            client.refusal("sessions.delete", {"key": "x"})
            running.process.terminate()
            with pytest.raises(ConnectionClosed):
                client.receive_until(lambda _: False)
            assert Recorder(client, schemas).check() > 2
            assert client.frames[-1]["event"] == "shutdown"


def test_scopes_match_published_scopes(schemas: Schemas) -> None:
    from service.api.websocket.methods import ROWS  # noqa: PLC0415 - beside what it is compared with

    published = {name: about["scope"] for name, about in schemas.document["methods"].items()}
    differing = {
        row.name: (row.scope, published[row.name])
        for row in ROWS
        if published.get(row.name, "dynamic") not in ("dynamic", row.scope)
    }
    assert differing == {}
