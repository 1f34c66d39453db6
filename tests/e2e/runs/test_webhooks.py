"""The webhook of a run: signed, sent until it is answered, once, whatever becomes of the process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import PATH, ask, error_of, user
from support.conformance import Conformance
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.receiver import Message, Receiver, receiver
from support.upstream import Exchange, Upstream

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
ON_DISCONNECT = "x-openclaw-on-disconnect"
QUIET_SECONDS = 2.0  # longer than the pause before a second attempt


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


@pytest.fixture(scope="module")
def config(module_upstream: Upstream, hooks: Receiver) -> dict[str, Any]:
    stubbed = stubbed_config(module_upstream.url, defaults={"timeoutSeconds": 60})
    stubbed["gateway"]["http"]["webhooks"] = {"privateAddresses": [f"127.0.0.1:{hooks.port}"]}
    return stubbed


def start(client: httpx.Client, hooks: Receiver, *statuses: int, headers: Any = None, **fields: Any) -> str:
    hooks.statuses[:] = statuses or [204]
    body = {"input": "hi", "webhook": {"url": hooks.url, "secret": SECRET}, **fields}
    response = client.post("/v1/runs", json=body, headers=headers)
    assert response.status_code == 202, response.text
    run_id: str = response.json()["id"]
    return run_id


def check_signature(message: Message) -> None:
    """As the specification says, with nothing of the gateway's."""
    parts = (message.headers["webhook-id"].encode(), message.headers["webhook-timestamp"].encode(), message.body)
    expected = base64.b64encode(hmac.new(KEY, b".".join(parts), hashlib.sha256).digest()).decode()
    assert message.headers["webhook-signature"].split() == [f"v1,{expected}"]
    assert abs(int(message.headers["webhook-timestamp"]) - time.time()) < 60


@pytest.mark.parametrize("status", [200, 201, 299])
def test_ended_run_is_posted_once_and_signed(here: httpx.Client, hooks: Receiver, status: int) -> None:
    run_id = start(here, hooks, status, metadata={"mine": "à"})
    [message] = hooks.wait_for(run_id)
    check_signature(message)
    run = here.get(f"/v1/runs/{run_id}").json()
    assert (message.path, message.headers["content-type"]) == ("/hook", "application/json")
    sent = httpx.Response(200, content=message.body).json()
    Conformance().check_run_ended(sent)
    assert sent == {"type": "run.ended", "timestamp": run["ended_at"], "data": run}
    assert run["state"] == "ok"
    time.sleep(QUIET_SECONDS)
    assert len(hooks.of(run_id)) == 1


@pytest.mark.parametrize("said", [None, "continue"])
def test_chat_completion_goes_on_for_its_webhook(
    pair: tuple[LiveGateway, LiveGateway], upstream: Upstream, hooks: Receiver, said: str | None
) -> None:
    """With `continue` the stream begins before the model has said anything."""
    hooks.statuses[:] = [204]
    name, release = uuid.uuid4().hex, threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.head()
        if said is None:
            exchange.event({"content": "one "})
        assert release.wait(60)
        exchange.event({"content": "two"})
        exchange.end()

    upstream.answers[name] = answer
    body = {"messages": [user("hi")], "stream": True, "webhook": {"url": hooks.url, "secret": SECRET}}
    headers = {"Authorization": f"Bearer {TOKEN}", "x-openclaw-model": f"stub/{name}"}
    headers |= {} if said is None else {ON_DISCONNECT: said}
    with httpx.stream("POST", f"{pair[0].url}{PATH}", json=body, headers=headers, timeout=60) as response:
        run_id = response.headers["x-openclaw-run-id"]
    release.set()
    [message] = hooks.wait_for(run_id)
    check_signature(message)
    assert b'"state":"ok"' in message.body


def test_chat_completion_with_webhook_is_not_cancelled(here: httpx.Client, hooks: Receiver) -> None:
    webhook = {"url": hooks.url, "secret": SECRET}
    refused = ask(here, "hi", headers={ON_DISCONNECT: "cancel"}, webhook=webhook)
    assert error_of(refused) == (400, "invalid_value", ON_DISCONNECT)
    unusable = ask(here, "hi", webhook={**webhook, "url": "http://10.0.0.1/x"})
    assert error_of(unusable) == (400, "invalid_value", "webhook.url")


@pytest.mark.parametrize("status", [500, 302, 404, 429])
def test_refused_webhook_is_sent_again_with_its_id(here: httpx.Client, hooks: Receiver, status: int) -> None:
    run_id = start(here, hooks, status, 204)
    first, second = hooks.wait_for(run_id, 2)
    check_signature(second)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    time.sleep(QUIET_SECONDS)
    assert len(hooks.of(run_id)) == 2


def test_gone_receiver_is_left_alone(here: httpx.Client, hooks: Receiver) -> None:
    run_id = start(here, hooks, 410)
    hooks.wait_for(run_id)
    time.sleep(QUIET_SECONDS)
    assert len(hooks.of(run_id)) == 1


def test_failed_and_cancelled_runs_are_posted(here: httpx.Client, upstream: Upstream, hooks: Receiver) -> None:
    failed = start(here, hooks, model="stub/status-500")
    assert b'"state":"error"' in hooks.wait_for(failed)[0].body
    name = uuid.uuid4().hex
    upstream.answers[name] = lambda exchange: exchange.wait(30)
    cancelled = start(here, hooks, model=f"stub/{name}")
    until(lambda: here.get(f"/v1/runs/{cancelled}").json()["state"] == "running")
    assert here.post(f"/v1/runs/{cancelled}/cancel").status_code == 200
    assert b'"state":"aborted"' in hooks.wait_for(cancelled)[0].body


def test_repetitions_of_a_request_have_one_webhook(here: httpx.Client, there: httpx.Client, hooks: Receiver) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    run_id = start(here, hooks, headers=headers)
    assert start(there, hooks, headers=headers) == run_id
    hooks.wait_for(run_id)
    assert start(here, hooks, headers=headers) == run_id
    time.sleep(QUIET_SECONDS)
    assert len(hooks.of(run_id)) == 1


@pytest.mark.parametrize(
    ("webhook", "param"),
    [
        ({"url": "http://127.0.0.1:9/x", "secret": SECRET}, "webhook.url"),
        ({"url": "http://10.0.0.1/x", "secret": SECRET}, "webhook.url"),
        ({"url": "http://169.254.169.254/latest", "secret": SECRET}, "webhook.url"),
        ({"url": "http://93.184.216.34:22/", "secret": SECRET}, "webhook.url"),
        ({"url": "https://a@example.com/", "secret": SECRET}, "webhook.url"),
        ({"url": "ftp://example.com/", "secret": SECRET}, "webhook.url"),
        ({"url": "https://example.com/", "secret": "short"}, "webhook.secret"),
        ({"url": "https://example.com/"}, "webhook.secret"),
    ],
)
def test_unusable_webhook_is_refused(here: httpx.Client, webhook: dict[str, str], param: str) -> None:
    answer = here.post("/v1/runs", json={"input": "hi", "webhook": webhook})
    assert (error_of(answer)[0], error_of(answer)[2]) == (400, param)


def test_no_webhook_is_none(here: httpx.Client) -> None:
    assert here.post("/v1/runs", json={"input": "hi", "webhook": None}).status_code == 202


def test_name_of_a_private_address_is_not_reached(here: httpx.Client, pair: tuple[LiveGateway, LiveGateway]) -> None:
    with receiver() as other:
        webhook = {"url": f"http://localhost:{other.port}/", "secret": SECRET}
        run_id = here.post("/v1/runs", json={"input": "hi", "webhook": webhook}).json()["id"]
        until(lambda: any(f"run {run_id}: its webhook was not delivered" in one.output for one in pair))
        assert not other.messages


def test_webhook_survives_the_death_of_its_process(
    config: dict[str, Any], upstream: Upstream, hooks: Receiver, database_url: str | None, tmp_path: Path
) -> None:
    name = uuid.uuid4().hex
    upstream.answers[name] = _hang
    config = {**config, "state": {"url": database_url}}
    env = {"OPENCLAW_STATE_DIR": str(tmp_path / "state")}
    with live_gateway(tmp_path / "one", config, env=env) as one, one.client() as client:
        waiting = start(client, hooks, model=f"stub/{name}")
        refused = start(client, hooks, 503)
        until(lambda: client.get(f"/v1/runs/{waiting}").json()["state"] == "running")
        until(lambda: f"run {refused}: its webhook failed and is retried" in one.output)
        client.post("/v1/runs", json={"input": "hi"})  # committed after what that says
        one.process.kill()
    hooks.statuses[:] = [204]
    before = len(hooks.of(refused))
    with live_gateway(tmp_path / "two", config, env=env):
        assert b'"state":"interrupted"' in hooks.wait_for(waiting)[0].body
        hooks.wait_for(refused, before + 1)


def _hang(exchange: Exchange) -> None:
    exchange.head()
    exchange.wait(30)
