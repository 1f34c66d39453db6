"""Provider data of tool calls, returned with the conversation in sessions and stateless requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import upstream_answers_anthropic as anthropic
from support.chat import ask, streamed_text, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.scripted_upstream import Play, calls
from support.upstream import Exchange, Upstream
from support.upstream_answers import refuse

FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SIGNED = {"google": {"thought_signature": "c2lnbmF0dXJl"}}
UNSIGNED = {"google": {"thought_signature": "skip_thought_signature_validator"}}
THOUGHT = "The user wants the weather."
DETAILS = [
    {"type": "reasoning.text", "index": 0, "text": THOUGHT, "signature": "c2ln", "format": "x"},
    {"type": "reasoning.encrypted", "index": 1, "data": "ZW5j", "format": "x"},
]
BY_OTHERS = {"x-openclaw-model": "stub/other"}
SECRETS = ("c2ln", "The user wants", "ZW5j", "provider_data")

Line = Callable[[Exchange], None]


class Lines:
    """Each request gets the next answer."""

    def __init__(self, *lines: Line) -> None:
        self.lines = list(lines)

    def __call__(self, exchange: Exchange) -> None:
        self.lines.pop(0)(exchange)


def call_of(name: str, index: int = 0, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": '{"path": "."}'}
    return {"index": index, "id": f"call_{name}", "type": "function", "function": function, **more}


def telling(*deltas: dict[str, Any]) -> Line:
    """A stream of `deltas` that ends with calls."""

    def answer(exchange: Exchange) -> None:
        exchange.head()
        for delta in deltas:
            exchange.event(delta)
        exchange.end("tool_calls")

    return answer


def whole(**message: Any) -> Line:
    """An answer in one piece."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": "tool_calls"}
    return lambda exchange: exchange.json(200, {"choices": [choice]})


def said(text: str = "Done.") -> Line:
    return Play(calls(text=text))


def config_of(upstream: Upstream, workspace: Path, **providers: Any) -> dict[str, Any]:
    agents = [{"id": "main", "workspace": str(workspace)}, {"id": "bare", "tools": {"deny": ["*"]}}]
    defaults = {"timeoutSeconds": 30}
    return stubbed_config(upstream.url, "stub/play", agents=agents, defaults=defaults, providers=providers)


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose model "nine" takes other ids than the others; an agent's workspace is its user's home."""
    directory = tmp_path_factory.mktemp("gateway")
    config = config_of(module_upstream, directory)
    config["models"]["providers"]["stub"]["models"] = [{"id": "nine", "compat": {"requiresMistralToolIds": True}}]
    with live_gateway(directory, config) as running:
        yield running


def asked(upstream: Upstream, index: int = -1) -> list[dict[str, Any]]:
    """The assistant's messages that a request showed."""
    return [one for one in upstream.requests[index].body["messages"] if one["role"] == "assistant"]


PIECES: list[dict[str, Any]] = [
    {"reasoning_content": THOUGHT[:9]},
    {"reasoning_content": THOUGHT[9:]},
    {"tool_calls": [call_of("ls")]},
]
PARTS: list[dict[str, Any]] = [
    {"reasoning": THOUGHT, "reasoning_details": [{**DETAILS[0], "text": THOUGHT[:9], "signature": None}]},
    {"reasoning_details": [{**DETAILS[0], "text": THOUGHT[9:]}]},
    {"reasoning_details": [DETAILS[1]], "tool_calls": [call_of("ls")]},
]
DATA = [
    (telling({"tool_calls": [call_of("ls", extra_content=SIGNED)]}), {}, {"extra_content": SIGNED}),
    (whole(tool_calls=[call_of("ls", extra_content=SIGNED)]), {}, {"extra_content": SIGNED}),
    (telling(*PIECES), {"reasoning_content": THOUGHT}, {}),
    (whole(reasoning_content=THOUGHT, tool_calls=[call_of("ls")]), {"reasoning_content": THOUGHT}, {}),
    (telling({"reasoning": THOUGHT}, {"tool_calls": [call_of("ls")]}), {"reasoning": THOUGHT}, {}),
    (telling(*PARTS), {"reasoning_details": DETAILS}, {}),
]


@pytest.mark.parametrize(("line", "message", "call"), DATA)
def test_provider_data_of_call_is_sent_back(
    client: httpx.Client, upstream: Upstream, line: Line, message: dict[str, Any], call: dict[str, Any]
) -> None:
    upstream.answers["play"] = Lines(line, said())
    answer = ask(client, "look")
    assert text_of(answer) == "Done."
    assert not any(secret in answer.text for secret in SECRETS)
    [shown] = asked(upstream)
    function = {"name": "ls", "arguments": '{"path": "."}'}
    called = {"id": "call_ls", "type": "function", "function": function, **call}
    assert shown == {"role": "assistant", "content": None, **message, "tool_calls": [called]}


def test_parallel_calls_keep_their_own_data(client: httpx.Client, upstream: Upstream) -> None:
    pieces = [call_of("ls", extra_content=SIGNED), call_of("agents_list", 1)]
    upstream.answers["play"] = Lines(telling({"tool_calls": pieces}), said())
    assert text_of(ask(client, "look")) == "Done."
    first, second = asked(upstream)[0]["tool_calls"]
    assert first["extra_content"] == SIGNED
    assert second.keys() == {"id", "type", "function"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openclaw/main", "openclaw/bare"])
@pytest.mark.parametrize("in_a_session", [False, True])
def test_provider_data_is_restored_for_callers_result(
    client: httpx.Client, upstream: Upstream, session: dict[str, str], in_a_session: bool, model: str, stream: bool
) -> None:
    weather = {"tool_calls": [call_of("weather", extra_content=SIGNED)]}
    upstream.answers["play"] = Lines(telling({"reasoning_content": THOUGHT}, weather), said("Sunny."))
    options: dict[str, Any] = {"tools": [FUNCTION], "model": model, "headers": session if in_a_session else None}
    first = ask(client, "how is it?", stream=stream, **options)
    assert not any(secret in first.text for secret in SECRETS)
    function = {"name": "weather", "arguments": '{"path": "."}'}
    [call_id] = set(re.findall(r'"id":"([a-zA-Z0-9]{9})"', first.text))  # one that nobody can guess
    call = {"id": call_id, "type": "function", "function": function}
    result = {"role": "tool", "tool_call_id": call_id, "content": "sunny"}
    before = [] if in_a_session else ["how is it?", {"role": "assistant", "content": None, "tool_calls": [call]}]
    answer = ask(client, *before, result, stream=stream, **options)
    assert (streamed_text if stream else text_of)(answer) == "Sunny."
    [shown] = asked(upstream)
    assert shown["reasoning_content"] == THOUGHT
    assert shown["tool_calls"] == [{**call, "extra_content": SIGNED}]


def test_provider_data_survives_restart_and_is_never_exposed(upstream: Upstream, tmp_path: Path) -> None:
    key = {"x-openclaw-session-key": "kept"}
    config = config_of(upstream, tmp_path)
    upstream.answers["play"] = Lines(telling({"tool_calls": [call_of("ls", extra_content=SIGNED)]}), said(), said())
    with live_gateway(tmp_path / "gateway", config) as running, running.client() as client:
        text_of(ask(client, "look", headers=key))
    with live_gateway(tmp_path / "gateway", config) as running, running.client() as client:
        text_of(ask(client, "and now?", headers=key))
        shown = client.get("/v1/sessions/agent:main:kept")
        assert "call_ls" in shown.text
        assert not any(secret in shown.text for secret in SECRETS)
    assert asked(upstream)[0]["tool_calls"][0]["extra_content"] == SIGNED


def test_provider_data_is_not_sent_to_other_model(
    client: httpx.Client, upstream: Upstream, session: dict[str, str]
) -> None:
    signed = {"tool_calls": [call_of("ls", extra_content=SIGNED)]}
    upstream.answers |= {
        "play": Lines(telling({"reasoning_content": THOUGHT}, signed), said(), said()),
        "other": said(),
    }
    text_of(ask(client, "look", headers=session))
    text_of(ask(client, "and you?", headers=session | BY_OTHERS))
    assert "tool_calls" in asked(upstream)[0]
    assert not any(secret in str(upstream.requests[-1].body) for secret in SECRETS)
    text_of(ask(client, "and now?", headers=session))
    assert asked(upstream)[0]["tool_calls"][0]["extra_content"] == SIGNED


def test_provider_data_is_not_sent_to_fallback(upstream: Upstream, tmp_path: Path) -> None:
    signed = {"tool_calls": [call_of("ls", extra_content=SIGNED)]}
    upstream.answers |= {"play": Lines(telling(signed), lambda exchange: refuse(exchange, 503)), "other": said()}
    config = config_of(upstream, tmp_path)
    config["agents"]["defaults"]["model"] = {"primary": "stub/play", "fallbacks": ["stub/other"]}
    with live_gateway(tmp_path / "gateway", config) as running, running.client() as client:
        assert text_of(ask(client, "look")) == "Done."
    assert upstream.requests[-1].body["model"] == "other"
    assert not any(secret in str(upstream.requests[-1].body) for secret in SECRETS)
    assert "c2ln" in str(upstream.requests[-2].body)


def test_provider_data_is_omitted_after_provider_refuses_it(client: httpx.Client, upstream: Upstream) -> None:
    def strict(exchange: Exchange) -> None:
        if "reasoning_content" in str(exchange.body["messages"]):
            words = "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property "
            exchange.json(400, {"error": {"message": f"{words}'reasoning_content' is unsupported)]"}})
        else:
            lines.pop(0)(exchange)

    thinking = telling({"reasoning_content": THOUGHT}, {"tool_calls": [call_of("ls")]})
    lines = [thinking, thinking, said(), thinking, said()]
    upstream.answers["strict"] = strict
    for _ in range(2):
        assert text_of(ask(client, "look", headers={"x-openclaw-model": "stub/strict"})) == "Done."
    assert ["reasoning_content" in str(received.body) for received in upstream.requests].count(True) == 1


REDACTED = {"type": "redacted_thinking", "data": "ZW5j"}


def test_thinking_blocks_are_sent_back_complete_and_in_order(client: httpx.Client, upstream: Upstream) -> None:
    called = anthropic.call(4, "ls", ['{"path": "."}'])
    thought = [*anthropic.THINKING, *anthropic.text(("Let me see.",), 1), *anthropic.block(2, REDACTED, ())]
    first = [*thought, *anthropic.text((" ",), 3), *called, *anthropic.end("tool_use")]
    upstream.answers["play"] = Lines(anthropic.telling(anthropic.start(), *first), said())
    assert text_of(ask(client, "look", headers={"x-openclaw-model": "claude/play"})) == "Let me see. \n\nDone."
    assert asked(upstream)[0]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "text", "text": "Let me see."},
        REDACTED,
        {"type": "tool_use", "id": "toolu_ls", "name": "ls", "input": {"path": "."}},
    ]


def thought(index: int, words: str) -> list[dict[str, Any]]:
    return anthropic.block(index, {"type": "thinking", "thinking": words, "signature": "c2ln"}, ())


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_calls_follow_their_thinking_and_dropped_calls_drop_it(
    client: httpx.Client, upstream: Upstream, session: dict[str, str], choice: str
) -> None:
    looks, asks = anthropic.call(2, "ls", ['{"path": "."}']), anthropic.call(4, "weather", ())
    events = [*anthropic.text(("Well.",)), *thought(1, "First."), *looks, *thought(3, "Then."), *asks]
    first = anthropic.telling(anthropic.start(), *events, *anthropic.end("tool_use"))
    upstream.answers["play"] = Lines(first, said("Sunny."))
    headers = session | {"x-openclaw-model": "claude/play"}
    asked_for = ask(client, "how is it?", tools=[FUNCTION], tool_choice=choice, headers=headers)
    [call] = asked_for.json()["choices"][0]["message"]["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    assert text_of(ask(client, result, tools=[FUNCTION], headers=headers)) == "Sunny."
    shown = [block.get("thinking") or block.get("text") or block["id"] for block in asked(upstream)[0]["content"]]
    whole = ["Well.", "First.", "toolu_ls", "Then.", call["id"]]
    assert shown == (whole if choice == "auto" else ["Well.", call["id"]])


def test_provider_data_is_not_sent_after_dialect_changes(upstream: Upstream, tmp_path: Path) -> None:
    headers = {"x-openclaw-model": "one/play", "x-openclaw-session-key": "moved"}
    events = [*thought(0, THOUGHT), *anthropic.call(1, "ls", ['{"path": "."}'])]
    first = anthropic.telling(anthropic.start(), *events, *anthropic.end("tool_use"))
    upstream.answers["play"] = Lines(first, said(), said())
    for dialect in ("anthropic-messages", "openai-completions"):
        config = config_of(upstream, tmp_path, one={"baseUrl": upstream.url, "api": dialect})
        with live_gateway(tmp_path / "gateway", config) as running, running.client() as client:
            assert text_of(ask(client, "look", headers=headers)) == "Done."
    shown = asked(upstream)[0]
    assert shown.keys() == {"role", "content", "tool_calls"}
    assert shown["tool_calls"][0].keys() == {"id", "type", "function"}


@pytest.mark.parametrize(("model", "ids"), [("nine", r"[a-zA-Z0-9]{9}"), ("other", "call_ls")])
def test_short_alphanumeric_ids_can_be_configured(
    client: httpx.Client, upstream: Upstream, model: str, ids: str
) -> None:
    upstream.answers |= {name: Lines(telling({"tool_calls": [call_of("ls")]}), said()) for name in ("nine", "other")}
    text_of(ask(client, "look", headers={"x-openclaw-model": f"stub/{model}"}))
    [shown] = asked(upstream)[0]["tool_calls"]
    assert re.fullmatch(ids, shown["id"])
    assert upstream.requests[-1].body["messages"][-1]["tool_call_id"] == shown["id"]


@pytest.mark.parametrize(("model", "ids"), [("nine", r"[a-zA-Z0-9]{9}"), ("play", r"call_0|call_1|call_0_2")])
def test_call_ids_repeated_in_each_answer_are_made_unique(
    gateway: LiveGateway, client: httpx.Client, upstream: Upstream, model: str, ids: str
) -> None:
    for name in ("a", "b", "c"):
        (gateway.directory / name / f"in-{name}").mkdir(parents=True, exist_ok=True)
    first, second = calls(("ls", {"path": "a"}), ("ls", {"path": "b"})), calls(("ls", {"path": "c"}))
    upstream.answers[model] = Play(first, second, calls(text="Done."))
    assert text_of(ask(client, "look", headers={"x-openclaw-model": f"stub/{model}"})) == "Done."
    shown = {call["id"]: call for one in asked(upstream) for call in one["tool_calls"]}
    results = [one for one in upstream.requests[-1].body["messages"] if one["role"] == "tool"]
    assert [one["content"].split("/")[0] for one in results] == ["in-a", "in-b", "in-c"]
    paths = [shown[one["tool_call_id"]]["function"]["arguments"] for one in results]
    assert paths == ['{"path":"a"}', '{"path":"b"}', '{"path":"c"}']
    assert all(re.fullmatch(ids, one) for one in shown)


HOSTS = [
    ("api.mistral.ai", "play", {}, {}),
    ("api.deepseek.com", "play", {"reasoning_content": ""}, {}),
    ("generativelanguage.googleapis.com", "gemini-3-pro", {}, {"extra_content": UNSIGNED}),
    ("generativelanguage.googleapis.com", "gemini-2.5-pro", {}, {}),
    ("api.groq.com", "play", {}, {}),
]


@pytest.fixture(scope="module")
def proxied(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway that reaches `HOSTS` through a proxy, which answers itself."""
    directory = tmp_path_factory.mktemp("proxied")
    hosted = {host.replace(".", "-"): {"baseUrl": f"http://{host}/v1"} for host, *_ in HOSTS}
    proxy = {"HTTP_PROXY": module_upstream.url.removesuffix("/v1"), "http_proxy": "", "NO_PROXY": "", "no_proxy": ""}
    with live_gateway(directory, config_of(module_upstream, directory, **hosted), env=proxy) as running:
        yield running


@pytest.mark.parametrize(("host", "model", "message", "call"), HOSTS)
def test_calls_of_other_model_are_sent_in_form_host_accepts(
    proxied: LiveGateway,
    upstream: Upstream,
    session: dict[str, str],
    host: str,
    model: str,
    message: dict[str, Any],
    call: dict[str, Any],
) -> None:
    upstream.answers["play"] = Play(calls(("ls", {}), ("agents_list", {})), calls(text="Done."))
    hosted = f"{host.replace('.', '-')}/{model}"
    with proxied.client() as client:
        text_of(ask(client, "look", headers=session))
        upstream.answers[model] = said()
        text_of(ask(client, "and you?", headers=session | {"x-openclaw-model": hosted}))
    assert upstream.requests[-1].path == f"http://{host}/v1/chat/completions"
    messages = upstream.requests[-1].body["messages"]
    shown, *results = [one for one in messages if one["role"] in ("assistant", "tool")][:3]
    assert {name: shown[name] for name in shown.keys() - {"role", "content", "tool_calls"}} == message
    first, second = shown["tool_calls"]
    assert {name: first[name] for name in first.keys() - {"id", "type", "function"}} == call
    assert second.keys() == {"id", "type", "function"}
    ids = [first["id"], second["id"]]
    assert [one["tool_call_id"] for one in results] == ids
    if "mistral" in host:
        assert len(set(ids)) == 2
        assert all(len(one) == 9 and one.isalnum() and one.isascii() for one in ids)
    else:
        assert ids == ["call_0", "call_1"]
