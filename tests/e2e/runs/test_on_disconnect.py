"""`x-openclaw-on-disconnect`: runs of chat completions that go on, or do not, when their client disconnects."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.chat import ask, error_of, text_of
from support.conformance import Conformance
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.raw_request import start_request
from support.run_events import parse_events
from support.run_events import text_of as text_of_events
from support.upstream import Exchange, Upstream

ON_DISCONNECT = "x-openclaw-on-disconnect"
ENDED = ("ok", "error", "aborted", "interrupted")


def config_of(upstream: Upstream, default: str | None) -> dict[str, Any]:
    config = stubbed_config(upstream.url, defaults={"timeoutSeconds": 60})
    if default is not None:
        config["gateway"]["http"]["endpoints"]["chatCompletions"]["onDisconnect"] = default
    return config


@pytest.fixture(scope="module", params=[None, "continue"])
def default(request: pytest.FixtureRequest) -> str | None:
    value: str | None = request.param
    return value


@pytest.fixture(scope="module")
def gateway(
    module_upstream: Upstream, default: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("gateway"), config_of(module_upstream, default)) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as opened:
        yield opened


def held(upstream: Upstream, release: threading.Event) -> str:
    """A model that writes a word, waits, and writes another."""
    name = uuid.uuid4().hex

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": "one "})
        assert release.wait(60)
        exchange.event({"content": "two"})
        exchange.end("stop")

    upstream.answers[name] = answer
    return name


@pytest.mark.parametrize("said", [None, "", "cancel", "continue"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_run_goes_on_or_ends_as_said(
    gateway: LiveGateway,
    client: httpx.Client,
    upstream: Upstream,
    default: str | None,
    said: str | None,
    *,
    stream: bool,
) -> None:
    release = threading.Event()
    model = held(upstream, release)
    headers = {"x-openclaw-model": f"stub/{model}"} | ({} if said is None else {ON_DISCONNECT: said})
    before = {one["id"] for one in client.get("/v1/runs").json()["data"]}
    with start_request(gateway, headers=headers, stream=stream) as leaving:
        until(lambda: [one for one in upstream.requests if one.body["model"] == model])
        if stream:
            assert leaving.recv(12) == b"HTTP/1.1 200"
        (run_id,) = {one["id"] for one in client.get("/v1/runs").json()["data"]} - before
    path = f"/v1/runs/{run_id}"
    if (said or default) == "continue":
        release.set()
        run = until(lambda: found if (found := client.get(path).json())["state"] in ENDED else None)
        assert run["state"] == "ok"
        events = parse_events(Conformance(), client.get(f"{path}/events").content)
        assert text_of_events(events) == "one two"
    else:
        assert until(lambda: (found := client.get(path)).status_code == 404 or found.json()["state"] == "aborted")
        release.set()


def test_run_that_continues_answers_as_any_other(client: httpx.Client) -> None:
    answers = [ask(client, "hi", headers={ON_DISCONNECT: "continue"}, stream=stream) for stream in (False, True)]
    assert text_of(answers[0])
    for answer in answers:
        run = client.get(f"/v1/runs/{answer.headers['x-openclaw-run-id']}").json()
        assert run["state"] == "ok"
        assert client.get(f"/v1/sessions/{run['session_key']}").status_code == 200
    assert error_of(ask(client, "hi", headers={ON_DISCONNECT: "wait"})) == (400, "invalid_value", ON_DISCONNECT)


def test_failed_run_that_continues_has_its_status_and_its_record(client: httpx.Client) -> None:
    headers = {ON_DISCONNECT: "continue", "x-openclaw-model": "stub/status-401"}
    answer = ask(client, "hi", headers=headers)
    assert error_of(answer)[:2] == (502, "provider_authentication_failed")
    run = client.get(f"/v1/runs/{answer.headers['x-openclaw-run-id']}").json()
    assert (run["state"], run["error"]["code"]) == ("error", "provider_authentication_failed")


def test_run_that_continues_survives_its_client_in_the_queue(
    gateway: LiveGateway, client: httpx.Client, upstream: Upstream
) -> None:
    release = threading.Event()
    session = uuid.uuid4().hex
    headers = {"x-openclaw-model": f"stub/{held(upstream, release)}", "x-openclaw-session-key": session}
    holder = client.post("/v1/runs", json={"input": "hi", "model": headers["x-openclaw-model"], "session_key": session})
    until(lambda: client.get(holder.headers["Location"]).json()["state"] == "running")
    with start_request(gateway, headers={ON_DISCONNECT: "continue", **headers}, text="me too"):
        waiting = {"session_key": session, "state": "queued"}
        (queued,) = until(lambda: client.get("/v1/runs", params=waiting).json()["data"])
    release.set()
    until(lambda: client.get(f"/v1/runs/{queued['id']}").json()["state"] == "ok")
