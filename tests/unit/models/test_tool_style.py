"""Tools in the form that a model accepts, learned from its errors, in both dialects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import upstream_answers_anthropic as anthropic
from support.provider_calls import QUESTION, ask, fail, open_provider, request
from support.upstream import Exchange, Upstream
from support.upstream_answers import TEXT, ok

from service.core.messages import Function, Message, Role, Text, ToolCall, ToolChoice, ToolChoiceMode
from service.models.anthropic.provider import AnthropicProvider
from service.models.http import transport
from service.models.provider import Provider

LONG = "search_the_archive_of_the_library_by_author"
CALLED = (
    QUESTION,
    Message(Role.ASSISTANT, tool_calls=(ToolCall("c1", LONG, "{}"),)),
    Message(Role.TOOL, (Text("nothing"),), tool_call_id="c1"),
)
REFERRING = Function(
    "refers", parameters={"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "null"}}}
)


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Provider]:
    opened: Provider = (
        open_provider(upstream.url)
        if request.param == "openai"
        else AnthropicProvider(transport.Upstream(upstream.url.removesuffix("/v1"), read_timeout_seconds=5))
    )
    yield opened
    opened.close()


def functions_of(body: Any) -> list[dict[str, Any]]:
    """The functions of a request, of either dialect."""
    return [tool.get("function", tool) for tool in body.get("tools", ())]


def names_of(body: Any) -> list[str]:
    return [function["name"] for function in functions_of(body)]


def refusing(is_refused: Callable[[Any], bool], words: str) -> Callable[[Exchange], None]:
    """A model that refuses some requests with `words` and answers the others."""

    def answer(exchange: Exchange) -> None:
        if is_refused(exchange.body):
            exchange.json(400, {"type": "error", "error": {"type": "invalid_request_error", "message": words}})
        elif exchange.path.endswith("/messages"):
            anthropic.ANSWERS["ok"](exchange)
        else:
            ok(exchange)

    return answer


def call_first(exchange: Exchange) -> None:
    """Call the first function of the request."""
    name = names_of(exchange.body)[0]
    exchange.head()
    if exchange.path.endswith("/messages"):
        block = {"type": "tool_use", "id": "t", "name": name, "input": {}}
        for event in (anthropic.start(), *anthropic.block(0, block, []), *anthropic.end("tool_use")):
            exchange.send(anthropic.frame(event))
    else:
        call = {"index": 0, "id": "t", "type": "function", "function": {"name": name, "arguments": "{}"}}
        exchange.event({"tool_calls": [call]}, "tool_calls")
        exchange.send(b"data: [DONE]\n\n")
    exchange.last_chunk()


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (
            "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 32.",
            32,
        ),
        ("tools.0.custom.name: String should have at most 40 characters", 40),
        ("Invalid function name. Must be alphanumeric, underscores or dashes, with a maximum length of 32.", 32),
        ("the name of a tool is too long", 32),
    ],
)
def test_long_names_are_shortened_there_and_back(
    provider: Provider, upstream: Upstream, words: str, limit: int
) -> None:
    refuse = refusing(lambda body: any(len(name) > limit for name in names_of(body)), words)

    def answer(exchange: Exchange) -> None:
        (refuse if any(len(name) > limit for name in names_of(exchange.body)) else call_first)(exchange)

    upstream.answers["play"] = answer
    functions = (Function(LONG), Function(f"{LONG}_2"), Function("short"))
    choice = ToolChoice(ToolChoiceMode.REQUIRED, LONG)
    for _ in range(2):
        [call] = ask(provider, request("play", *CALLED, functions=functions, tool_choice=choice))[1].tool_calls
        assert call.name == LONG
    assert len(upstream.requests) == 3
    body = upstream.requests[-1].body
    first, second, short = names_of(body)
    assert len({first, second, short}) == 3
    assert (short, max(len(first), len(second)) <= limit) == ("short", True)
    assert str(body["messages"]).count(first) == 1
    assert first in str(body["tool_choice"])
    assert LONG not in str(body)


def test_references_are_resolved_after_model_refuses_them(provider: Provider, upstream: Upstream) -> None:
    upstream.answers["play"] = refusing(lambda body: "$ref" in str(body), "tools[0]: $ref is not supported")
    for _ in range(2):
        assert ask(provider, request("play", functions=(REFERRING,)))[0] == TEXT
    assert ["$ref" in str(received.body) for received in upstream.requests] == [True, False, False]
    [function] = functions_of(upstream.requests[-1].body)
    schema = function.get("parameters", function.get("input_schema"))
    assert schema == {"type": "object", "properties": {"a": {"type": "null"}}}


@pytest.mark.parametrize(
    "words",
    [
        "Invalid schema for function 'bad': In context=(), object schema is too odd.",
        "tools.1.custom.input_schema: JSON schema is invalid",
        "* GenerateContentRequest.tools[0].function_declarations[1].parameters.properties[x]: field is odd",
    ],
)
@pytest.mark.parametrize("from_caller", [False, True])
def test_refused_tool_is_left_out_logged_once_and_remembered(
    provider: Provider, upstream: Upstream, words: str, from_caller: bool, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answers["play"] = refusing(lambda body: "bad" in names_of(body), words)
    functions = tuple(Function(name, from_caller=from_caller) for name in ("good", "bad", "other"))
    for _ in range(2):
        assert ask(provider, request("play", functions=functions))[0] == TEXT
    assert [names_of(received.body) for received in upstream.requests] == [
        ["good", "bad", "other"],
        ["good", "other"],
        ["good", "other"],
    ]
    assert caplog.text.count("refuses the tool bad, which is left out") == 1
    repaired = Function("bad", "With another schema.")
    upstream.answers["play"] = refusing(lambda _: False, "")
    ask(provider, request("play", functions=(functions[0], repaired)))
    assert names_of(upstream.requests[-1].body) == ["good", "bad"]


GOOGLE = "Invalid JSON payload received. Unknown name \"{}\" at 'tools[0].{}[0].parameters': Cannot find field."
STRICT = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"city": {"type": "string", "format": "uri", "exclusiveMinimum": 1}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        (
            "additionalProperties",
            GOOGLE.format("additionalProperties", "function_declarations"),
        ),
        (
            "$schema",
            GOOGLE.format("$schema", "functionDeclarations"),
        ),
        ("$schema", "tools.0.function.parameters.$schema: Extra inputs are not permitted"),
        ("exclusiveMinimum", "tools.0.custom.input_schema: property 'exclusiveMinimum' is not supported"),
        (
            "format",
            "tools[0].function_declarations[0].parameters.properties[a].format: only 'enum' is supported for STRING",
        ),
    ],
)
def test_refused_keyword_is_left_out_of_schemas_logged_and_remembered(
    provider: Provider, upstream: Upstream, keyword: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answers["play"] = refusing(lambda body: f'"{keyword}"' in json.dumps(body), words)
    for _ in range(2):
        assert ask(provider, request("play", functions=(Function("weather", parameters=STRICT),)))[0] == TEXT
    assert [f'"{keyword}"' in json.dumps(received.body) for received in upstream.requests] == [True, False, False]
    assert names_of(upstream.requests[-1].body) == ["weather"]
    assert caplog.text.count(f"refuses {keyword} in schemas") == 1


def test_schema_without_properties_is_left_out_for_hosts_that_refuse_it(upstream: Upstream) -> None:
    words = (
        "* GenerateContentRequest.tools[0].function_declarations[0].parameters.properties: should be non-empty for "
        "OBJECT type"
    )
    upstream.answers["play"] = refusing(lambda body: "parameters" in functions_of(body)[0], words)
    opened = open_provider(upstream.url)
    functions = (Function("now", parameters={"type": "object"}), Function("weather", parameters=STRICT))
    for _ in range(2):
        assert ask(opened, request("play", functions=functions))[0] == TEXT
    opened.close()
    assert ["parameters" in function for function in functions_of(upstream.requests[-1].body)] == [False, True]
    assert len(upstream.requests) == 3


def test_several_refused_tools_are_left_out_one_by_one(provider: Provider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        bad = [index for index, name in enumerate(names_of(exchange.body)) if name.startswith("bad")]
        words = f"tools.{bad[0] if bad else 0}.custom.input_schema: JSON schema is invalid"
        refusing(lambda _: bool(bad), words)(exchange)

    upstream.answers["play"] = answer
    functions = tuple(Function(name) for name in ("bad1", "good", "bad2", "fine", "bad3"))
    assert ask(provider, request("play", functions=functions))[0] == TEXT
    assert names_of(upstream.requests[-1].body) == ["good", "fine"]


@pytest.mark.parametrize(
    ("functions", "choice"),
    [
        ((Function("own"), Function("bad", from_caller=True)), ToolChoice()),
        ((Function("good"), Function("bad")), ToolChoice(ToolChoiceMode.REQUIRED, "bad")),
        ((Function("bad"),), ToolChoice(ToolChoiceMode.REQUIRED)),
    ],
    ids=["only-one-of-caller", "demanded", "only-one"],
)
def test_tool_that_request_depends_on_is_not_left_out(
    provider: Provider, upstream: Upstream, functions: tuple[Function, ...], choice: ToolChoice
) -> None:
    words = "Invalid schema for function 'bad': it is odd."
    upstream.answers["play"] = refusing(lambda body: "bad" in names_of(body), words)
    assert words in fail(provider, request("play", functions=functions, tool_choice=choice))[1].message
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "words",
    [
        "Invalid schema for function 'solve': In context=('properties', 'bad'), 'default' is not permitted.",
        "messages.2: `tool_use` ids were found without `tool_result` blocks: 'bad'",
        "The name of the user is too long.",
        "tools: array too long. Expected an array with maximum length 128.",
    ],
)
def test_error_about_something_else_leaves_tools_alone(provider: Provider, upstream: Upstream, words: str) -> None:
    upstream.answers["play"] = refusing(lambda _: True, words)
    fail(provider, request("play", functions=(Function("good"), Function("other"), Function(LONG))))
    assert len(upstream.requests) == 1
