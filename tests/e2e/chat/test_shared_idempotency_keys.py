"""Idempotency keys of live gateways that share a database."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
import psycopg
import pytest
from support.chat import PATH, ask, text_of, user
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import OperatorClient, operator_client
from support.polling import until
from support.raw_request import start_request
from support.upstream import Upstream

from service.storage.database.open import FILE_NAME


@pytest.fixture(scope="module")
def hosts(
    lasting_database_url: str | None, module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[LiveGateway]]:
    """Two gateways of one database."""
    directory = tmp_path_factory.mktemp("hosts")
    config = scripted_config()
    config["agents"]["defaults"]["model"] = "stub/ok"
    config["models"]["providers"]["stub"] = {"baseUrl": module_upstream.url}
    shared = {"OPENCLAW_STATE_DIR": str(directory / "shared")}
    env = shared if lasting_database_url is None else {"OPENCLAW_STATE_URL": lasting_database_url}
    with ExitStack() as stack:
        yield [stack.enter_context(live_gateway(directory / name, config, env=env)) for name in ("one", "other")]


@contextmanager
def nothing_can_be_claimed(database_url: str | None, hosts: list[LiveGateway]) -> Iterator[None]:
    """Block claims of keys until the block ends."""
    if database_url is None:
        path = hosts[0].directory.parent / "shared" / FILE_NAME
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
        return
    parts = urlsplit(database_url)
    [host] = parse_qs(parts.query)["host"]
    with psycopg.connect(host=host, user="postgres", dbname=parts.path.strip("/")) as connection:
        connection.execute("LOCK TABLE claims IN SHARE MODE")
        yield
        connection.rollback()


def outcome_of(client: OperatorClient, request_id: str) -> dict[str, Any]:
    """The last response to `agent`, come already or to come."""

    def is_it(frame: dict[str, Any]) -> bool:
        is_response = frame["type"] == "res" and frame["id"] == request_id
        return bool(is_response and frame.get("payload", {}).get("status") != "accepted")

    return next(filter(is_it, client.frames), None) or client.receive_until(is_it)


def test_one_websocket_key_at_two_gateways_runs_once(hosts: list[LiveGateway], upstream: Upstream) -> None:
    with operator_client(hosts[0]) as one, operator_client(hosts[1]) as other:
        clients, keys = (one, other), [str(uuid.uuid4()) for _ in range(8)]
        requests = [
            (client, client.send("agent", {"message": key, "idempotencyKey": key, "sessionKey": "shared"}))
            for key in keys
            for client in clients
        ]
        outcomes = [outcome_of(client, request_id)["payload"] for client, request_id in requests]
        assert [outcome["runId"] for outcome in outcomes] == [key for key in keys for _ in clients]
        texts = [outcome["result"]["payloads"] for outcome in outcomes]
        assert texts[::2] == texts[1::2]
        assert all(texts)
        asked = [request.body["messages"][-1]["content"] for request in upstream.requests if request.method == "POST"]
        assert sorted(asked) == sorted(keys)
        for client in clients:
            history = client.call("chat.history", {"sessionKey": "shared", "limit": 100})["messages"]
            assert len(history) == 2 * len(keys)


def test_one_http_key_at_two_gateways_runs_once(hosts: list[LiveGateway], upstream: Upstream) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answers = []
    for host in hosts:
        with host.client() as client:
            answers.append(ask(client, "hi", headers=key).json())
    assert answers[0] == answers[1]
    assert len([request for request in upstream.requests if request.method == "POST"]) == 1


def test_caller_leaving_during_claim_does_not_block_key(
    hosts: list[LiveGateway], upstream: Upstream, lasting_database_url: str | None
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    before = len(hosts[0].output)
    with nothing_can_be_claimed(lasting_database_url, hosts):
        with hosts[0].client(timeout=2) as impatient, pytest.raises(httpx.ReadTimeout):
            ask(impatient, "never mind", headers=key)
        until(lambda: "run_aborted" in hosts[0].output[before:])
    assert upstream.requests == []
    for host in hosts:
        with host.client() as client:
            # Not even the request is held against the key: the first was never answered.
            assert text_of(ask(client, "something else", headers=key))
    assert len(upstream.requests) == 1


def test_caller_leaving_while_session_is_busy_is_withdrawn(hosts: list[LiveGateway], upstream: Upstream) -> None:
    session = {"x-openclaw-session-key": "busy"}
    key = session | {"Idempotency-Key": str(uuid.uuid4())}
    before = len(hosts[0].output)
    with operator_client(hosts[1]) as holder:
        holding = {"message": "x", "idempotencyKey": "holder", "sessionKey": "busy", "model": "scripted/silent"}
        assert holder.response(holder.send("agent", holding))["ok"]
        until(lambda: "inFlightRun" in holder.call("chat.history", {"sessionKey": "busy"}))
        with hosts[0].client() as client, start_request(hosts[0], headers=key, text="never mind"):
            until(lambda: client.get("/v1/runs", params={"session_key": "busy", "state": "queued"}).json()["data"])
        until(lambda: "run_aborted" in hosts[0].output[before:])
        assert holder.call("chat.abort", {"sessionKey": "busy", "runId": "holder"})["aborted"]
    with hosts[0].client() as client:
        assert text_of(ask(client, "something else", headers=key))
    said = [message["content"] for message in upstream.requests[-1].body["messages"]]
    assert said[-1] == "something else"
    assert "never mind" not in said


def test_run_of_another_gateway_is_cancelled_by_id(hosts: list[LiveGateway]) -> None:
    with operator_client(hosts[0]) as here, operator_client(hosts[1]) as there:
        params = {"message": "x", "idempotencyKey": "far", "sessionKey": "far", "model": "scripted/silent"}
        request = there.send("agent", params)
        assert there.response(request)["payload"]["status"] == "accepted"
        until(lambda: "inFlightRun" in here.call("chat.history", {"sessionKey": "far"}))
        waiting = here.send("agent", params)  # follows the run of the other
        assert here.response(waiting)["payload"]["status"] == "accepted"
        assert here.call("sessions.abort", {"runId": "far"}) == {"ok": True, "abortedRunId": "far", "status": "aborted"}
        for client, request_id in ((there, request), (here, waiting)):
            assert outcome_of(client, request_id)["payload"]["summary"] == "aborted"
        assert here.call("sessions.abort", {"runId": "far"})["status"] == "no-active-run"


def test_stateless_run_with_key_is_reported_as_running(hosts: list[LiveGateway]) -> None:
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Idempotency-Key": str(uuid.uuid4()),
        "x-openclaw-model": "stub/hang-midway",
    }
    body = {"messages": [user("hi")], "stream": True}
    with (
        hosts[0].client() as client,
        hosts[1].client() as there,
        httpx.stream("POST", f"{hosts[0].url}{PATH}", json=body, headers=headers, timeout=30) as response,
    ):
        first = next(line for line in response.iter_lines() if line.startswith("data: "))
        run = f"/v1/runs/{orjson.loads(first[6:])['id']}"
        active = client.get(run).json()
        assert (active["state"], active["started_at"] >= active["created_at"]) == ("running", True)
        assert there.get(run).json()["state"] == "queued"  # all that is recorded
        assert there.post(f"{run}/cancel").status_code == 200
        until(lambda: there.get(run).json()["state"] == "aborted")
        ended = there.get(run).json()
        assert ended["duration_ms"] is not None
        assert client.get(run).json() == ended
