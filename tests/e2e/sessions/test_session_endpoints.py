"""`/v1/sessions` and `/v1/runs`: reading, paging, deleting, cancelling."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import openai
import orjson
import pytest
from support.chat import ask, chunks_of, error_of, text_of
from support.databases import Postgres
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.upstream import Exchange, Upstream
from support.upstream_answers import WORDS

GENEROUS_SECONDS = 20.0
SESSION_KEY = "x-openclaw-session-key"


def relay_config(upstream: Upstream, **state: Any) -> dict[str, Any]:
    agents = [{"id": "main", "default": True}, {"id": "beta"}]
    return {**stubbed_config(upstream.url, agents=agents, defaults={"timeoutSeconds": 20}), "state": state}


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("relay"), relay_config(module_upstream)) as running:
        yield running


@pytest.fixture
def talk(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as client:
        yield client


def path_of(key: str) -> str:
    return f"/v1/sessions/{quote(key, safe='')}"


def begin(client: httpx.Client, name: str, *said: str, agent: str = "main") -> str:
    """Create a session with these turns and return its key."""
    headers = {SESSION_KEY: quote(name), "x-openclaw-agent-id": agent}
    for text in said or ("hello",):
        response = ask(client, text, headers=headers)
        assert response.status_code == 200, response.text
    return unquote(response.headers[SESSION_KEY])


def pages(client: httpx.Client, *, between: Callable[[], object] = lambda: None, **query: Any) -> list[dict[str, Any]]:
    """Read all sessions page by page."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/v1/sessions", params={**query, **after}).json()
        found += page["data"]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return found
        after = {"after": page["next_cursor"]}
        between()


def test_session_is_listed_and_returned_with_messages(talk: httpx.Client) -> None:
    key = begin(talk, f"show-{uuid.uuid4()}", "how are you?", "and now?")
    listed = next(one for one in pages(talk) if one["key"] == key)
    shown = talk.get(path_of(key)).json()
    assert {name: shown[name] for name in listed} == listed
    assert (listed["title"], listed["agent"], listed["stateless"]) == ("how are you?", "main", False)
    assert (listed["message_count"], listed["model"]) == (4, "stub/ok")
    assert listed["usage"]["input_tokens"] > 0
    assert [(message["index"], message["role"]) for message in shown["messages"]] == [
        (0, "user"),
        (1, "assistant"),
        (2, "user"),
        (3, "assistant"),
    ]
    assert shown["messages"][2]["content"] == [{"type": "text", "text": "and now?"}]
    assert shown["messages"][3]["run_id"] == listed["last_run_id"]
    assert shown["active_run_ids"] == []


def test_latest_messages_are_returned_up_to_limit(talk: httpx.Client) -> None:
    key = begin(talk, f"tail-{uuid.uuid4()}", "one", "two")
    messages = talk.get(path_of(key), params={"limit": 1}).json()["messages"]
    assert [message["index"] for message in messages] == [3]
    assert talk.get(path_of(key), params={"limit": 0}).json()["messages"] == []


@pytest.mark.parametrize("path", ["sessions", "runs", "usage", "approvals"])
def test_misspelt_query_parameter_is_refused_with_the_name_it_may_mean(talk: httpx.Client, path: str) -> None:
    name = {"sessions": "stateless", "runs": "session_key", "usage": "from", "approvals": "limit"}[path]
    refused = talk.get(f"/v1/{path}", params={f"{name}s": "x"})
    assert error_of(refused) == (400, "unsupported_parameter", f"{name}s")
    assert f"Did you mean `{name}`?" in refused.json()["error"]["message"]
    assert talk.get(f"/v1/{path}", params={"api-version": "2026-11-01", "include[]": "x"}).status_code == 200


@pytest.mark.parametrize(
    "name", ["a/b//c", "a:b", "nguyễn văn", "100%", "50%2F", "who?", "#1", "a+b&c=d", "../..", "."]
)
def test_any_key_can_be_read_and_deleted(talk: httpx.Client, name: str) -> None:
    key = begin(talk, name)
    assert talk.get(path_of(key)).json()["key"] == key
    assert talk.delete(path_of(key)).json() == {"object": "session.deleted", "key": key, "deleted": True}
    assert error_of(talk.get(path_of(key))) == (404, "session_not_found", "key")


def test_session_key_header_is_path_of_session(talk: httpx.Client) -> None:
    header = ask(talk, "hi", user=f"Ánna {uuid.uuid4()}").headers[SESSION_KEY]
    assert talk.get(f"/v1/sessions/{header}").json()["title"] == "hi"


def test_pages_list_every_session_once_despite_concurrent_use(talk: httpx.Client) -> None:
    names = [f"page-{number}-{uuid.uuid4()}" for number in range(7)]
    keys = [begin(talk, name, agent="beta") for name in names]
    unseen = iter(names * 2)
    found = pages(talk, between=lambda: begin(talk, next(unseen), "again", agent="beta"), agent="Beta", limit=2)
    assert [one["key"] for one in found] == keys[::-1]


def test_page_continues_after_deleted_session(talk: httpx.Client) -> None:
    keys = [begin(talk, f"gone-{number}-{uuid.uuid4()}") for number in range(3)]
    first = talk.get("/v1/sessions", params={"limit": 1, "stateless": "false"}).json()
    assert first["data"][0]["key"] == keys[2]
    talk.delete(path_of(keys[2]))
    second = talk.get("/v1/sessions", params={"limit": 1, "stateless": "false", "after": first["next_cursor"]}).json()
    assert second["data"][0]["key"] == keys[1]


def test_stateless_sessions_are_filtered_until_continued(talk: httpx.Client) -> None:
    alone = ask(talk, "hi").headers[SESSION_KEY]
    named = begin(talk, f"named-{uuid.uuid4()}")

    def keys(**query: Any) -> set[str]:
        return {one["key"] for one in pages(talk, limit=100, **query)}

    assert keys() >= {alone, named}
    assert alone in keys(stateless="true")
    assert named not in keys(stateless="true")
    assert alone not in keys(stateless="false")
    ask(talk, "go on", headers={SESSION_KEY: alone})
    assert alone in keys(stateless="false")


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "invalid_value"),
        ("limit=101", "limit", "invalid_value"),
        ("limit=", "limit", "invalid_type"),
        ("limit=1.5", "limit", "invalid_type"),
        ("limit=" + "9" * 5000, "limit", "invalid_type"),
        ("limit=1&limit=2", "limit", "invalid_value"),
        ("stateless=perhaps", "stateless", "invalid_type"),
        ("after=elsewhere", "after", "invalid_value"),
        ("agent=", "agent", "invalid_value"),
        ("agent=%00", "agent", "invalid_value"),
    ],
)
def test_invalid_query_is_refused_by_parameter(talk: httpx.Client, query: str, param: str, code: str) -> None:
    assert error_of(talk.get(f"/v1/sessions?{query}")) == (400, code, param)


def test_agent_without_sessions_has_empty_list(talk: httpx.Client) -> None:
    page = talk.get("/v1/sessions", params={"agent": "nobody"}).json()
    assert page == {"object": "list", "data": [], "has_more": False, "next_cursor": None}


def test_deleted_session_starts_empty_and_its_run_records_are_gone(talk: httpx.Client) -> None:
    name = f"again-{uuid.uuid4()}"
    before = talk.get(path_of(begin(talk, name, "one"))).json()
    assert talk.get(f"/v1/runs/{before['last_run_id']}").json()["state"] == "ok"
    talk.delete(path_of(before["key"]))
    assert error_of(talk.get(f"/v1/runs/{before['last_run_id']}")) == (404, "run_not_found", "run_id")
    assert error_of(talk.delete(path_of(before["key"]))) == (404, "session_not_found", "key")
    after = talk.get(path_of(begin(talk, name, "two"))).json()
    assert after["id"] != before["id"]
    assert [message["content"][0]["text"] for message in after["messages"] if message["role"] == "user"] == ["two"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions/unknown"),
        ("DELETE", "/v1/sessions/agent%3Amain%3A%00"),
        ("GET", "/v1/runs/unknown"),
        ("GET", "/v1/runs/%00"),
        ("POST", "/v1/runs/unknown/cancel"),
    ],
)
def test_unknown_session_or_run_is_404(talk: httpx.Client, method: str, path: str) -> None:
    assert talk.request(method, path).status_code == 404


def test_session_paths_allow_only_documented_methods(talk: httpx.Client) -> None:
    for method in ("PUT", "OPTIONS"):
        assert talk.request(method, "/v1/sessions/x").headers["allow"] == "DELETE, GET, HEAD"
    assert talk.get("/v1/runs/x/cancel").headers["allow"] == "POST"
    forks = talk.put("/v1/sessions/x/fork")  # a session may be called "x/fork", too
    assert forks.headers["allow"] == "DELETE, GET, HEAD, POST"
    assert talk.post("/v1/sessions").status_code == 405


def test_unauthenticated_requests_get_401(relay: LiveGateway) -> None:
    with relay.client(token="wrong") as stranger:
        for method, path in (
            ("GET", "/v1/sessions"),
            ("GET", "/v1/sessions/x"),
            ("DELETE", "/v1/sessions/x"),
            ("GET", "/v1/runs/x"),
            ("POST", "/v1/runs/x/cancel"),
        ):
            assert stranger.request(method, path).status_code == 401


def test_session_paths_are_served_while_chat_completions_are_off(upstream: Upstream, tmp_path: Path) -> None:
    config = relay_config(upstream)
    config["gateway"]["http"]["endpoints"] = {}
    with live_gateway(tmp_path, config) as closed, closed.client() as client:
        assert client.get("/v1/sessions").json()["data"] == []
        assert error_of(client.post("/v1/runs/x/cancel"))[:2] == (404, "run_not_found")
        assert error_of(client.get("/v1/models"))[:2] == (404, "endpoint_disabled")


def test_run_record_has_times_and_usage(talk: httpx.Client) -> None:
    for headers in ({}, {SESSION_KEY: f"run-{uuid.uuid4()}"}):
        answer = ask(talk, "hi", headers=headers)
        run = talk.get(f"/v1/runs/{answer.json()['id']}").json()
        assert run["session_key"] == answer.headers[SESSION_KEY]
        assert (run["state"], run["protocol"], run["model"], run["finish_reason"]) == ("ok", "http", "stub/ok", "stop")
        counted = answer.json()["usage"]
        assert run["usage"]["input_tokens"] == counted["prompt_tokens"]
        assert run["usage"]["output_tokens"] == counted["completion_tokens"]
        assert run["created_at"] <= run["started_at"] <= run["ended_at"]
        assert run["duration_ms"] >= 0
        assert run["error"] is None


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as running:
        yield running


def start_stream(client: httpx.Client, headers: dict[str, str], pool: ThreadPoolExecutor) -> tuple[str, Future[str]]:
    """Start a streamed run; return its id and the future text."""
    begun: Future[str] = Future()

    def stream() -> str:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        text = ""
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            for line in response.iter_lines():
                text += line + "\n"
                if not begun.done() and line.startswith("data: {"):
                    begun.set_result(orjson.loads(line.removeprefix("data: "))["id"])
        return text

    whole = pool.submit(stream)
    return begun.result(GENEROUS_SECONDS), whole


@pytest.fixture
def raw(relay: LiveGateway) -> Iterator[httpx.Client]:
    """A client that reads responses incrementally."""
    with httpx.Client(base_url=relay.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client


@pytest.mark.parametrize("named", [True, False])
def test_active_run_can_be_read_and_cancelled(
    talk: httpx.Client, raw: httpx.Client, pool: ThreadPoolExecutor, named: bool
) -> None:
    headers = {"x-openclaw-model": "stub/hang-midway", **({SESSION_KEY: f"cancel-{uuid.uuid4()}"} if named else {})}
    run_id, streamed = start_stream(raw, headers, pool)
    run = talk.get(f"/v1/runs/{run_id}").json()
    assert (run["state"], run["ended_at"], run["error"]) == ("running", None, None)
    if named:
        busy = talk.delete(path_of(run["session_key"]))
        assert error_of(busy) == (409, "session_busy", "key")
        assert run_id in busy.json()["error"]["message"]
        short = run["session_key"].removeprefix("agent:main:")
        assert error_of(talk.delete(path_of(short))) == (409, "session_busy", "key")
    assert talk.post(f"/v1/runs/{run_id}/cancel").json()["id"] == run_id
    assert '"code":"run_aborted"' in streamed.result(GENEROUS_SECONDS)
    run = talk.get(f"/v1/runs/{run_id}").json()
    assert (run["state"], run["error"]["code"]) == ("aborted", "run_aborted")
    again = talk.post(f"/v1/runs/{run_id}/cancel")
    assert error_of(again) == (409, "run_ended", None)
    assert again.headers["x-should-retry"] == "false"
    assert '"aborted"' in again.json()["error"]["message"]


def test_openai_sdk_does_not_retry_aborted_run(
    relay: LiveGateway, talk: httpx.Client, pool: ThreadPoolExecutor, upstream: Upstream
) -> None:
    name, asked = f"abort-{uuid.uuid4()}", len(upstream.requests)
    key = begin(talk, name)
    headers = {"x-openclaw-model": "stub/hang-midway", SESSION_KEY: name}
    with openai.OpenAI(base_url=f"{relay.url}/v1", api_key=TOKEN, max_retries=2) as client:
        messages: list[Any] = [{"role": "user", "content": "stop me"}]
        answer = pool.submit(client.chat.completions.create, model="openclaw", messages=messages, extra_headers=headers)
        active = until(lambda: talk.get(path_of(key)).json()["active_run_ids"])
        talk.post(f"/v1/runs/{active[0]}/cancel")
        with pytest.raises(openai.InternalServerError) as caught:
            answer.result(GENEROUS_SECONDS)
    assert (caught.value.status_code, caught.value.code) == (503, "run_aborted")
    assert len(upstream.requests) - asked <= 2  # the session's first turn, and this one


def test_partial_stream_output_is_stored_and_returned(talk: httpx.Client, upstream: Upstream) -> None:
    name = f"broke-{uuid.uuid4()}"
    begin(talk, name)
    broken = {"x-openclaw-model": "stub/drop-after", SESSION_KEY: name}
    assert ask(talk, "read by nobody", headers=broken).status_code == 502
    assert "error" in chunks_of(ask(talk, "seen", headers=broken, stream=True))[-1]
    text_of(ask(talk, "go on", headers={"x-openclaw-model": "stub/ok", SESSION_KEY: name}))
    said = [one["content"] for one in upstream.requests[-1].body["messages"]]
    assert "read by nobody" not in said
    assert said[-3:] == ["seen", f"{WORDS[0]}\n\n(cut off here: the run failed)", "go on"]


def test_failed_stream_can_be_retried_after_tool_messages(talk: httpx.Client, upstream: Upstream) -> None:
    def look(exchange: Exchange) -> None:
        exchange.head()
        function = {"name": "look", "arguments": "{}"}
        exchange.event({"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": function}]})
        exchange.end("tool_calls")

    upstream.answers["looks"] = look
    session = {SESSION_KEY: f"again-{uuid.uuid4()}"}
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    called = ask(talk, "look", headers={"x-openclaw-model": "stub/looks", **session}, tools=tools)
    (call,) = called.json()["choices"][0]["message"]["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    for _ in range(2):
        broken = ask(talk, result, headers={"x-openclaw-model": "stub/drop-after", **session}, stream=True)
        assert "error" in chunks_of(broken)[-1]
    keyed = {"x-openclaw-model": "stub/drop-after", "Idempotency-Key": str(uuid.uuid4()), **session}
    text_of(ask(talk, result, headers={"x-openclaw-model": "stub/ok", **session}))
    for _ in range(2):
        assert "error" in chunks_of(ask(talk, "once", headers=keyed, stream=True))[-1]
    text_of(ask(talk, "go on", headers={"x-openclaw-model": "stub/ok", **session}))
    said = [one["content"] for one in upstream.requests[-1].body["messages"] if one["role"] != "assistant"]
    assert said == ["look", "sunny", "go on"]


def test_continuing_model_sees_where_answer_was_truncated(
    talk: httpx.Client, raw: httpx.Client, pool: ThreadPoolExecutor, upstream: Upstream
) -> None:
    name = f"cut-{uuid.uuid4()}"
    key = begin(talk, name)
    run_id, streamed = start_stream(raw, {"x-openclaw-model": "stub/hang-midway", SESSION_KEY: name}, pool)
    talk.post(f"/v1/runs/{run_id}/cancel")
    streamed.result(GENEROUS_SECONDS)
    for _ in range(2):
        text_of(ask(talk, "go on", headers={"x-openclaw-model": "stub/ok", SESSION_KEY: name}))
    sent = [one["content"] for one in upstream.requests[-1].body["messages"] if one["role"] == "assistant"]
    whole = "".join(WORDS)
    assert sent == [whole, f"{WORDS[0]}\n\n(cut off here: the run was aborted)", whole]
    kept = [one["content"][0]["text"] for one in talk.get(path_of(key)).json()["messages"]]
    assert kept[:4] == ["hello", whole, "hi", WORDS[0]]


def test_queued_run_can_be_cancelled(talk: httpx.Client, raw: httpx.Client, pool: ThreadPoolExecutor) -> None:
    name = f"wait-{uuid.uuid4()}"
    key = begin(talk, name)
    headers = {"x-openclaw-model": "stub/hang-midway", SESSION_KEY: name}
    holder, streamed = start_stream(raw, headers, pool)
    second = pool.submit(ask, raw, "me too", headers=headers)
    both = until(lambda: ids if len(ids := talk.get(path_of(key)).json()["active_run_ids"]) == 2 else None)
    assert both[0] == holder
    assert talk.get(f"/v1/runs/{both[1]}").json()["state"] == "queued"
    assert talk.post(f"/v1/runs/{both[1]}/cancel").json()["id"] == both[1]
    assert error_of(second.result(GENEROUS_SECONDS)) == (503, "run_aborted", None)
    until(lambda: talk.get(f"/v1/runs/{both[1]}").status_code == 404)
    talk.post(f"/v1/runs/{holder}/cancel")
    streamed.result(GENEROUS_SECONDS)
    assert talk.delete(path_of(key)).status_code == 200


def test_run_of_another_gateway_can_be_read_and_cancelled(
    upstream: Upstream, postgres: Postgres, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    url = postgres.create_database()
    config = relay_config(upstream, url=url)
    try:
        with live_gateway(tmp_path / "one", config) as one, live_gateway(tmp_path / "two", config) as two:
            headers = {"x-openclaw-model": "stub/hang", SESSION_KEY: "shared"}
            authorized = {"Authorization": f"Bearer {TOKEN}"}
            with httpx.Client(base_url=one.url, headers=authorized, timeout=60) as raw, two.client() as talk:
                streamed = pool.submit(lambda: ask(raw, "hi", stream=True, headers=headers).text)
                until(lambda: [one["state"] for one in talk.get("/v1/runs").json()["data"]] == ["running"])
                run_id = talk.get("/v1/runs").json()["data"][0]["id"]
                assert talk.delete(path_of("agent:main:shared")).status_code == 409
                assert talk.post(f"/v1/runs/{run_id}/cancel").status_code == 200
                assert "run_aborted" in streamed.result(GENEROUS_SECONDS)
                assert talk.get(f"/v1/runs/{run_id}").json()["state"] == "aborted"
                assert [one["key"] for one in pages(talk)] == []  # no turn was stored
                begin(raw, "said")
                assert [one["title"] for one in pages(talk, stateless="false")] == ["hello"]
    finally:
        postgres.drop_database(url)


def test_cancel_ignores_body(talk: httpx.Client) -> None:
    run_id = ask(talk, "hi").json()["id"]
    bodies: tuple[dict[str, Any], ...] = (
        {},
        {"json": {}},
        {"content": b"anything", "headers": {"Content-Type": "text/plain"}},
    )
    for options in bodies:
        assert error_of(talk.post(f"/v1/runs/{run_id}/cancel", **options)) == (409, "run_ended", None)
    assert text_of(ask(talk, "still there?"))


def test_short_key_means_default_agents_session(talk: httpx.Client) -> None:
    name = f"short-{uuid.uuid4()}"
    key = begin(talk, name)
    assert talk.get(path_of(name)).json()["key"] == key
    assert talk.delete(path_of(name)).json()["key"] == key


@pytest.mark.parametrize("key", ["%ED%A0%80", "a%ED%B0%80"])
def test_unstorable_key_is_not_found(talk: httpx.Client, key: str) -> None:
    assert error_of(talk.get(f"/v1/sessions/{key}")) == (404, "session_not_found", "key")
    assert error_of(talk.delete(f"/v1/sessions/{key}")) == (404, "session_not_found", "key")
