"""The contract as a document: valid, complete, and consistent with the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
import yaml
from openapi_spec_validator import validate

from service.api.http.contract import load_contract, to_json_schema
from service.api.http.error_pages import EXPLANATIONS
from service.api.http.http_response import error_response
from service.api.http.published_contract import to_openapi_3_0
from service.api.http.schema_validation import CompiledSchema
from service.core.errors import KINDS, GatewayError

VERBS = ("create", "list", "get", "head", "delete", "cancel", "decide")
OPERATIONS = [
    (path, method, operation) for path, item in load_contract()["paths"].items() for method, operation in item.items()
]
ENVELOPE_HEADERS = {"x-request-id", "X-Content-Type-Options", "Referrer-Policy", "Permissions-Policy"}


@pytest.mark.parametrize("authenticated", [True, False])
def test_contract_is_valid_openapi_3_0(authenticated: bool) -> None:
    document = load_contract(authenticated=authenticated)
    assert document["openapi"].startswith("3.0.")
    validate(document)
    validate(to_openapi_3_0(document))


def test_served_documents_equal_contract(client: httpx.Client) -> None:
    expected = to_openapi_3_0(load_contract())
    assert client.get("/openapi.json").json() == expected
    assert yaml.safe_load(client.get("/openapi.yaml").text) == expected


def test_error_codes_and_types_equal_those_of_the_program() -> None:
    schemas = load_contract()["components"]["schemas"]
    assert set(schemas["ErrorCode"]["enum"]) == set(KINDS)
    assert set(schemas["ErrorType"]["enum"]) == {kind.type for kind in KINDS.values()}
    assert EXPLANATIONS.keys() == KINDS.keys()


def test_every_success_with_content_has_a_valid_example() -> None:
    document = load_contract()
    shown = 0
    for path, method, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items() if "$ref" not in response else ():
                assert "example" in content, (path, method, status, kind)
                _check_example(content["schema"], content["example"], document)
                shown += 1
    assert shown > 30


def _check_example(schema: dict[str, Any], example: Any, document: dict[str, Any]) -> None:
    CompiledSchema(schema, document).check(example)
    fields = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
    if "x-content-schema" in fields.get("data", {}):
        CompiledSchema(fields["data"]["x-content-schema"], document).check(orjson.loads(example["data"]))


def test_every_error_code_has_an_example_with_its_status() -> None:
    document = load_contract()
    envelope = CompiledSchema({"$ref": "#/components/schemas/ErrorEnvelope"}, document)
    declared = document["components"]["responses"]
    shown = set()
    for status, response in {pair for _, _, operation in OPERATIONS for pair in _references(operation)}:
        for code, example in (
            declared[response].get("content", {}).get("application/json", {}).get("examples", {}).items()
        ):
            envelope.check(example["value"])
            error = example["value"]["error"]
            kind = KINDS[code]
            assert (error["code"], error["type"], str(kind.status)) == (code, kind.type, status)
            shown.add(code)
    assert KINDS.keys() - shown == {"protocol_mismatch", "unknown_method", "too_many_requests", "run_failed"}, (
        "WebSocket's"
    )


def _references(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for status, response in operation["responses"].items():
        if "$ref" in response:
            yield status, response["$ref"].rpartition("/")[2]


def test_every_error_status_is_declared() -> None:
    statuses = {status for _, _, operation in OPERATIONS for status in operation["responses"]}
    assert {str(kind.status) for kind in KINDS.values()} <= statuses


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=lambda value: str(value)[:40])
def test_every_error_response_has_envelope_and_common_headers(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    del path
    document = load_contract()
    for status, response in operation["responses"].items():
        if "$ref" not in response:
            assert status in ("200", "201", "202", "204", "304")
            assert set(response["headers"]) >= ENVELOPE_HEADERS
            continue
        declared = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        schemas = {kind: content["schema"] for kind, content in declared.get("content", {}).items()}
        envelope = {"application/json": {"$ref": "#/components/schemas/ErrorEnvelope"}}
        assert schemas == ({} if method == "head" else envelope)
        assert set(declared["headers"]) >= ENVELOPE_HEADERS | {"Link"}


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=lambda value: str(value)[:40])
def test_every_operation_has_request_id_description_and_verb(path: str, method: str, operation: dict[str, Any]) -> None:
    del path, method
    assert {"$ref": "#/components/parameters/RequestId"} in operation["parameters"]
    assert operation["summary"]
    assert operation["description"]
    assert operation["operationId"].partition("_")[0] in VERBS


def test_every_status_has_a_reason_phrase() -> None:
    for code in KINDS:
        assert error_response(GatewayError(code, "x")).status.partition(" ")[2]


def test_errors_inside_branches_keep_their_location() -> None:
    schema = to_json_schema({"$ref": "#/components/schemas/RequestMessage"}, load_contract())
    assert schema["$defs"]["RequestMessage"]["allOf"][0]["if"]["properties"] == {"role": {"const": "system"}}


def nodes_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes_of(child)


def test_nullable_has_explicit_type_and_null_in_its_enum() -> None:
    nullable = [node for node in nodes_of(load_contract()) if node.get("nullable") is True]
    assert len(nullable) > 50
    for node in nullable:
        assert isinstance(node.get("type"), str), node
        assert None in node.get("enum", [None]), node
        assert node.get("enum") != [None], node
        assert node["type"] != "boolean" or "enum" not in node, "generators of clients fail on it"


def test_every_get_has_head_with_same_statuses_and_headers() -> None:
    for item in load_contract()["paths"].values():
        assert ("get" in item) == ("head" in item)
        if "get" in item:
            get, head = item["get"], item["head"]
            assert list(head["responses"]) == list(get["responses"])
            assert head["responses"]["200"]["headers"] == get["responses"]["200"]["headers"]
            assert [head.get(key) for key in ("security", "parameters", "x-endpoint")] == [
                get.get(key) for key in ("security", "parameters", "x-endpoint")
            ]


def test_no_component_is_named_like_a_type_of_a_language() -> None:
    names = set(load_contract()["components"]["schemas"])
    assert not names & {
        "Any",
        "Array",
        "Date",
        "Error",
        "Exception",
        "Function",
        "List",
        "Map",
        "Object",
        "Set",
        "String",
    }


#: What a request has that it may be sent with elsewhere, too, where it changes nothing.
HARMLESS = {"stream_options", "metadata", "store", "service_tier", "prediction", "moderation", "prompt_cache_key"}
HARMLESS |= {"safety_identifier", "truncation", "parallel_tool_calls", "include", "background", "usage"}
REQUESTS = ("ChatCompletionRequest", "ResponseRequest", "RunRequest")


@pytest.mark.parametrize("name", [*REQUESTS, "EmbeddingRequest", "ToolInvocationRequest", "ForkRequest"])
def test_fields_of_neighbouring_requests_are_refused_with_their_remedy(name: str) -> None:
    document = load_contract()
    schemas = document["components"]["schemas"]
    fields = {of: schemas[of]["properties"] for of in (*REQUESTS, name)}
    refused = {field: one["x-unsupported"] for field, one in fields[name].items() if "x-unsupported" in one}
    check = CompiledSchema({"$ref": f"#/components/schemas/{name}"}, document).check
    base: dict[str, Any] = {"input": "hi"} if "input" in fields[name].keys() - refused.keys() else {}
    base |= {"messages": [{"role": "user", "content": "hi"}]} if name == "ChatCompletionRequest" else {}
    for field, why in refused.items():
        check({**base, field: None})
        with pytest.raises(GatewayError, match="^" + re.escape(why)) as caught:
            check({**base, field: {"x": "y"}})
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", field)
        assert re.search(r"`\w|/v1/|Omit|Write|model", why), "no remedy"
    if name in REQUESTS:
        taken = {field for of in REQUESTS for field, one in fields[of].items() if "x-unsupported" not in one}
        assert not taken - HARMLESS - fields[name].keys()


def test_every_optional_field_of_a_request_accepts_null() -> None:
    document = load_contract()
    schemas = document["components"]["schemas"]
    sent = [schemas["ChatCompletionRequest"], schemas["StreamOptions"], schemas["FunctionDefinition"]]
    sent += [schemas[ref["$ref"].rpartition("/")[2]] for ref in schemas["RequestMessage"]["oneOf"]]
    sent += [schemas["ImageReference"], schemas["ResponseFormatJsonSchema"]["properties"]["json_schema"]]
    for schema in sent:
        for name, field in schema["properties"].items():
            if name not in schema.get("required", ()):
                assert CompiledSchema(field, document).is_valid(None), name
