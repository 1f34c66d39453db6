"""The refusals that operations list in the contract, because no schema says them: the gateway does each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.documents import ROOT
from support.live import live_gateway, scripted_config

from service.api.http.contract import load_contract
from service.api.http.schema_validation import CompiledSchema

CONTRACT = load_contract()
HEADING = "Refused (400), though the schemas allow it:\n\n"
SAY = {"role": "user", "content": "hi"}
LATER = {"role": "assistant", "content": "Go on."}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
BROKEN_PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo"}}
BROKEN_FILE: dict[str, Any] = {
    "type": "file",
    "file": {"file_data": "data:application/pdf;base64,JVBERi0xLjcgYnJva2Vu"},
}
LOOK_UP: dict[str, Any] = {"type": "function", "function": {"name": "look_up"}}
FUNCTION = {"type": "function", "name": "look_up"}
DEEP: dict[str, Any] = {}
for _ in range(260):
    DEEP = {"not": DEEP}
LOCAL_WEBHOOK = {"url": "http://127.0.0.1/hook", "secret": "A" * 32}
WEBHOOK = {"url": "https://hooks.example/one", "secret": "A" * 32}
NOT_A_SCHEMA = {"name": "n", "schema": {"type": "nothing"}, "strict": True}
FOREIGN = {"x-openclaw-session-key": "agent:beta:x", "x-openclaw-agent-id": "main"}
PLAIN = {"x-openclaw-model": "stub/plain"}
PICTURE = {"type": "image_url", "image_url": {"url": "https://pictures.example/one.png"}}

Request = dict[str, Any]
#: The request for a refusal, one for each of its alternatives, or the test elsewhere that has what it needs.
Sent = Request | tuple[Request, ...] | str


def body(**fields: Any) -> Request:
    return {"json": fields}


def chat(**fields: Any) -> Request:
    return body(**{"messages": [SAY], **fields})


def plain_chat(**fields: Any) -> Request:
    return chat(**fields) | {"headers": PLAIN}


def respond(**fields: Any) -> Request:
    return body(**{"input": "hi", **fields})


def with_part(part: Any) -> Any:
    return [{"role": "user", "content": [part]}]


#: What is sent for each refusal that an operation lists, in its order; `{session}` and `{response}` exist.
REFUSED: dict[str, list[Sent]] = {
    "POST /v1/chat/completions": [
        chat(messages=[LATER]),
        chat(messages=[RESULT]),
        chat(messages=with_part(BROKEN_PICTURE)),
        chat(messages=with_part(BROKEN_FILE)),
        plain_chat(messages=with_part(PICTURE)),
        chat(tools=[LOOK_UP, LOOK_UP]),
        chat(tools=[{"function": {"name": "look_up", "parameters": DEEP}}]),
        plain_chat(tools=[LOOK_UP]),
        (
            chat(tool_choice="required"),
            chat(tools=[LOOK_UP], tool_choice={"type": "function", "function": {"name": "other"}}),
        ),
        chat(response_format={"type": "json_schema", "json_schema": NOT_A_SCHEMA}),
        chat(webhook=LOCAL_WEBHOOK),
        {"json": {"messages": [SAY], "webhook": WEBHOOK}, "headers": {"x-openclaw-on-disconnect": "cancel"}},
        {"json": {"messages": [SAY]}, "headers": FOREIGN},
    ],
    "POST /v1/responses": [
        respond(input=[LATER]),
        respond(input=[{"type": "function_call_output", "call_id": "call_1", "output": "4"}]),
        respond(input=[{"type": "item_reference", "id": "msg_nothing"}]),
        respond(input=with_part({"type": "input_file", "file_data": BROKEN_FILE["file"]["file_data"]})),
        respond(tools=[FUNCTION, FUNCTION]),
        (
            respond(tool_choice="required"),
            respond(tools=[FUNCTION], tool_choice={"type": "function", "name": "other"}),
        ),
        respond(text={"format": {"type": "json_schema", **NOT_A_SCHEMA}}),
        (
            respond(conversation="one", previous_response_id="{response}"),
            respond(conversation="one") | {"headers": {"x-openclaw-session-key": "another"}},
            respond(conversation=" "),
        ),
        {
            "json": {"input": "hi", "previous_response_id": "{response}"},
            "headers": {"x-openclaw-session-key": "another"},
        },
        respond(store=False, background=True),
        {"json": {"input": "hi"}, "headers": FOREIGN},
    ],
    "POST /v1/embeddings": [
        body(input="hi") | {"headers": {"x-openclaw-model": "claude/any"}},
        "tests/e2e/chat/test_embeddings.py::test_wrong_requests_are_refused",
    ],
    "POST /tools/invoke": [
        body(args={}),
        body(tool="agents_list", name="sessions_list"),
        body(tool="agents_list", args=DEEP),
    ],
    "POST /v1/sessions/{key}/fork": [(body(index=0, run_id="one"), body(index=99))],
    "GET /v1/sessions/{key}": [{"params": {"branch": 99}}],
    "GET /v1/responses/{response_id}/input_items": [
        {"params": {"after": "msg_00000000-0000-4000-8000-000000000000_i0"}}
    ],
    "POST /v1/runs": [
        body(input=[LATER]),
        body(input="hi", webhook=LOCAL_WEBHOOK),
        body(input="hi", agent="main", session_key="agent:beta:x"),
    ],
    "POST /v1/approvals/{approval_id}": [
        "tests/e2e/tools/test_approvals.py::test_exec_ask_always_has_no_decision_for_session"
    ],
}


def listed(operation: dict[str, Any]) -> list[str]:
    """The parameters and fields of the refusals that an operation lists, in its order."""
    _, _, found = operation.get("description", "").partition(HEADING)
    lines = re.sub(r"\n +", " ", found).splitlines()
    names = [re.fullmatch(r"\* `([\w-]+)`: .+[;.]", line) for line in lines]
    assert all(names), lines
    return [name[1] for name in names if name]


LISTED = {
    f"{method.upper()} {path}": names
    for path, item in CONTRACT["paths"].items()
    for method, operation in item.items()
    if (names := listed(operation))
}
CASES = [
    (label, f"{index}.{number}", name, request)
    for label, names in LISTED.items()
    for index, (name, sent) in enumerate(zip(names, REFUSED.get(label, []), strict=False))
    if not isinstance(sent, str)
    for number, request in enumerate(sent if isinstance(sent, tuple) else (sent,))
]
ELSEWHERE = [sent for requests in REFUSED.values() for sent in requests if isinstance(sent, str)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    config = scripted_config()
    config["gateway"]["http"]["endpoints"] |= {"tools": {"enabled": True}, "embeddings": {"enabled": True}}
    plain = {"id": "plain", "input": ["text"], "compat": {"supportsTools": False}}
    stub = {"baseUrl": "http://127.0.0.1:9/v1", "models": [plain]}  # which is never asked
    claude = {"baseUrl": "http://127.0.0.1:9", "api": "anthropic-messages"}
    config["models"]["providers"] |= {"stub": stub, "claude": claude}
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as gateway, gateway.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def existing(client: httpx.Client) -> dict[str, str]:
    """The parts of paths and bodies that exist."""
    answer = client.post("/v1/responses", json={"input": "hi"}).raise_for_status()
    response: str = answer.json()["id"]
    session = answer.headers["x-openclaw-session-key"]
    return {"{response}": response, "{response_id}": response, "{key}": session}


def test_each_listed_refusal_has_a_request() -> None:
    assert {label: len(names) for label, names in LISTED.items()} == {
        label: len(requests) for label, requests in REFUSED.items()
    }


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_refusal_that_is_sent_elsewhere_has_its_test(elsewhere: str) -> None:
    file, _, test = elsewhere.partition("::")
    assert f"\ndef {test}(" in (ROOT / file).read_text()


@pytest.mark.parametrize(
    ("label", "name", "request_"),
    [(label, name, request) for label, _, name, request in CASES],
    ids=[f"{label}-{name}-{index}" for label, index, name, _ in CASES],
)
def test_listed_refusal_is_what_the_gateway_does(
    client: httpx.Client, existing: dict[str, str], label: str, name: str, request_: dict[str, Any]
) -> None:
    method, _, path = label.partition(" ")
    sent = dict(request_)
    for place, value in existing.items():
        path = path.replace(place, value)
    if "json" in sent:
        schema = CONTRACT["paths"][label.partition(" ")[2]][method.lower()]["requestBody"]["content"]
        sent["json"] = {key: existing.get(str(value), value) for key, value in sent["json"].items()}
        assert CompiledSchema(schema["application/json"]["schema"], CONTRACT).is_valid(sent["json"])
    answer = client.request(method, path, **sent)
    assert answer.status_code == 400, answer.text
    assert re.split(r"[.\[]", answer.json()["error"]["param"])[0] == name
