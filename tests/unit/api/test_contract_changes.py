"""The contract against the released one: nothing breaks its clients unless it is meant to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
import yaml
from support.contract_changes import RELEASED, breaking_changes, strip_notes

from service.api.http.contract import load_contract

CHAT = "/v1/chat/completions"
Change = Callable[[Any], None]


def test_nothing_breaks_clients_of_the_released_contract_but_what_is_meant_to() -> None:
    released, current = orjson.loads(RELEASED.read_bytes()), load_contract()
    intended = yaml.safe_load(RELEASED.with_name("intended.yaml").read_text(encoding="utf-8"))
    assert breaking_changes(released, current) == sorted(entry["change"] for entry in intended)
    assert all(entry["reason"] for entry in intended)
    before, now = ([int(part) for part in one["info"]["version"].split(".")] for one in (released, current))
    assert now[0] > before[0] if intended else now >= before


@pytest.fixture(scope="module")
def released() -> bytes:
    """The current contract as text, to be changed."""
    return orjson.dumps(strip_notes(load_contract()))


def schema(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


def field(document: Any, name: str, of: str) -> Any:
    return schema(document, of)["properties"][name]


def chat(document: Any) -> Any:
    return document["paths"][CHAT]["post"]


BREAKING: dict[str, Change] = {
    "GET /v1/models: is gone": lambda one: one["paths"]["/v1/models"].pop("get"),
    "POST /v1/chat/completions: operationId is chat, was create_chat_completion": lambda one: chat(one).update(
        operationId="chat"
    ),
    "GET /healthz: needs a token": lambda one: one["paths"]["/healthz"]["get"].pop("security"),
    "POST /v1/chat/completions: header x-openclaw-agent-id is gone": lambda one: chat(one)["parameters"].pop(0),
    "POST /v1/chat/completions: header x-openclaw-agent-id is required": lambda one: one["components"]["parameters"][
        "AgentId"
    ].update(required=True),
    "POST /v1/chat/completions: request application/json is gone": lambda one: chat(one)["requestBody"].update(
        content={}
    ),
    "POST /v1/chat/completions: 200 text/event-stream is gone": lambda one: chat(one)["responses"]["200"][
        "content"
    ].pop("text/event-stream"),
    "POST /v1/chat/completions: 200 header x-openclaw-run-id is gone": lambda one: chat(one)["responses"]["200"][
        "headers"
    ].pop("x-openclaw-run-id"),
    "POST /v1/chat/completions: request.model is required": lambda one: schema(one, "ChatCompletionRequest").update(
        required=["messages", "model"]
    ),
    "POST /v1/chat/completions: request.temperature: maximum 2 and 1": lambda one: field(
        one, "temperature", "ChatCompletionRequest"
    ).update(maximum=1),
    "POST /v1/chat/completions: request.model: null": lambda one: field(one, "model", "ChatCompletionRequest").update(
        nullable=False
    ),
    "POST /v1/chat/completions: request.messages[]: FunctionMessage is gone": lambda one: schema(one, "RequestMessage")[
        "oneOf"
    ].remove({"$ref": "#/components/schemas/FunctionMessage"}),
    "POST /v1/chat/completions: request.metadata is gone": lambda one: schema(one, "ChatCompletionRequest")[
        "properties"
    ].pop("metadata"),
    "POST /v1/chat/completions: 200.usage is not always there: it was required": lambda one: schema(
        one, "ChatCompletion"
    )["required"].remove("usage"),
    "POST /v1/chat/completions: 200.created: type string is not integer": lambda one: field(
        one, "created", "ChatCompletion"
    ).update(type="string"),
    "POST /v1/chat/completions: 200.choices[].finish_reason: values ['other']": lambda one: schema(one, "FinishReason")[
        "enum"
    ].append("other"),
}


@pytest.mark.parametrize("expected", BREAKING)
def test_breaking_change_is_found(expected: str, released: bytes) -> None:
    changed = orjson.loads(released)
    BREAKING[expected](changed)
    assert expected in breaking_changes(orjson.loads(released), changed)


def test_new_kind_of_event_is_found(released: bytes) -> None:
    older = orjson.loads(released)
    schema(older, "RunEvent")["oneOf"].remove({"$ref": "#/components/schemas/UsageEvent"})
    found = breaking_changes(older, orjson.loads(released))
    assert "GET /v1/runs/{run_id}/events: 200.data[]: UsageEvent is new" in found


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["paths"].update({"/new": one["paths"]["/healthz"]}),
        lambda one: chat(one)["responses"].update({"402": chat(one)["responses"]["400"]}),
        lambda one: schema(one, "ErrorCode")["enum"].append("new_code"),
        lambda one: field(one, "temperature", "ChatCompletionRequest").update(maximum=3),
        lambda one: schema(one, "ChatCompletionRequest")["properties"].update(new={"type": "string"}),
        lambda one: schema(one, "ChatCompletion")["properties"].update(new={"type": "string"}),
        lambda one: schema(one, "FinishReason")["enum"].remove("content_filter"),
        lambda one: one["components"]["parameters"]["AgentId"]["schema"].pop("pattern"),
    ],
)
def test_addition_breaks_nobody(change: Change, released: bytes) -> None:
    changed = orjson.loads(released)
    change(changed)
    assert changed != orjson.loads(released)
    assert breaking_changes(orjson.loads(released), changed) == []
