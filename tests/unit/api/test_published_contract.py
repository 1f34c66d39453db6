"""The published documents: valid, equal in meaning, without keys of the program."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest
from openapi_spec_validator import validate

from service.api.http.contract import load_contract
from service.api.http.published_contract import to_openapi_3_0, to_openapi_3_1, to_openapi_3_2
from service.api.http.schema_validation import CompiledSchema
from service.core.errors import KINDS, GatewayError

Derive = Callable[[Mapping[str, Any]], dict[str, Any]]
DERIVATIONS = pytest.mark.parametrize("derive", [to_openapi_3_0, to_openapi_3_1, to_openapi_3_2])
DERIVED = pytest.mark.parametrize("derive", [to_openapi_3_1, to_openapi_3_2])
CHAT = "/v1/chat/completions"
CHUNK = {"id": "chatcmpl_" + "0" * 36, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
ENVELOPE = {"error": {"message": "m", "type": KINDS["internal_error"].type, "param": None, "code": "internal_error"}}


def keys_of(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from keys_of(part)


def is_valid(document: Mapping[str, Any], schema: Mapping[str, Any], value: object) -> bool:
    root = {**schema, "components": document["components"]}
    return bool(jsonschema_rs.Draft202012Validator(root).is_valid(value))


def accepts_3_0(document: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    try:
        CompiledSchema(schema, document).check(value)
    except GatewayError:
        return False
    return True


@DERIVATIONS
@pytest.mark.parametrize("authenticated", [True, False])
def test_published_document_is_valid_openapi(derive: Derive, authenticated: bool) -> None:
    validate(derive(load_contract(authenticated=authenticated)))


@DERIVATIONS
def test_derivation_leaves_contract_unchanged(derive: Derive) -> None:
    contract = load_contract()
    before = copy.deepcopy(contract)
    derive(contract)
    assert contract == before


@DERIVATIONS
def test_published_document_has_only_headers_that_begin_with_x(derive: Derive) -> None:
    document = derive(load_contract())
    headers = {name for name in keys_of(document["components"]["responses"]) if name.startswith("x-")}
    paths = copy.deepcopy(document["paths"])
    for item in paths.values():
        for operation in item.values():
            for response in operation["responses"].values():
                response.pop("headers", None)
    names = [*keys_of(paths), *keys_of(document["components"]["schemas"])]
    assert [name for name in names if name.startswith("x-")] == []
    headers = {name for name in headers if not name.startswith("x-ratelimit-")}
    assert headers <= {"x-request-id", "x-should-retry", "x-openclaw-queued", "x-openclaw-run-id"}
    assert "handlers." not in str(document)


@DERIVATIONS
def test_reason_for_refusal_is_part_of_description(derive: Derive) -> None:
    schemas = derive(load_contract())["components"]["schemas"]
    assert "An agent returns one choice" in schemas["ChatCompletionRequest"]["properties"]["n"]["description"]
    assert "`custom` is not supported" in schemas["ToolType"]["description"]


@DERIVED
def test_null_is_a_type(derive: Derive) -> None:
    document = derive(load_contract())
    assert "nullable" not in set(keys_of(document))
    assert not re.search(r"NoValue", orjson.dumps(document).decode())
    request = document["components"]["schemas"]["ChatCompletionRequest"]
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    optional = {name: None for name in request["properties"] if name != "messages"}
    assert is_valid(document, request, asked | optional)
    assert not is_valid(document, request, asked | {"model": 1})
    assert not is_valid(document, request, {"messages": None})


@DERIVED
def test_json_and_stream_are_operations_of_their_own(derive: Derive) -> None:
    document = derive(load_contract())
    whole, streamed = document["paths"][CHAT]["post"], document["paths"][f"{CHAT}#stream"]["post"]
    assert (whole["operationId"], streamed["operationId"]) == ("create_chat_completion", "stream_chat_completion")
    assert list(whole["responses"]["200"]["content"]) == ["application/json"]
    assert list(streamed["responses"]["200"]["content"]) == ["text/event-stream"]
    schema = streamed["requestBody"]["content"]["application/json"]["schema"]
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    assert is_valid(document, schema, asked | {"stream": True})
    assert not is_valid(document, schema, asked | {"stream": False})
    assert not is_valid(document, schema, asked)
    [example] = streamed["requestBody"]["content"]["application/json"]["examples"].values()
    assert example["value"]["stream"] is True


@DERIVED
def test_operation_whose_query_chooses_the_form_has_json_only(derive: Derive) -> None:
    paths = derive(load_contract())["paths"]
    operation = paths["/v1/responses/{response_id}"]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["application/json"]
    assert {one.get("name") for one in operation["parameters"]}.isdisjoint({"stream", "starting_after"})
    assert list(paths["/v1/runs/{run_id}/events"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]


@DERIVED
def test_stream_has_example(derive: Derive) -> None:
    content = derive(load_contract())["paths"][f"{CHAT}#stream"]["post"]["responses"]["200"]["content"]
    example = content["text/event-stream"]["example"]
    data = example.removeprefix("data: ") if isinstance(example, str) else example[0]["data"]
    assert orjson.loads(data)["object"] == "chat.completion.chunk"


def test_choice_with_null_is_nullable_in_3_0() -> None:
    document = to_openapi_3_0(load_contract())
    run = document["components"]["schemas"]["Run"]["properties"]
    for field, kind in (("error", "object"), ("finish_reason", "string")):
        assert (run[field]["type"], run[field]["nullable"]) == (kind, True)
        assert accepts_3_0(document, run[field], None)
    assert accepts_3_0(document, run["finish_reason"], "stop")
    assert not accepts_3_0(document, run["finish_reason"], "end")
    assert accepts_3_0(document, run["error"], ENVELOPE["error"])
    assert not accepts_3_0(document, run["error"], {})


@DERIVATIONS
def test_fields_differ_in_more_than_their_spelling(derive: Derive) -> None:
    schemas = derive(load_contract())["components"]["schemas"]
    for name, schema in schemas.items():
        fields = [field.replace("_", "").lower() for field in schema.get("properties", ())]
        assert len(fields) == len(set(fields)), name
    assert "session_key" in schemas["RunRequest"]["properties"]
    assert "sessionKey" in schemas["ToolInvocationRequest"]["properties"]
    assert "sessionKey" in schemas["ChatCompletionRequest"]["properties"]  # refused, both of them


@DERIVED
def test_data_of_events_has_schema(derive: Derive) -> None:
    document = derive(load_contract())
    end, data = document["components"]["schemas"]["StreamEvent"]["properties"]["data"]["oneOf"]
    assert end == {"const": "[DONE]"}
    assert data["contentMediaType"] == "application/json"
    assert is_valid(document, data["contentSchema"], CHUNK)
    assert is_valid(document, data["contentSchema"], ENVELOPE)
    assert not is_valid(document, data["contentSchema"], {**CHUNK, "object": "chat.completion"})
    assert not is_valid(document, data["contentSchema"], {})


def test_stream_is_list_of_events_in_3_1_and_sequence_in_3_2() -> None:
    event = {"$ref": "#/components/schemas/StreamEvent"}
    for derive, expected in (
        (to_openapi_3_1, {"type": "array", "items": event}),
        (to_openapi_3_2, event),
    ):
        document = derive(load_contract())
        content = document["paths"][f"{CHAT}#stream"]["post"]["responses"]["200"]["content"]["text/event-stream"]
        assert content.get("itemSchema", content.get("schema", {}).get("contentSchema")) == expected


@pytest.mark.parametrize(("version", "derive"), [("3.1", to_openapi_3_1), ("3.2", to_openapi_3_2)])
def test_derived_document_is_served(client: httpx.Client, version: str, derive: Derive) -> None:
    response = client.get(f"/openapi-{version}.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == derive(load_contract())
    assert response.json()["openapi"].startswith(version)


def test_path_with_fragment_reaches_operation(client: httpx.Client) -> None:
    body = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with client.stream("POST", f"{CHAT}#stream", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert [line for line in response.iter_lines() if line][-1] == "data: [DONE]"


@DERIVATIONS
def test_message_at_the_end_of_a_run_is_described_as_a_callback(derive: Derive) -> None:
    document = derive(load_contract())
    names = []
    for path in ["/v1/runs", *(path for path in document["paths"] if path.startswith(CHAT))]:
        called = document["paths"][path]["post"]["callbacks"]["run_ended"]["{$request.body#/webhook/url}"]["post"]
        schema = called["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/RunEndedMessage"}
        names.append(called["operationId"])
    assert len(set(names)) == len(names)


@DERIVATIONS
def test_discriminator_is_required_by_all_variants(derive: Derive) -> None:
    schemas = derive(load_contract())["components"]["schemas"]
    found = [schema["discriminator"] for schema in schemas.values() if "discriminator" in schema]
    assert len(found) > 5
    for discriminator in found:
        for reference in discriminator["mapping"].values():
            assert discriminator["propertyName"] in schemas[reference.rpartition("/")[2]]["required"]
    assert "anyOf" in schemas["ResponseInputItem"]
