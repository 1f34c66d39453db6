"""Arbitrary client frames: one response each or the documented close; connection and process survive."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from support.live import TOKEN, LiveGateway
from support.operator_client import OperatorClient, operator_client, raw_client
from websockets.exceptions import ConnectionClosed

from service.api.websocket.asyncapi import to_asyncapi
from service.api.websocket.methods import ROWS

NAMES = [row.name for row in ROWS]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def can_be_sent(value: Any) -> bool:
    """Return False for an integer beyond 64 bits."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False
    return True


JSON_TO_SEND = JSON.filter(can_be_sent)
KEYS = st.sampled_from(["key", "sessionKey", "agentId", "limit", "runId", "message", "timeoutMs", "search"])
PARAMS = st.dictionaries(KEYS | st.text(max_size=8), JSON, max_size=4)
FRAMES = st.fixed_dictionaries(
    {"type": st.just("req") | JSON, "method": st.sampled_from(NAMES) | st.text(max_size=20)},
    optional={"params": PARAMS | JSON, "id": JSON, "extra": JSON},
)

FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
MARK = "mark"


@pytest.fixture(scope="module")
def operator(gateway: LiveGateway) -> Iterator[OperatorClient]:
    """One connection for all examples: it has to live through them."""
    with operator_client(gateway, scopes=["operator.read"]) as client:
        yield client


_marks = (f"{MARK}-{number}" for number in itertools.count())


def responses(client: OperatorClient, sent: str | bytes) -> list[dict[str, Any]]:
    """Return the responses to `sent`: all up to that of a later request."""
    client.frames.clear()
    client.connection.send(sent)
    mark = next(_marks)
    client.response(client.send("agents.list", {}, request_id=mark))
    if not any(frame["type"] == "res" and frame["id"] != mark for frame in client.frames):
        client.receive_until(lambda frame: frame["type"] == "res")  # requests go side by side
    return [frame for frame in client.frames if frame["type"] == "res" and frame["id"] != mark]


@FUZZ
@given(frame=FRAMES)
def test_any_frame_gets_exactly_one_response(operator: OperatorClient, frame: dict[str, Any]) -> None:
    try:
        sent = orjson.dumps(frame)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        return
    answers = responses(operator, sent.decode())
    assert len(answers) == 1
    given_id = frame.get("id")
    named = isinstance(given_id, str) and 1 <= len(given_id) <= 512
    assert answers[0]["id"] == (given_id if named else "invalid")
    assert answers[0]["ok"] or answers[0]["error"]["code"] in ("INVALID_REQUEST", "FORBIDDEN")


@FUZZ
@given(value=JSON | st.text(max_size=60) | st.binary(max_size=60))
def test_invalid_frame_gets_error_response(operator: OperatorClient, value: Any) -> None:
    if isinstance(value, str | bytes):
        sent: str | bytes = value
    else:
        try:
            sent = orjson.dumps(value).decode()
        except orjson.JSONEncodeError:
            return
    answers = responses(operator, sent)
    assert [answer["ok"] for answer in answers] == [False]
    assert answers[0]["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, '{"id": 1e999}', "NaN", '"\\ud800"', "\ufeff{}", "9" * 5000],
)
def test_json_at_its_limits_is_answered_as_invalid(operator: OperatorClient, text: str) -> None:
    assert [answer["ok"] for answer in responses(operator, text)] == [False]


def test_text_that_is_not_utf8_closes_with_1007(gateway: LiveGateway) -> None:
    with operator_client(gateway) as client:
        client.connection.send(b'{"type": "req", \xff}', text=True)
        with pytest.raises(ConnectionClosed) as caught:
            client.receive_until(lambda _: False)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1007


@settings(FUZZ, max_examples=40)
@given(first=FRAMES | JSON)
def test_whatever_comes_first_is_answered_once_and_closed(gateway: LiveGateway, first: Any) -> None:
    try:
        sent = orjson.dumps(first).decode()
    except orjson.JSONEncodeError:
        return
    with raw_client(gateway) as client:
        client.receive()
        client.connection.send(sent)
        with pytest.raises(ConnectionClosed) as caught:
            client.receive_until(lambda _: False)
    assert [frame["ok"] for frame in client.frames[1:]] == [False]
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code in (1008, 1002)


def test_process_has_logged_no_failure(operator: OperatorClient, gateway: LiveGateway) -> None:
    assert operator.call("agents.list", {})["defaultId"] == "main"
    assert "Traceback" not in gateway.output


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema of the AsyncAPI document, which has few keywords."""
    kinds = schema.get("type", "string")
    if isinstance(kinds, list):
        return st.one_of([values_of({**schema, "type": kind}) for kind in kinds])
    if "anyOf" in schema:
        return st.one_of([values_of(with_branch(schema, branch)) for branch in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if kinds == "object":
        fields = {name: values_of(field) for name, field in schema.get("properties", {}).items()}
        required = {name: fields.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(required, optional=fields)
    if kinds == "array":
        sizes = (schema.get("minItems", 0), min(3, schema.get("maxItems", 3)))
        return st.lists(values_of(schema.get("items", {})), min_size=sizes[0], max_size=sizes[1])
    plain: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31)),
        "boolean": st.booleans(),
        "null": st.none(),
        # letters and digits have every pattern of the document, and are not blank
        "string": st.text(st.characters(categories=["L", "N"]), min_size=schema.get("minLength", 0), max_size=12),
    }
    return plain[kinds]


def with_branch(schema: dict[str, Any], branch: dict[str, Any]) -> dict[str, Any]:
    fields = {name: field | branch["properties"].get(name, {}) for name, field in schema["properties"].items()}
    required = [*schema["required"], *branch["required"]]
    return {key: value for key, value in schema.items() if key != "anyOf"} | {
        "properties": fields,
        "required": required,
    }


DOCUMENT = to_asyncapi("1.0.0")
MESSAGES = DOCUMENT["components"]["messages"]
#: A request waits no longer than this for what does not come.
SHORT = {"timeoutMs": {"type": "integer", "minimum": 1, "maximum": 50}}
RESPONSE = jsonschema_rs.Draft202012Validator(MESSAGES["response"]["payload"])
EVENT = jsonschema_rs.Draft202012Validator(MESSAGES["event"]["payload"])
#: What a request is refused with that the document does not allow.
UNDOCUMENTED = {"INVALID_TYPE", "INVALID_VALUE", "MISSING_REQUIRED_PARAMETER", "UNSUPPORTED_PARAMETER"}
BY_METHOD = settings(FUZZ, max_examples=10, phases=[Phase.generate])


def params_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Parameters of a method, with an agent that there is."""
    schema = MESSAGES[name]["payload"]["properties"]["params"]
    fields = schema["properties"]
    known = {"agentId": {"enum": ["main"]}, **SHORT}
    fields = fields | {one: known[one] for one in fields.keys() & known.keys()}
    return values_of({**schema, "type": "object", "properties": fields})


def without_other_faults(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters that keep the rules beyond their schema, too: keys are new; nothing waits for long."""
    new = next(_marks)
    if name == "exec.approval.request":
        params = {"timeoutMs": 1} | params | {"id": new}
    return params | ({"idempotencyKey": new} if "idempotencyKey" in params else {})


@pytest.fixture(scope="module")
def administrator(gateway: LiveGateway) -> Iterator[OperatorClient]:
    """One connection that may call every method."""
    with operator_client(gateway) as client:
        yield client


def answer_of(client: OperatorClient, name: str, params: Any) -> dict[str, Any]:
    """The first response to a request; it and all that came before it have the forms of the document."""
    client.frames.clear()
    answer = client.response(client.send(name, params, request_id=next(_marks)))
    for frame in client.frames:  # of earlier runs, too
        (EVENT if frame["type"] == "event" else RESPONSE).validate(frame)
    return answer


@pytest.mark.parametrize("name", NAMES)
@BY_METHOD
@given(data=st.data())
def test_request_of_the_document_is_not_refused_for_its_form(
    administrator: OperatorClient, name: str, data: st.DataObject
) -> None:
    answer = answer_of(administrator, name, without_other_faults(name, data.draw(params_of(name))))
    assert answer["ok"] or answer["error"]["details"]["code"] not in UNDOCUMENTED, answer


@pytest.mark.parametrize("name", NAMES)
@BY_METHOD
@given(data=st.data())
def test_request_that_the_document_lacks_is_refused(
    administrator: OperatorClient, name: str, data: st.DataObject
) -> None:
    params = without_other_faults(name, data.draw(params_of(name)))
    form = jsonschema_rs.Draft202012Validator(MESSAGES[name]["payload"]["properties"]["params"])
    wrong = params | {data.draw(st.sampled_from([*params, "notInTheDocument"])): data.draw(JSON_TO_SEND)}
    assume(not form.is_valid(wrong))
    assert answer_of(administrator, name, wrong)["error"]["details"]["code"] in UNDOCUMENTED


def answer_to_frame(client: OperatorClient, members: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The response to a request with these members, and whether the document allows it."""
    frame = {"type": "req", "id": next(_marks), **members}
    client.connection.send(orjson.dumps(frame).decode())
    form = jsonschema_rs.Draft202012Validator(MESSAGES[members["method"]]["payload"])
    return client.response(frame["id"]), form.is_valid(frame)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("exec.approval.request", {}),
        ("exec.approval.request", {"cwd": "/"}),
        ("exec.approval.request", {"commandArgv": []}),
        ("exec.approval.request", None),
        ("sessions.abort", {}),
        ("sessions.abort", {"agentId": "main"}),
        ("sessions.get", None),
        *(("agent", {"message": blank, "idempotencyKey": "k"}) for blank in ("", " \n", "\u0085\u2003\u001f")),
        ("chat.send", {"message": " ", "idempotencyKey": "k", "sessionKey": "s"}),
    ],
)
def test_request_that_needs_more_is_refused_by_the_document_and_the_gateway(
    administrator: OperatorClient, name: str, params: Any
) -> None:
    answer, is_valid = answer_to_frame(administrator, {"method": name, "params": params})
    assert not is_valid
    assert answer["error"]["details"]["code"] in UNDOCUMENTED


@pytest.mark.parametrize("name", [name for name in NAMES if "params" not in MESSAGES[name]["payload"]["required"]])
@BY_METHOD
@given(
    members=st.fixed_dictionaries({}, optional={"params": st.none(), "traceparent": JSON_TO_SEND, "more": JSON_TO_SEND})
)
def test_members_of_a_request_are_accepted_as_the_document_says(
    administrator: OperatorClient, name: str, members: dict[str, Any]
) -> None:
    answer, is_valid = answer_to_frame(administrator, {"method": name, **members})
    assert is_valid
    assert answer["ok"]


@settings(FUZZ, max_examples=20)
@given(data=st.data())
def test_connect_of_the_document_is_not_refused_for_its_form(gateway: LiveGateway, data: st.DataObject) -> None:
    params = data.draw(values_of(MESSAGES["connect"]["payload"]["properties"]["params"]))
    with raw_client(gateway) as client:
        client.receive()
        answer = answer_of(client, "connect", params | {"auth": {"token": TOKEN}})
    assert answer["ok"] or answer["error"]["details"]["code"] not in UNDOCUMENTED, answer
