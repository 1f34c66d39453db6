"""`POST /v1/runs`: runs that are started, left and looked at later, from any process."""

from __future__ import annotations

import copy
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import ask, chunks_of, error_of, text_of
from support.live import live_gateway, stubbed_config
from support.polling import until
from support.upstream import Exchange, Upstream
from support.upstream_answers import WORDS

ENDED = ("ok", "error", "aborted", "interrupted")


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> dict[str, Any]:
    agents = [{"id": "main", "default": True}, {"id": "beta", "instructions": "You are beta."}]
    stubbed = stubbed_config(module_upstream.url, agents=agents, defaults={"timeoutSeconds": 60})
    return {**stubbed, "session": {"queueTimeoutMs": 500}}


def start(client: httpx.Client, text: Any = "hi", key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/runs", json={"input": text, **fields}, headers=headers)


def ended(client: httpx.Client, started: httpx.Response) -> dict[str, Any]:
    """Wait for the end of a run and return it."""
    assert started.status_code == 202, started.text
    path = started.headers["Location"]
    run: dict[str, Any] = until(lambda: found if (found := client.get(path).json())["state"] in ENDED else None)
    return run


def test_run_is_returned_at_once_and_found_from_every_process(
    here: httpx.Client, there: httpx.Client, upstream: Upstream
) -> None:
    release, name = threading.Event(), uuid.uuid4().hex

    def answer(exchange: Exchange) -> None:
        assert release.wait(60)
        exchange.head()
        exchange.event({"content": "done"})
        exchange.end("stop")

    upstream.answers[name] = answer
    metadata = {"ticket": "17", "là": "é"}
    started = start(here, model=f"stub/{name}", metadata=metadata, agent="beta", instructions="Be short.")
    run = started.json()
    assert started.headers["Location"] == f"/v1/runs/{run['id']}"
    assert started.headers["x-openclaw-run-id"] == run["id"]
    assert (run["state"] in ("queued", "running"), run["agent"], run["metadata"]) == (True, "beta", metadata)
    assert there.get(started.headers["Location"]).json()["state"] in ("queued", "running")
    assert run["id"] in [one["id"] for one in there.get("/v1/runs").json()["data"]]
    release.set()
    found = ended(there, started)
    assert (found["state"], found["finish_reason"], found["metadata"]) == ("ok", "stop", metadata)
    system, asked = upstream.requests[-1].body["messages"]
    assert "You are beta." in system["content"]
    assert system["content"].endswith("Be short.")
    assert asked["content"] == "hi"
    assert here.get(f"/v1/sessions/{found['session_key']}").json()["messages"][-1]["content"][0]["text"] == "done"


def test_run_adds_to_its_session(here: httpx.Client) -> None:
    key = f"mine {uuid.uuid4()} là"
    for text in ("one", "two"):
        run = ended(here, start(here, text, session_key=key))
        assert (run["state"], run["session_key"]) == ("ok", f"agent:main:{key}")
    messages = here.get(f"/v1/sessions/{run['session_key']}").json()["messages"]
    assert [one["content"][0]["text"] for one in messages if one["role"] == "user"] == ["one", "two"]
    assert here.get("/v1/runs", params={"session_key": key}).json()["data"][0]["id"] == run["id"]


def test_conversation_is_taken_as_in_chat_completion(here: httpx.Client, upstream: Upstream) -> None:
    said = [
        {"role": "system", "content": "S"},
        *({"role": role, "content": role} for role in ("user", "assistant", "user")),
    ]
    assert ended(here, start(here, said))["state"] == "ok"
    sent = upstream.requests[-1].body["messages"]
    assert [one["role"] for one in sent] == ["system", "user", "assistant", "user"]


def test_key_starts_one_run_whichever_process_gets_it(here: httpx.Client, there: httpx.Client) -> None:
    key = str(uuid.uuid4())
    first = start(here, key=key)
    assert "Idempotency-Replayed" not in first.headers
    for client in (here, there, here):
        again = start(client, key=key)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.headers["Idempotency-Replayed"] == "true"
    run = ended(there, first)
    assert start(there, key=key).json() == run == start(there, key=key, metadata=None).json()
    assert error_of(start(here, "other", key=key)) == (409, "idempotency_key_reused", "Idempotency-Key")
    assert error_of(ask(here, "hi", headers={"Idempotency-Key": key}))[1] == "idempotency_key_reused"


@pytest.mark.parametrize("stream", [False, True])
def test_replayed_completion_is_marked(here: httpx.Client, there: httpx.Client, *, stream: bool) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = ask(here, "hi", headers=headers)
    assert text_of(first)
    assert "Idempotency-Replayed" not in first.headers
    for client in (here, there):
        again = ask(client, "hi", headers=headers, stream=stream)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["x-openclaw-run-id"] == first.headers["x-openclaw-run-id"] == first.json()["id"]
    assert stream is False or chunks_of(again)[0]["id"] == first.json()["id"]


def test_failed_run_has_its_error_and_frees_its_key(here: httpx.Client, there: httpx.Client) -> None:
    key = str(uuid.uuid4())
    started = start(here, key=key, model="stub/status-401")
    failed = ended(there, started)
    assert (failed["state"], failed["error"]["code"]) == ("error", "provider_authentication_failed")
    again = start(there, key=key, model="stub/status-401")
    assert again.json()["id"] != failed["id"]
    assert "Idempotency-Replayed" not in again.headers


def test_refused_run_stays_recorded(here: httpx.Client, there: httpx.Client, upstream: Upstream) -> None:
    """One that waits too long for its session, and one that is cancelled while it waits."""
    release, name = threading.Event(), uuid.uuid4().hex

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": WORDS[0]})
        release.wait(60)
        exchange.end("stop")

    upstream.answers[name] = answer
    session = {"session_key": f"busy-{uuid.uuid4()}"}
    holder = start(here, model=f"stub/{name}", **session)
    until(lambda: there.get(holder.headers["Location"]).json()["state"] == "running")
    for client in (here, there):
        late = start(client, "too late", **session)
        cancelled = start(client, "never mind", **session)
        assert client.post(f"{cancelled.headers['Location']}/cancel").status_code == 200
        for looking in (here, there):
            assert ended(looking, late)["error"]["code"] == "session_busy"
            assert ended(looking, cancelled)["state"] == "aborted"
            assert ended(looking, cancelled)["started_at"] is None
    release.set()
    assert ended(there, holder)["state"] == "ok"
    assert ended(there, start(there, "next", **session))["state"] == "ok"


def test_run_is_cancelled_from_another_process(here: httpx.Client, there: httpx.Client) -> None:
    for fields in ({}, {"session_key": f"cancel-{uuid.uuid4()}"}):
        started = start(here, model="stub/hang", **fields)
        assert there.post(f"{started.headers['Location']}/cancel").status_code == 200
        assert ended(there, started)["state"] == "aborted"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, (400, "missing_required_parameter", "input")),
        ({"input": ""}, (400, "invalid_value", "input")),
        ({"input": " \n"}, (400, "invalid_value", "input")),
        ({"input": 7}, (400, "invalid_type", "input")),
        ({"input": [{"role": "user", "content": " "}]}, (400, "missing_required_parameter", "input")),
        (
            {"input": [{"role": "tool", "tool_call_id": "x", "content": "1"}]},
            (400, "invalid_value", "input[0]"),
        ),
        ({"input": "hi", "agent": "nobody"}, (404, "model_not_found", "agent")),
        ({"input": "hi", "model": "nobody/x"}, (404, "model_not_found", "model")),
        ({"input": "hi", "session_key": "cron:1"}, (400, "invalid_value", "session_key")),
        ({"input": "hi", "session_key": "agent:beta:1"}, (400, "invalid_value", "session_key")),
        ({"input": "hi", "session_key": "a\u0000"}, (400, "invalid_value", "session_key")),
        ({"input": "hi", "metadata": {"a": 1}}, (400, "invalid_type", "metadata.a")),
    ],
    ids=str,
)
def test_wrong_request_is_refused_by_field(
    here: httpx.Client, body: dict[str, Any], wanted: tuple[int, str, str]
) -> None:
    assert error_of(here.post("/v1/runs", json=body)) == wanted


def test_run_of_dead_process_is_interrupted(
    config: dict[str, Any], upstream: Upstream, database_url: str | None, tmp_path: Path
) -> None:
    config = {**config, "state": {"url": database_url}}
    with live_gateway(tmp_path, config) as gateway:
        with gateway.client() as client:
            started = [start(client, model="stub/hang", **more) for more in ({}, {"session_key": "dies"})]
            until(lambda: len(upstream.requests) == 2)
        gateway.process.kill()
        gateway.process.wait()
    with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
        for one in started:
            assert ended(client, one)["state"] == "interrupted"


def test_runs_are_off_with_chat_completions(config: dict[str, Any], tmp_path: Path) -> None:
    config = copy.deepcopy(config)
    config["gateway"]["http"]["endpoints"]["chatCompletions"]["enabled"] = False
    with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
        assert error_of(start(client)) == (404, "endpoint_disabled", None)
        assert client.get("/v1/runs").json()["data"] == []


def test_run_without_connection_is_finished_before_the_gateway_stops(
    config: dict[str, Any], upstream: Upstream, tmp_path: Path
) -> None:
    release = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": "done"})
        assert release.wait(60)
        exchange.end("stop")

    upstream.answers["held"] = answer
    with live_gateway(tmp_path, config) as gateway:
        with gateway.client() as client:
            path = start(client, model="stub/held").headers["Location"]
            until(lambda: client.get(path).json()["first_output_at"])
        gateway.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            gateway.process.wait(1)
        release.set()
        assert gateway.process.wait(60) == 0
    with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
        assert client.get(path).json()["state"] == "ok"
