"""The AsyncAPI document: every method and event, with the schemas that requests are checked against."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema_rs
import pytest

from service.api.http.contract import load_contract
from service.api.websocket.asyncapi import to_asyncapi
from service.api.websocket.handshake import EVENTS
from service.api.websocket.methods import ROWS

DOCUMENT = to_asyncapi("1.0.0")
MESSAGES = DOCUMENT["components"]["messages"]


def is_valid(name: str, frame: Any) -> bool:
    return jsonschema_rs.Draft202012Validator(MESSAGES[name]["payload"]).is_valid(frame)


def test_every_method_and_event_is_described() -> None:
    assert set(DOCUMENT["operations"]) == {"connect", "receive_events", *(row.name for row in ROWS)}
    assert all(operation["description"].endswith(".") for operation in DOCUMENT["operations"].values())
    assert MESSAGES["event"]["payload"]["properties"]["event"]["enum"] == list(EVENTS)
    assert set(DOCUMENT["channels"]["gateway"]["messages"]) == set(MESSAGES)


@pytest.mark.parametrize(
    ("params", "valid"),
    [
        ({"key": "main"}, True),
        ({"key": "main", "deleteTranscript": True}, True),
        ({}, False),
        ({"key": 1}, False),
        ({"key": "main", "other": 1}, False),
    ],
)
def test_parameters_are_those_that_the_method_takes(params: Any, valid: bool) -> None:
    frame = {"type": "req", "id": "1", "method": "sessions.delete", "params": params}
    assert is_valid("sessions.delete", frame) is valid


def test_document_is_served_with_the_version_of_the_contract(client: httpx.Client) -> None:
    response = client.get("/asyncapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == to_asyncapi(load_contract()["info"]["version"])
