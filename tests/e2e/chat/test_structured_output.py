"""Answers in a requested format: native where possible, checked, repaired, or refused; JSON and streams alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai import OpenAI
from pydantic import BaseModel
from support.chat import ask, error_of, streamed_text, text_of, user
from support.command import Home
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream

GOOD = '{"name": "Rex", "legs": 4}'


class Pet(BaseModel):
    name: str
    legs: int


REX = Pet(name="Rex", legs=4)
SCHEMA = Pet.model_json_schema() | {"additionalProperties": False}


def strict(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": schema}}


def saying(*texts: str) -> Any:
    """Answer with the first text, the second one after a repair, and so on."""

    def answer(exchange: Exchange) -> None:
        asked = sum("cannot be used" in str(message["content"]) for message in exchange.body["messages"])
        exchange.head()
        exchange.event({"role": "assistant", "content": ""})
        for word in texts[min(asked, len(texts) - 1)].split(" "):
            exchange.event({"content": f"{word} " if word != texts[0] else word})
        exchange.end()

    return answer


def with_tool(exchange: Exchange) -> None:
    """Comment, call a tool, and answer once its result is there."""
    if exchange.body["messages"][-1]["role"] == "tool":
        saying(GOOD)(exchange)
        return
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "sessions_list", "arguments": "{}"}}
    exchange.head()
    exchange.event({"role": "assistant", "content": "Let me look."})
    exchange.event({"tool_calls": [call]})
    exchange.end("tool_calls")


def cut(exchange: Exchange) -> None:
    exchange.head()
    exchange.event({"role": "assistant", "content": '{"name": "Re'})
    exchange.end("length")


def refuse(exchange: Exchange) -> None:
    """What OpenAI's models say in place of an answer has a field of its own."""
    exchange.head()
    exchange.event({"role": "assistant", "content": None, "refusal": ""})
    exchange.event({"refusal": "I cannot "})
    exchange.event({"refusal": "help."})
    exchange.end()


def unable(exchange: Exchange) -> None:
    """A provider without the format."""
    if "response_format" in exchange.body:
        exchange.json(400, {"error": {"message": "response_format: json_schema is not supported by this model"}})
    else:
        saying(f"```json\n{GOOD}\n```")(exchange)


def without_tools(exchange: Exchange, words: str) -> None:
    """A provider that has the format for requests without tools only."""
    if {"response_format", "tools"} <= exchange.body.keys():
        exchange.json(400, [{"error": {"code": 400, "message": words}}])
    else:
        saying(GOOD)(exchange)


ANSWERS = {
    "good": saying(GOOD),
    "mended": saying("Here you are!", GOOD),
    "fenced": saying(f"```json\n{GOOD[:-1]}\n```", f"```json\n{GOOD}\n```"),
    "wrong": saying('{"name": "Rex", "legs": "four"}'),
    "tool": with_tool,
    "cut": cut,
    "refuse": refuse,
    "unable": unable,
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        running.answers.update(ANSWERS)
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    agents = [{"id": "main", "tools": {"deny": ["*"]}}, {"id": "tooled", "tools": {"allow": ["sessions_list"]}}]
    with live_gateway(tmp_path_factory.mktemp("gateway"), stubbed_config(upstream.url, agents=agents)) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as open_client:
        yield open_client


def ask_for(client: httpx.Client, upstream_model: str, wanted: Any, **fields: Any) -> httpx.Response:
    return ask(client, user("A pet?"), headers={"x-openclaw-model": upstream_model}, response_format=wanted, **fields)


def both(client: httpx.Client, upstream_model: str, wanted: Any, **fields: Any) -> str:
    """Return the text of the answer, which is the same as JSON and as a stream."""
    whole = text_of(ask_for(client, upstream_model, wanted, **fields))
    assert streamed_text(ask_for(client, upstream_model, wanted, stream=True, **fields)) == whole
    return whole


def test_answer_is_valid_whatever_the_model_says_first(client: httpx.Client, upstream: Upstream) -> None:
    assert Pet.model_validate_json(both(client, "stub/good", strict(SCHEMA))) == REX
    upstream.requests.clear()
    response = ask_for(client, "stub/mended", strict(SCHEMA))
    assert Pet.model_validate_json(text_of(response)) == REX
    assert response.json()["usage"]["completion_tokens"] == 10  # of both answers
    first, second = upstream.requests
    assert first.body["response_format"] == strict(SCHEMA)
    assert [message["role"] for message in second.body["messages"]] == ["user", "assistant", "user"]
    assert "it is not JSON" in second.body["messages"][-1]["content"]
    both(client, "stub/mended", strict(SCHEMA))
    assert both(client, "stub/fenced", strict(SCHEMA)) == GOOD


def test_answer_that_stays_wrong_is_an_error_with_its_path(client: httpx.Client, upstream: Upstream) -> None:
    upstream.requests.clear()
    response = ask_for(client, "stub/wrong", strict(SCHEMA))
    assert error_of(response) == (502, "output_not_valid", "response_format")
    assert "`legs`" in response.json()["error"]["message"]
    assert "x-should-retry" not in response.headers
    assert len(upstream.requests) == 2
    streamed = ask_for(client, "stub/wrong", strict(SCHEMA), stream=True)
    assert error_of(streamed) == error_of(response)
    assert ask_for(client, "stub/wrong", {**strict(SCHEMA), "json_schema": {"name": "a", "schema": SCHEMA}}).is_success
    assert both(client, "stub/wrong", {"type": "json_object"})


def test_invalid_answers_and_repairs_leave_no_trace_in_a_session(client: httpx.Client, upstream: Upstream) -> None:
    ask_for(client, "stub/mended", strict(SCHEMA), user="keeper")
    upstream.requests.clear()
    ask_for(client, "stub/good", None, user="keeper")
    roles = [message["role"] for message in upstream.requests[0].body["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert "Here you are" not in str(upstream.requests[0].body)


def test_agents_tools_may_be_used_and_comments_are_no_part_of_the_answer(client: httpx.Client) -> None:
    assert Pet.model_validate_json(both(client, "stub/tool", strict(SCHEMA), model="openclaw/tooled")) == REX


def test_incomplete_answer_is_marked_as_such(client: httpx.Client) -> None:
    choice = ask_for(client, "stub/cut", strict(SCHEMA)).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", '{"name": "Re')


@pytest.mark.parametrize("wanted", [None, strict(SCHEMA)], ids=["free", "strict"])
def test_refusal_is_shown_and_marked_as_such(client: httpx.Client, upstream: Upstream, wanted: Any) -> None:
    upstream.requests.clear()
    assert both(client, "stub/refuse", wanted) == "I cannot help."
    assert len(upstream.requests) == 2
    assert ask_for(client, "stub/refuse", wanted).json()["choices"][0]["finish_reason"] == "content_filter"


def test_model_without_the_format_is_instructed(client: httpx.Client, upstream: Upstream) -> None:
    upstream.requests.clear()
    assert Pet.model_validate_json(both(client, "stub/unable", strict(SCHEMA))) == REX
    assert [("response_format" in one.body) for one in upstream.requests] == [True, False, False]
    assert '"legs"' in upstream.requests[1].body["messages"][0]["content"]


@pytest.mark.parametrize("wanted", [strict(SCHEMA), {"type": "json_object"}], ids=["strict", "object"])
@pytest.mark.parametrize(
    "words",
    [
        "json mode cannot be combined with tool/function calling",
        "Function calling with a response mime type: 'application/json' is unsupported",
    ],
    ids=["groq", "google"],
)
def test_format_that_is_refused_beside_tools_is_an_instruction_there(
    client: httpx.Client, upstream: Upstream, words: str, wanted: Any
) -> None:
    upstream.answers["apart"] = partial(without_tools, words=words)
    upstream.requests.clear()
    for agent in ("openclaw/tooled", "openclaw"):
        assert Pet.model_validate_json(text_of(ask_for(client, "stub/apart", wanted, model=agent))) == REX
    assert [("response_format" in one.body) for one in upstream.requests] == [True, False, True]
    assert "Answer with" in upstream.requests[1].body["messages"][0]["content"]


def test_claude_answers_with_any_object(client: httpx.Client, upstream: Upstream) -> None:
    response = ask_for(client, "claude/ok", {"type": "json_object"})  # whose answer is plain text
    assert error_of(response)[1] == "output_not_valid"
    assert "one JSON object" in str(upstream.requests[-1].body["system"])


EXPONENTIAL = {
    "$defs": {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(40)} | {"d40": {}},
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"$ref": "http://127.0.0.1:1/schema"}, "outside the schema"),
        ({"$ref": "file:///etc/passwd"}, "outside the schema"),
        ({"type": "thing"}, "not a usable JSON schema"),
        ({"pattern": "("}, "not a usable JSON schema"),
        ({"pattern": "((a{1,1000}){1,1000}){1,1000}"}, "not a usable JSON schema"),
        ({"enum": list(range(20_001))}, "20000 values"),
        (EXPONENTIAL, "2 seconds"),
    ],
    ids=["remote", "file", "type", "pattern", "huge pattern", "large", "exponential"],
)
def test_hostile_schema_is_refused(client: httpx.Client, schema: Any, fault: str) -> None:
    response = ask_for(client, "stub/good", strict(schema))
    assert error_of(response) == (400, "invalid_value", "response_format.json_schema.schema")
    assert fault in response.json()["error"]["message"]


def test_backtracking_pattern_ends(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["pattern"] = saying(f'"{"a" * 5000}!"')
    assert error_of(ask_for(client, "stub/pattern", strict({"pattern": "^(a+)+\\1$"})))[1] == "output_not_valid"


def test_large_answer_to_wide_schema_is_checked_elsewhere(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["large"] = saying(f"[{','.join(['299'] * 20_000)}]")
    wide = {"type": "array", "items": {"anyOf": [{"const": number} for number in range(300)]}}
    assert text_of(ask_for(client, "stub/large", strict(wide))).startswith("[299,299")
    narrow = {"type": "array", "items": {"anyOf": [{"const": number} for number in range(299)]}}
    assert error_of(ask_for(client, "stub/large", strict(narrow))) == (502, "output_not_valid", "response_format")


def test_sdk_parses_and_raises(gateway: LiveGateway) -> None:
    messages: Any = [user("A pet?")]
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0) as sdk:

        def parse(model: str) -> Any:
            headers = {"x-openclaw-model": model}
            return sdk.chat.completions.parse(
                model="openclaw", messages=messages, response_format=Pet, extra_headers=headers
            )

        assert parse("stub/mended").choices[0].message.parsed == REX
        with pytest.raises(openai.InternalServerError, match="`legs`"):
            parse("stub/wrong")


@pytest.mark.parametrize("local", [(), ("--local",)], ids=["gateway", "local"])
def test_command_takes_a_schema(gateway: LiveGateway, local: tuple[str, ...]) -> None:
    (gateway.directory / "pet.json").write_bytes(orjson.dumps(SCHEMA))
    env = {
        "OPENCLAW_CONFIG_PATH": str(gateway.directory / "openclaw.json"),
        "OPENCLAW_STATE_DIR": str(gateway.state_dir),
    }
    if not local:
        env = {"OPENCLAW_GATEWAY_URL": gateway.url.replace("http", "ws"), "OPENCLAW_GATEWAY_TOKEN": TOKEN}
    home = Home(gateway.directory, env)
    asked = ("agent", "--message", "A pet?", "--session-id", f"of-{len(local)}")
    done = home.run(*asked, "--model", "stub/mended", "--json-schema", "pet.json", *local)
    assert Pet.model_validate_json(done.out) == REX, done.err
    refused = home.run(*asked, "--model", "stub/wrong", "--json-schema", "pet.json", *local)
    assert (refused.status, "`legs`" in refused.err) == (1, True)
    assert home.run(*asked, "--json-schema", "openclaw.log", *local).status == 2
