"""The contract as a document: valid, complete, and consistent with the code."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import yaml
from openapi_spec_validator import validate

from service.api.http.contract import load_contract, to_json_schema, to_served_document
from service.api.http.responses import error_response
from service.core.errors import KINDS, GatewayError

OPERATIONS = [
    (path, method, operation) for path, item in load_contract()["paths"].items() for method, operation in item.items()
]
ENVELOPE_HEADERS = {"x-request-id", "X-Content-Type-Options", "Referrer-Policy", "Permissions-Policy"}


@pytest.mark.parametrize("authenticated", [True, False])
def test_contract_is_valid_openapi_3_0(authenticated: bool) -> None:
    document = load_contract(authenticated=authenticated)
    assert document["openapi"].startswith("3.0.")
    validate(document)
    validate(to_served_document(document))


def test_served_documents_equal_contract(client: httpx.Client) -> None:
    expected = to_served_document(load_contract())
    assert client.get("/openapi.json").json() == expected
    assert yaml.safe_load(client.get("/openapi.yaml").text) == expected


def test_served_document_has_no_internal_keys() -> None:
    assert "handlers." not in str(to_served_document(load_contract()))


def test_error_codes_and_types_equal_those_of_the_program() -> None:
    schemas = load_contract()["components"]["schemas"]
    assert set(schemas["ErrorCode"]["enum"]) == set(KINDS)
    assert set(schemas["ErrorType"]["enum"]) == {kind.type for kind in KINDS.values()}


def test_every_error_status_is_declared() -> None:
    statuses = {status for _, _, operation in OPERATIONS for status in operation["responses"]}
    assert {str(kind.status) for kind in KINDS.values()} <= statuses


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=lambda value: str(value)[:40])
def test_every_error_response_has_envelope_and_common_headers(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    del path, method
    document = load_contract()
    for status, response in operation["responses"].items():
        if "$ref" not in response:
            assert status == "200"
            assert set(response["headers"]) >= ENVELOPE_HEADERS
            continue
        declared = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        assert declared["content"] == {
            "application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}},
        }
        assert set(declared["headers"]) >= ENVELOPE_HEADERS


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=lambda value: str(value)[:40])
def test_every_operation_has_request_id_summary_and_verb(path: str, method: str, operation: dict[str, Any]) -> None:
    del path, method
    assert {"$ref": "#/components/parameters/RequestId"} in operation["parameters"]
    assert operation["summary"]
    assert operation["operationId"].partition("_")[0] in ("create", "list", "get", "delete", "cancel")


def test_every_status_has_a_reason_phrase() -> None:
    for code in KINDS:
        assert error_response(GatewayError(code, "x")).status.partition(" ")[2]


def test_errors_inside_branches_keep_their_location() -> None:
    schema = to_json_schema({"$ref": "#/components/schemas/RequestMessage"}, load_contract())
    assert schema["$defs"]["RequestMessage"]["allOf"][0]["if"]["properties"] == {"role": {"const": "system"}}
