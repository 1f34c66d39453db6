"""`POST /v1/responses` of a live gateway: answers, streams, items, tools, refusals.

The client holds every answer against the contract, and the order of every stream's events
(`support.conformance.check_response_stream`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.chat import ask, error_of
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config, stubbed_config
from support.responses import PATH, calls_of, events_of, function, respond, response_of, text_of
from support.upstream import Exchange, Upstream
from support.upstream_answers import WORDS

NAMESPACED = "tools[0].tools[0].type"
RESULT = {"type": "function_call_output", "output": "seen"}
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA"
    "fFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    config = stubbed_config(module_upstream.url, apiKey="key", defaults={"timeoutSeconds": 20})
    with live_gateway(tmp_path_factory.mktemp("relay"), config) as running:
        yield running


@pytest.fixture
def talk(relay: LiveGateway, upstream: Upstream) -> Iterator[httpx.Client]:
    del upstream  # without the requests of other tests
    with relay.client() as client:
        yield client


def scripted(behaviour: str) -> dict[str, str]:
    return {"x-openclaw-model": f"scripted/{behaviour}"}


def sent(upstream: Upstream) -> Any:
    """The body of the latest request to the provider."""
    return upstream.requests[-1].body


@pytest.mark.parametrize("stream", [False, True])
def test_text_is_answered_with_message_item(client: httpx.Client, stream: bool) -> None:
    response = response_of(respond(client, "hello there", stream=stream, metadata={"a": "b"}, temperature=0.5))
    assert text_of(response) == "hello there"
    assert [item["status"] for item in response["output"]] == ["completed"]
    assert (response["status"], response["error"], response["incomplete_details"]) == ("completed", None, None)
    assert (response["metadata"], response["temperature"], response["top_p"]) == ({"a": "b"}, 0.5, 1)
    assert response["usage"]["total_tokens"] == 4
    assert response["completed_at"] >= response["created_at"]


def test_id_is_that_of_run(client: httpx.Client) -> None:
    answer = respond(client, "hi")
    run_id = answer.headers["x-openclaw-run-id"]
    assert answer.json()["id"] == run_id.replace("chatcmpl_", "resp_")
    assert client.get(f"/v1/runs/{run_id}").json()["state"] == "ok"


@pytest.mark.parametrize("stream", [False, True])
def test_function_call_ends_response_and_its_output_is_answered(client: httpx.Client, stream: bool) -> None:
    tools = [function("weather")]
    question = {"role": "user", "content": "what is it like"}
    response = response_of(respond(client, [question], scripted("tools"), tools=tools, stream=stream))
    [call] = calls_of(response)
    assert (call["name"], call["arguments"], call["status"]) == ("weather", "{}", "completed")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "it is sunny"}
    follow_up = respond(client, [question, call, output], scripted("tools"), tools=tools, stream=stream)
    assert text_of(response_of(follow_up)) == "it is sunny"


def test_items_become_the_messages_of_a_conversation(talk: httpx.Client, upstream: Upstream) -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": PICTURE}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "zoom", "arguments": '{"x":1}'},
        {"type": "function_call", "call_id": "c2", "name": "zoom", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "near"}]},
        {"type": "function_call_output", "call_id": "c2", "output": "far"},
    ]
    assert text_of(response_of(respond(talk, items, instructions="Be brief."))) == "".join(WORDS)
    system, user, assistant, first, second = sent(upstream)["messages"]
    assert system == {"role": "system", "content": "Be brief.\n\nBe kind."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    assert assistant["content"] == "I look."
    assert [(call["id"], call["function"]) for call in assistant["tool_calls"]] == [
        ("c1", {"name": "zoom", "arguments": '{"x":1}'}),
        ("c2", {"name": "zoom", "arguments": "{}"}),
    ]
    assert [first["content"], second["content"]] == ["near", "far"]


def test_file_is_read_to_the_model(client: httpx.Client) -> None:
    file = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}
    answer = respond(client, [{"role": "user", "content": [{"type": "input_text", "text": "Read"}, file]}])
    assert "hello" in text_of(response_of(answer))
    items = [{"role": "system", "content": "s"}, {"role": "user", "content": [{**file, "file_data": "AAEC"}]}]
    assert error_of(respond(client, items)) == (400, "invalid_value", "input[1].content[0].file_data")


def test_settings_reach_the_provider(talk: httpx.Client, upstream: Upstream) -> None:
    settings = {
        "max_output_tokens": 77,
        "temperature": 0.25,
        "top_p": 0.5,
        "frequency_penalty": 0.5,
        "presence_penalty": 1,
        "reasoning": {"effort": "low", "summary": "auto"},
        "parallel_tool_calls": False,
        "tools": [function("look", strict=True, description="Looks.")],
        "tool_choice": {"type": "function", "name": "look"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "pet", "schema": {"type": "object"}, "strict": True},
        },
        "prompt_cache_key": "cache",
        "safety_identifier": "someone",
    }
    talk.post(PATH, json={"input": "hi", **settings}, headers={"x-openclaw-model": "stub/tool"})
    wire = sent(upstream)
    assert wire["max_completion_tokens" if "max_completion_tokens" in wire else "max_tokens"] == 77
    assert (wire["temperature"], wire["top_p"]) == (0.25, 0.5)
    assert (wire["frequency_penalty"], wire["presence_penalty"]) == (0.5, 1)
    assert (wire["reasoning_effort"], wire["verbosity"], wire["parallel_tool_calls"]) == ("low", "low", False)
    assert (wire["prompt_cache_key"], wire["safety_identifier"]) == ("cache", "someone")
    assert wire["tools"][0]["function"]["strict"] is True
    assert wire["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert wire["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "pet", "schema": {"type": "object"}, "strict": True},
    }


def test_allowed_tools_limit_the_functions(talk: httpx.Client, upstream: Upstream) -> None:
    tools = [function("look"), function("touch")]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "touch"}]}
    response = response_of(respond(talk, "hi", tools=tools, tool_choice=choice))
    offered = {tool["function"]["name"] for tool in sent(upstream)["tools"]}
    assert offered & {"look", "touch"} == {"touch"}  # beside the agent's own tools
    assert (response["tool_choice"], len(response["tools"])) == (choice, 2)
    wrong = {**choice, "tools": [{"type": "function", "name": "taste"}]}
    refused = respond(talk, "hi", tools=tools, tool_choice=wrong)
    assert error_of(refused) == (400, "invalid_value", "tool_choice.tools[0].name")


@pytest.mark.parametrize("stream", [False, True])
def test_answer_that_was_cut_is_incomplete(client: httpx.Client, stream: bool) -> None:
    response = response_of(respond(client, "one two three", max_output_tokens=2, stream=stream))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"
    assert (text_of(response), response["completed_at"]) == ("one two", None)


def test_failure_after_output_ends_stream(client: httpx.Client) -> None:
    answer = respond(client, "hi", scripted("fail-midway"), stream=True)
    response = response_of(answer)
    assert events_of(answer)[-1]["type"] == "response.failed"
    assert (response["status"], response["error"]["code"]) == ("failed", "provider_error")
    assert (response["output"][0]["status"], text_of(response)) == ("incomplete", "This will not")


@pytest.mark.parametrize("stream", [False, True])
def test_failure_before_output_has_status_of_its_own(client: httpx.Client, stream: bool) -> None:
    refused = respond(client, "hi", scripted("fail-rate_limit_exceeded"), stream=stream)
    assert error_of(refused) == (429, "rate_limit_exceeded", None)


@contextmanager
def plain_stream(gateway: LiveGateway) -> Iterator[httpx.Response]:
    """The stream of a model that says one word, from a client that does not read it to its end first."""
    headers = {"Authorization": f"Bearer {TOKEN}", **scripted("stuck")}
    body = {"input": "hi", "stream": True}
    with httpx.stream("POST", f"{gateway.url}{PATH}", json=body, headers=headers, timeout=30) as answer:
        yield answer


def test_cancelled_run_ends_stream(gateway: LiveGateway, client: httpx.Client) -> None:
    with plain_stream(gateway) as answer:
        client.post(f"/v1/runs/{answer.headers['x-openclaw-run-id']}/cancel").raise_for_status()
        *_, last = [value for value in map(to_event, answer.iter_lines()) if value is not None]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
    assert last["response"]["error"]["code"] == "run_aborted"


def test_shutdown_ends_stream(tmp_path: Path) -> None:
    with (
        live_gateway(tmp_path, scripted_config(), arguments=("--grace", "0")) as running,
        plain_stream(running) as answer,
    ):
        events = (value for value in map(to_event, answer.iter_lines()) if value is not None)
        next(value for value in events if value["type"] == "response.output_text.delta")
        running.process.terminate()
        ends = [value["type"] for value in events if "response" in value]
    assert ends == ["response.failed"]


def to_event(line: str) -> dict[str, Any] | None:
    """Return the event of a line with data."""
    return orjson.loads(line[6:]) if line.startswith("data: {") else None


def test_sessions_are_those_of_chat_completions(client: httpx.Client, session: dict[str, str]) -> None:
    ask(client, "one two", headers=session).raise_for_status()
    answer = respond(client, "three", session)
    assert answer.json()["usage"]["input_tokens"] == 2 + 2 + 1
    history = client.get(f"/v1/sessions/{answer.headers['x-openclaw-session-key']}").json()
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"] * 2


def test_idempotency_key_returns_same_response(client: httpx.Client) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, again = respond(client, "once", key), respond(client, "once", key)
    streamed = respond(client, "once", key, stream=True)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json() == again.json() == response_of(streamed)
    assert error_of(respond(client, "other", key))[1] == "idempotency_key_reused"
    assert error_of(ask(client, "once", headers=key))[1] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": "hi", "tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": "hi", "tools": [{"type": "file_search"}]}, "tools[0].type"),
        ({"input": "hi", "tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]}, NAMESPACED),
        ({"input": "hi", "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"input": "hi", "top_logprobs": 3}, "top_logprobs"),
        ({"input": "hi", "include": ["message.output_text.logprobs"]}, "include[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "aGk=", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
    ],
)
def test_what_is_not_done_is_refused_by_name(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    assert error_of(client.post(PATH, json=fields)) == (400, "unsupported_parameter", param)


def test_functions_in_namespaces_keep_both_names(client: httpx.Client) -> None:
    functions = [function("look"), function("n" * 64)]
    namespace = {"type": "namespace", "name": "eyes", "description": "About looking.", "tools": functions}
    tools = [{"type": "web_search", "external_web_access": True}, namespace]
    for place, choice in enumerate(functions):
        chosen = {"type": "function", "namespace": "eyes", "name": choice["name"]}
        asked = response_of(respond(client, "hi", scripted("tools"), tools=tools, tool_choice=chosen, stream=place > 0))
        [call] = calls_of(asked)
        assert (call["namespace"], call["name"]) == ("eyes", choice["name"])
        assert [tool["type"] for tool in asked["tools"]] == ["namespace"]
        assert response_of(client.get(f"{PATH}/{asked['id']}")) == asked
        items = [{"role": "user", "content": "hi"}, call, {**RESULT, "call_id": call["call_id"]}]
        answer = response_of(respond(client, items, scripted("tools"), tools=tools))
        assert text_of(answer) == "seen"
        listed = client.get(f"{PATH}/{answer['id']}/input_items", params={"order": "asc"}).json()["data"]
        assert (listed[1]["namespace"], listed[1]["name"]) == ("eyes", choice["name"])
    twice = respond(client, "hi", tools=[function("eyes__look"), namespace])
    assert error_of(twice) == (400, "invalid_value", "tools[1].tools[0].name")
    many = {**namespace, "tools": [function(f"f{number}") for number in range(100)]}
    assert error_of(respond(client, "hi", tools=[many, {**many, "name": "ears"}])) == (400, "invalid_value", "tools")


def test_model_knows_functions_of_namespaces_by_flat_names(talk: httpx.Client, upstream: Upstream) -> None:
    namespace = {"type": "namespace", "name": "eyes", "description": "About looking.", "tools": [function("look")]}
    tools = [namespace, function("look")]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]}
    respond(talk, "hi", tools=tools).raise_for_status()
    named = {tool["function"]["name"]: tool["function"].get("description") for tool in sent(upstream)["tools"]}
    assert (named["eyes__look"], named["look"]) == ("Functions that begin with eyes__: About looking.", None)
    respond(talk, "hi", tools=tools, tool_choice=allowed).raise_for_status()
    allowed_names = {tool["function"]["name"] for tool in sent(upstream)["tools"]}
    assert (named.keys() - allowed_names) == {"eyes__look"}


def test_pictures_and_files_of_function_outputs_are_shown(talk: httpx.Client, upstream: Upstream) -> None:
    file = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}
    parts = [{"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": PICTURE}, file]
    items = [
        {"role": "user", "content": "Look"},
        *({"type": "function_call", "call_id": call_id, "name": "look"} for call_id in "ab"),
        {**RESULT, "call_id": "a", "output": parts},
        {**RESULT, "call_id": "b"},
        {"type": "function_call", "call_id": "c", "name": "look"},
        {**RESULT, "call_id": "c"},
    ]
    respond(talk, items).raise_for_status()
    assert [message["role"] for message in sent(upstream)["messages"]] == [
        *("user", "assistant", "tool", "tool", "user", "assistant", "tool")
    ]
    kinds = [part["type"] for part in sent(upstream)["messages"][4]["content"]]
    assert kinds == ["image_url", "text"]
    wrong = {**RESULT, "call_id": "a", "output": [{**file, "file_data": "AAEC"}]}
    refused = respond(talk, [*items[:3], wrong])
    assert error_of(refused) == (400, "invalid_value", "input[3].output")


def test_conversation_is_a_session(client: httpx.Client) -> None:
    name = uuid.uuid4().hex
    first = respond(client, "one two", conversation=name)
    assert first.json()["conversation"] == {"id": name}
    assert first.headers["x-openclaw-session-key"] == f"agent:main:{name}"
    again = respond(client, "three", conversation={"id": name})
    assert again.json()["usage"]["input_tokens"] == 2 + 2 + 1
    assert response_of(client.get(f"{PATH}/{again.json()['id']}")) == again.json()
    for other, headers in (({"previous_response_id": first.json()["id"]}, None), ({}, {"x-openclaw-session-key": "x"})):
        refused = respond(client, "hi", headers, conversation=name, **other)
        assert error_of(refused) == (400, "invalid_value", "conversation")
    assert respond(client, "one", conversation="").json()["conversation"] is None
    for wrong in (" ", "agent:beta:x", "cron:x"):
        assert error_of(respond(client, "hi", conversation=wrong)) == (400, "invalid_value", "conversation")


def test_errors_name_places_in_this_request(client: httpx.Client) -> None:
    output = {"type": "function_call_output", "call_id": "none", "output": "x"}
    refused = respond(client, [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}, output])
    assert error_of(refused) == (400, "invalid_value", "input[2]")
    assert error_of(respond(client, " ")) == (400, "missing_required_parameter", "input")
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"not": deep}
    schema = {"type": "json_schema", "name": "x", "schema": {"minimum": "x"}, "strict": True}
    for fields, param in (
        ({"tools": [function("f"), {**function("g"), "parameters": deep}]}, "tools[1].parameters"),
        ({"text": {"format": schema}}, "text.format.schema"),
    ):
        refused = respond(client, "hi", **fields)
        assert error_of(refused) == (400, "invalid_value", param)
        assert refused.json()["error"]["message"].startswith(f"`{param}` is ")
    twice = respond(client, "hi", tools=[function("f"), function("f")])
    assert error_of(twice) == (400, "invalid_value", "tools[1].name")
    assert error_of(respond(client, "hi", tools=[function("f")], tool_choice={"type": "function", "name": "g"})) == (
        400,
        "invalid_value",
        "tool_choice.name",
    )


def test_input_may_be_missing_with_instructions(client: httpx.Client) -> None:
    first = client.post(PATH, json={"instructions": "Greet."})
    assert text_of(response_of(first)) == "You said nothing."
    assert client.get(f"{PATH}/{first.json()['id']}/input_items").json()["data"] == []
    empties: tuple[Any, ...] = (None, "", [])
    for empty in empties:
        assert response_of(respond(client, empty, instructions="Greet."))["status"] == "completed"
        assert error_of(respond(client, empty)) == (400, "missing_required_parameter", "input")
    again = respond(client, None, instructions="Part.", previous_response_id=first.json()["id"])
    assert response_of(again)["previous_response_id"] == first.json()["id"]


def test_operations_beside_responses_are_explained(client: httpx.Client) -> None:
    for name in ("compact", "input_tokens"):
        refused = client.post(f"{PATH}/{name}", json={"input": "hi"})
        assert error_of(refused) == (405, "method_not_allowed", None)
        assert f"OpenAI's /v1/responses/{name} is not offered." in refused.text


def test_null_and_absent_are_the_same(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    fields = document["components"]["schemas"]["ResponseRequest"]["properties"]
    nulls = dict.fromkeys(set(fields) - {"input"})
    response = response_of(
        client.post(PATH, json={**nulls, "input": [{"type": None, "role": "user", "content": "hi"}]})
    )
    assert text_of(response) == "hi"


def test_endpoint_is_off_by_default(tmp_path: Path) -> None:
    config = scripted_config(http={"endpoints": {"chatCompletions": {"enabled": True}}})
    with live_gateway(tmp_path, config) as running, running.client() as client:
        refused = respond(client, "hi")
        assert error_of(refused)[:2] == (404, "endpoint_disabled")
        assert "gateway.http.endpoints.responses.enabled" in refused.text


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_an_item_where_it_is_asked_for(talk: httpx.Client, upstream: Upstream, stream: bool) -> None:
    upstream.answers["thinker"] = think
    headers = {"x-openclaw-model": "stub/thinker"}
    plain = response_of(respond(talk, "hi", headers, stream=stream))
    shown = response_of(respond(talk, "hi", headers, stream=stream, reasoning={"summary": "auto"}))
    assert [item["type"] for item in plain["output"]] == ["message"]
    assert [item["type"] for item in shown["output"]] == ["reasoning", "message"]
    assert shown["output"][0]["summary"] == [{"type": "summary_text", "text": "Let me see."}]
    assert text_of(shown) == text_of(plain) == "Yes."
    assert response_of(talk.get(f"{PATH}/{shown['id']}")) == shown
    given = [{"type": "item_reference", "id": item["id"]} for item in shown["output"]]
    respond(talk, [{"role": "user", "content": "hi"}, *given, {"role": "user", "content": "why"}]).raise_for_status()
    assert [message["content"] for message in sent(upstream)["messages"]] == ["hi", "Yes.", "why"]
    bare = {"id": shown["output"][1]["id"]}
    respond(talk, [bare, {**bare, "type": None, "role": None}, {"role": "user", "content": "so"}]).raise_for_status()
    assert [message["content"] for message in sent(upstream)["messages"]][-1] == "so"
    assert "Yes." in str(sent(upstream)["messages"])


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({"id": "msg_none"}, "invalid_value", "input[0].id"),
        ({"id": 7}, "invalid_type", "input[0].id"),
        ({"id": "msg_none", "content": "hi"}, "missing_required_parameter", "input[0].role"),
        ({"id": "msg_none", "role": None, "content": "hi"}, "invalid_type", "input[0].role"),
        ({"role": "user"}, "missing_required_parameter", "input[0].content"),
        ({}, "missing_required_parameter", "input[0].role"),
        ({"type": "item_reference"}, "missing_required_parameter", "input[0].id"),
    ],
)
def test_item_without_type_is_a_message_or_a_reference(
    client: httpx.Client, item: dict[str, Any], code: str, param: str
) -> None:
    assert error_of(respond(client, [item, {"role": "user", "content": "hi"}])) == (400, code, param)


def think(exchange: Exchange) -> None:
    exchange.head()
    exchange.event({"reasoning_content": "Let me "})
    exchange.event({"reasoning_content": "see."})
    exchange.event({"content": "Yes."})
    exchange.end("stop")


def test_calls_that_are_written_at_once_are_items_in_order(talk: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["writer"] = write_calls
    tools = [function("f"), function("g")]
    answer = respond(talk, "hi", {"x-openclaw-model": "stub/writer"}, tools=tools, stream=True)
    calls = [(call["name"], call["arguments"]) for call in calls_of(response_of(answer))]
    assert calls == [("f", '{"a": 1}'), ("g", '{"b": 2}')]


def write_calls(exchange: Exchange) -> None:
    exchange.head()
    for index, (name, arguments) in enumerate([("f", '{"a": 1}'), ("g", '{"b": 2}')]):
        call = {"index": index, "id": f"c{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        exchange.event({"tool_calls": [call]})
        for piece in (arguments[:3], arguments[3:]):
            exchange.event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    exchange.end("tool_calls")
