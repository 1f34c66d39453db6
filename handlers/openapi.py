"""The published contract: as OpenAPI 3.0 in JSON and YAML, as OpenAPI 3.1 and 3.2, and AsyncAPI for the WebSocket."""

from service.api.http.connexion_app import current_request
from service.api.http.http_response import Response, ok_response
from service.api.http.published_contract import PublishedContract
from service.api.websocket.asyncapi import encode_asyncapi


def get_contract_json() -> Response:
    """Return the contract as OpenAPI 3.0 in JSON."""
    return ok_response("application/json", _contract().openapi_3_0)


def get_contract_yaml() -> Response:
    """Return the contract as OpenAPI 3.0 in YAML."""
    return ok_response("text/yaml; charset=utf-8", _contract().openapi_3_0_yaml)


def get_contract_3_1() -> Response:
    """Return the contract as OpenAPI 3.1."""
    return ok_response("application/json", _contract().openapi_3_1)


def get_contract_3_2() -> Response:
    """Return the contract as OpenAPI 3.2."""
    return ok_response("application/json", _contract().openapi_3_2)


def get_asyncapi() -> Response:
    """Return the methods and events of the WebSocket as AsyncAPI."""
    return ok_response("application/json", encode_asyncapi(_contract().version))


def _contract() -> PublishedContract:
    contract: PublishedContract = current_request().app.extensions["contract"]
    return contract
