"""Limits of keys, agents and all together: what is refused, what answers say, and who is told over which protocol."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from support.api_keys import create_key, open_keys
from support.chat import ask, error_of
from support.live import LiveGateway, live_gateway, scripted_config
from support.operator_client import operator_client
from support.polling import until

from service.core.budgets import parse_budget
from service.core.rate_limits import RateLimits

MESSAGES = {"messages": [{"role": "user", "content": "hello"}]}
#: Every operation that a limit concerns; the embeddings' tokens are counted by words.
LIMITED = (
    ("/v1/chat/completions", MESSAGES),
    ("/v1/chat/completions", {**MESSAGES, "stream": True}),
    ("/v1/responses", {"input": "hello"}),
    ("/v1/responses", {"input": "hello", "stream": True}),
    ("/v1/responses", {"input": "hello", "background": True}),
    ("/v1/runs", {"input": "hello"}),
    ("/v1/embeddings", {"input": "hello"}),
    ("/tools/invoke", {"tool": "sessions_list"}),
)
SILENT = {"x-openclaw-model": "scripted/silent"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    config = scripted_config()
    endpoints = ("chatCompletions", "responses", "embeddings", "tools")
    config["gateway"]["http"]["endpoints"] = {name: {"enabled": True} for name in endpoints}
    config["gateway"]["limits"] = {"agents": {"beta": {"requestsPerMinute": 3}}}
    config["embeddings"] = {"model": "scripted/embed"}
    config["tools"] = {"sessions": {"visibility": "all"}}
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as live:
        yield live


def key_with(gateway: LiveGateway, *limits: int | None) -> str:
    return create_key(gateway.state_dir, limits=RateLimits(*limits))[0]


def limit_headers(response: httpx.Response) -> dict[str, str]:
    prefix = "x-ratelimit-"
    return {name.removeprefix(prefix): value for name, value in response.headers.items() if name.startswith(prefix)}


def test_every_operation_counts_and_is_refused_beyond_the_limit(gateway: LiveGateway) -> None:
    with gateway.client(key_with(gateway, len(LIMITED))) as client:
        for used, (path, body) in enumerate(LIMITED, 1):
            response = client.post(path, json=body)
            assert response.is_success, response.text
            shown = limit_headers(response)
            assert (shown["limit-requests"], shown["remaining-requests"]) == (
                str(len(LIMITED)),
                str(len(LIMITED) - used),
            )
            assert re.fullmatch(r"1m0s|[0-9.]+s", shown["reset-requests"])
            assert "limit-tokens" not in shown
        for path, body in LIMITED:
            refused = client.post(path, json=body)
            assert error_of(refused)[:2] == (429, "rate_limit_exceeded"), path
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert limit_headers(refused)["remaining-requests"] == "0"
            assert "x-openclaw-run-id" not in refused.headers
        invalid = client.post("/v1/chat/completions", json={"messages": []})
        assert (invalid.status_code, limit_headers(invalid)["remaining-requests"]) == (400, "0")
        listed = client.get("/v1/runs")
        assert (listed.status_code, limit_headers(listed)) == (200, {})


def test_websocket_runs_count(gateway: LiveGateway) -> None:
    text = key_with(gateway, 2)
    with operator_client(gateway, auth={"token": text}) as client:
        client.run("hello", str(uuid.uuid4()))
        client.call("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": str(uuid.uuid4())})
        for method, target in (("agent", {}), ("chat.send", {"sessionKey": "main"})):
            error = client.refusal(method, {"message": "x", "idempotencyKey": str(uuid.uuid4()), **target})
            assert error["details"]["code"] == "RATE_LIMIT_EXCEEDED"
            assert error["retryable"]
            assert 1000 <= error["retryAfterMs"] <= 60_000
    with gateway.client(text) as client:
        assert ask(client, "hello").status_code == 429


def test_what_repeats_an_answer_and_what_is_not_valid_does_not_count(gateway: LiveGateway) -> None:
    with gateway.client(key_with(gateway, 2)) as client:
        assert client.post("/v1/chat/completions", json={"messages": []}).status_code == 400
        assert ask(client, "hello", model="openclaw/nobody").status_code == 404
        once = {"Idempotency-Key": "once"}
        answers = [ask(client, "hello", headers=once) for _ in range(3)]
        assert [limit_headers(one)["remaining-requests"] for one in answers] == ["1", "1", "1"]
        assert ask(client, "hello").status_code == 200
        assert ask(client, "hello").status_code == 429
        again = ask(client, "hello", headers=once)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
        vectors = {"Idempotency-Key": "vectors"}
        assert client.post("/v1/embeddings", json={"input": "x"}, headers=vectors).status_code == 429


def test_tokens_count_as_they_were_used(gateway: LiveGateway) -> None:
    """The scripted provider counts words: 2 of the message and 100 of the answer."""
    with gateway.client(key_with(gateway, None, 300)) as client:
        for used in (102, 204):
            answer = ask(client, "two words", headers={"x-openclaw-model": "scripted/count-100"})
            assert answer.json()["usage"]["total_tokens"] == 102
            shown = limit_headers(ask(client, "", model="openclaw/nobody"))  # before the next one is estimated
            assert (shown["limit-tokens"], shown["remaining-tokens"]) == ("300", str(300 - used))
            assert "limit-requests" not in shown
        refused = ask(client, "x", max_tokens=200)
        assert error_of(refused)[:2] == (429, "rate_limit_exceeded")
        assert "300 tokens per minute" in refused.json()["error"]["message"]
        assert ask(client, "x").status_code == 200


def test_tokens_of_a_run_that_was_cut_off_count(gateway: LiveGateway) -> None:
    with gateway.client(key_with(gateway, None, 300)) as client:
        run = client.post("/v1/runs", json={"input": "x" * 400, "model": "scripted/stuck"}).json()
        path = f"/v1/runs/{run['id']}"
        until(lambda: client.get(path).json()["first_output_at"])
        assert client.post(f"{path}/cancel").is_success
        until(lambda: client.get(path).json()["ended_at"])
        until(lambda: int(limit_headers(ask(client, "", model="openclaw/nobody"))["remaining-tokens"]) <= 200)


def test_a_run_is_refused_while_as_many_go_on_as_may(gateway: LiveGateway) -> None:
    with gateway.client(key_with(gateway, None, None, 2)) as client:
        runs = [client.post("/v1/runs", json={"input": "x", "model": "scripted/silent"}) for _ in range(2)]
        refused = ask(client, "hello")
        assert error_of(refused)[:2] == (429, "rate_limit_exceeded")
        assert "2 runs at once" in refused.json()["error"]["message"]
        assert limit_headers(refused) == {}
        client.post(f"{runs[0].headers['location']}/cancel").raise_for_status()
        until(lambda: ask(client, "hello").status_code == 200)
        client.post(f"{runs[1].headers['location']}/cancel").raise_for_status()


def test_an_agent_is_limited_for_all_and_the_tightest_limit_shows(gateway: LiveGateway) -> None:
    with ExitStack() as stack:
        token, limited = (stack.enter_context(gateway.client(*one)) for one in ((), (key_with(gateway, 2),)))
        first = ask(token, "hello", model="openclaw/beta")
        assert limit_headers(first)["remaining-requests"] == "2"
        second = limit_headers(ask(limited, "hello", model="openclaw/beta"))
        assert (second["limit-requests"], second["remaining-requests"]) in (("2", "1"), ("3", "1"))
        assert ask(token, "hello", model="openclaw/beta").status_code == 200
        refused = ask(limited, "hello", model="openclaw/beta")
        assert "the agent beta: 3 requests per minute" in refused.json()["error"]["message"]
        assert limit_headers(refused)["remaining-requests"] == "0"
        assert limit_headers(ask(limited, "hello"))["remaining-requests"] == "0"  # the refused one did not count
        free = ask(token, "hello")
        assert (free.status_code, limit_headers(free)) == (200, {})


def test_a_limit_is_changed_while_the_gateway_runs(gateway: LiveGateway) -> None:
    text, key_id = create_key(gateway.state_dir, limits=RateLimits(1))
    with gateway.client(text) as client, open_keys(gateway.state_dir) as keys:
        assert [ask(client, "hello").status_code for _ in range(2)] == [200, 429]
        keys.set_limits(key_id, RateLimits(3))
        until(lambda: limit_headers(ask(client, "", model="openclaw/nobody"))["limit-requests"] == "3")
        assert [ask(client, "hello").status_code for _ in range(3)] == [200, 200, 429]
        keys.set_limits(key_id, RateLimits())
        until(lambda: ask(client, "hello").status_code == 200)


def test_changed_limits_and_budgets_apply_to_open_websockets(gateway: LiveGateway) -> None:
    text, key_id = create_key(gateway.state_dir)
    with operator_client(gateway, auth={"token": text}) as client, open_keys(gateway.state_dir) as keys:

        def outcome() -> str:
            response = client.response(client.send("agent", {"message": "x", "idempotencyKey": str(uuid.uuid4())}))
            return "ok" if response["ok"] else str(response["error"]["details"]["code"])

        assert outcome() == "ok"
        keys.set_limits(key_id, RateLimits(1))
        until(lambda: outcome() == "RATE_LIMIT_EXCEEDED")
        keys.set_limits(key_id, RateLimits())
        until(lambda: outcome() == "ok")
        keys.set_budget(key_id, parse_budget("1usd/day"))
        until(lambda: outcome() == "MODEL_NOT_FOUND")  # it has no price
