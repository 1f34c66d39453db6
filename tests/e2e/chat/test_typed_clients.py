"""Requests as typed clients serialise them: unset fields as null, empty lists, hints, cut strings, HEAD and aliases."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from openai.types.chat import ChatCompletionMessage
from support.chat import PATH, ask, error_of, text_of, user
from support.live import LiveGateway, live_gateway, scripted_config
from support.pictures import data_uri, picture

CALL = {"id": "c", "type": "function", "function": {"name": "f"}}
ECHO = {"x-openclaw-model": "scripted/echo"}


@pytest.mark.parametrize(
    "messages",
    [
        [user("x"), {"role": "assistant", "content": "y", "tool_calls": []}, user("hi")],
        [
            user("x"),
            {"role": "assistant", "content": [], "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": []},
        ],
        [
            user("x"),
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": None}}]},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
        ],
        [
            user("x"),
            {"role": "assistant", "function_call": {"name": "f"}},
            {"role": "function", "name": "f", "content": None},
        ],
        [
            user("x"),
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": None, "function": {"name": "f", "arguments": ""}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": None},
        ],
        [
            user("x"),
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "null"}}]},
            {"role": "tool", "tool_call_id": "c"},
        ],
        [{"role": "system", "content": "s", "name": None}, {**user("hi"), "name": None}],
        [user("x"), ChatCompletionMessage(role="assistant", content="y").model_dump(), user("hi")],
    ],
    ids=[
        "no-calls",
        "empty-contents",
        "null-arguments",
        "function-without-arguments",
        "null-results",
        "null-types",
        "null-names",
        "sdk-dump",
    ],
)
def test_message_with_null_or_empty_members_is_accepted(client: httpx.Client, messages: list[Any]) -> None:
    assert ask(client, *messages).status_code == 200


def test_request_with_every_optional_field_null_is_accepted(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    fields = document["components"]["schemas"]["ChatCompletionRequest"]["properties"].keys() - {"messages"}
    response = ask(client, "hi", **dict.fromkeys(fields))
    assert text_of(response) == "hi"
    assert response.json()["model"] == "openclaw"


@pytest.mark.parametrize(
    "fields",
    [
        {"functions": []},
        {"functions": None, "function_call": None},
        {"function_call": "none"},
        {"response_format": {"type": "text", "json_schema": None}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": None, "strict": None}}},
        {"tools": [{"type": None, "function": {"name": "f", "parameters": None}}], "tool_choice": "none"},
        {"tools": [{"function": {"name": "f", "description": None, "strict": None}}], "tool_choice": "none"},
    ],
)
def test_empty_or_absent_functions_and_types_are_accepted(client: httpx.Client, fields: dict[str, Any]) -> None:
    assert text_of(ask(client, "hi", headers=ECHO, **fields)) in ("hi", '{"text":"hi"}')


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"functions": [{"name": "f"}]}, "unsupported_parameter"),
        ({"function_call": {"name": "f"}}, "unsupported_parameter"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}, "function": {"name": "f"}}]}, "unsupported_parameter"),
        ({"tools": [{"type": "banana", "function": {"name": "f"}}]}, "invalid_value"),
    ],
)
def test_other_functions_and_types_are_refused(client: httpx.Client, fields: dict[str, Any], code: str) -> None:
    assert error_of(ask(client, "hi", **fields))[:2] == (400, code)


@pytest.mark.parametrize(
    "name",
    [
        "x-openclaw-agent-id",
        "x-openclaw-session-key",
        "x-openclaw-model",
        "x-openclaw-message-channel",
        "x-openclaw-task",
        "idempotency-key",
        "x-request-id",
    ],
)
def test_empty_header_counts_as_absent(client: httpx.Client, name: str) -> None:
    assert text_of(ask(client, "hi", headers={name: ""})) == "hi"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("limit", [0, -1])
def test_limit_of_zero_or_minus_one_is_no_limit(client: httpx.Client, field: str, limit: int) -> None:
    response = ask(client, "hi", headers={"x-openclaw-model": "scripted/count-5"}, **{field: limit})
    assert response.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\ude00 low", "\ufffd low"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (b"cut \xed\xa0\x80", "cut \ufffd"),
        (b"\xed\xa0\x80\xed\xa0\x80 \\ud83d", "\ufffd\ufffd \ufffd"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "\U0001f600"),
        (b"\xed\x95\x9c", "\ud55c"),
    ],
)
def test_lone_surrogate_is_replaced(client: httpx.Client, sent: bytes, received: str) -> None:
    body = b'{"messages":[{"role":"user","content":"%b"}]}' % sent
    for start in (b"", b"\xef\xbb\xbf"):  # a byte order mark is ignored
        response = client.post(PATH, content=start + body, headers={"Content-Type": "application/json"})
        assert text_of(response) == received


@pytest.mark.parametrize("spelling", ["bare", "line-breaks", "upper-case", "unpadded", "url-safe", "escaped"])
def test_picture_is_accepted_in_every_spelling(client: httpx.Client, spelling: str) -> None:
    head, _, data = data_uri(picture("PNG")).partition(",")
    data = b64encode(b64decode(data) + b"\xfb\xff\xfe\x00\x00").decode()
    assert data.endswith("=")
    assert {"+", "/"} <= set(data)
    url = f"{head},{data}"
    urls: dict[str, Any] = {
        "bare": url,
        "line-breaks": {"url": f"{head},\r\n" + "\r\n".join(data[at : at + 20] for at in range(0, len(data), 20))},
        "upper-case": {"url": f"{head.upper()},{data}"},
        "unpadded": {"url": url.rstrip("=")},
        "url-safe": {"url": f"{head},{data.translate(str.maketrans('+/', '-_')).rstrip('=')}"},
        "escaped": {"url": f"{head},{quote(data, safe='')}"},
    }
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": urls[spelling]}]
    assert text_of(ask(client, user(parts))) == "look"


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v1/models", "/v1/models/openclaw", "/v1/sessions", "/openapi.json", "/docs"]
)
def test_head_has_headers_of_get_and_no_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    changing = {"date", "x-request-id"}
    assert head.content == b""
    assert head.status_code == got.status_code == 200
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in got.headers.items() if k not in changing
    }


def test_head_of_refusal_has_its_status(gateway: LiveGateway) -> None:
    with gateway.client(token=None) as client:
        assert client.head("/v1/models").status_code == 401
        assert client.head("/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("alias", "path"), [("/health", "/healthz"), ("/v1/health", "/healthz"), ("/ready", "/readyz")]
)
def test_alias_of_probe_is_answered_like_the_probe(gateway: LiveGateway, alias: str, path: str) -> None:
    with gateway.client(token=None) as client:
        assert client.get(alias).json() == client.get(path).json()


def test_disabled_endpoint_leaves_other_operations(tmp_path: Any) -> None:
    config = scripted_config(http={"endpoints": {"chatCompletions": {"enabled": False}}})
    with live_gateway(tmp_path / "off", config) as gateway, gateway.client() as client:
        assert error_of(ask(client, "hi"))[:2] == (404, "endpoint_disabled")
        assert error_of(client.get("/v1/models"))[:2] == (404, "endpoint_disabled")
        assert client.get("/v1/sessions").status_code == 200
        assert client.get("/healthz").status_code == 200


@pytest.fixture(scope="module")
def open_gateway(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gateway without authentication."""
    config = scripted_config(auth={"mode": "none"}, controlUi={"allowedOrigins": ["https://ui.example"]})
    with live_gateway(tmp_path_factory.mktemp("open"), config) as gateway:
        yield gateway


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_foreign_origin_is_refused_without_authentication(open_gateway: LiveGateway, headers: dict[str, str]) -> None:
    with open_gateway.client(token=None) as client:
        assert error_of(ask(client, "hi", headers=headers))[:2] == (403, "origin_not_allowed")
        assert client.get("/v1/sessions", headers=headers).status_code == 403
        assert client.delete("/v1/sessions/agent:main:x", headers=headers).status_code == 403
        assert client.get("/healthz", headers=headers).status_code == 200


def test_own_and_listed_origins_are_accepted_without_authentication(open_gateway: LiveGateway) -> None:
    own, listed = open_gateway.url, {"Origin": "https://UI.example", "Sec-Fetch-Site": "cross-site"}
    with open_gateway.client(token=None) as client:
        assert text_of(ask(client, "hi", headers={"Origin": own, "Sec-Fetch-Site": "same-origin"})) == "hi"
        assert text_of(ask(client, "hi", headers=listed)) == "hi"
        assert text_of(ask(client, "hi")) == "hi"


def test_origin_is_not_considered_with_a_token(client: httpx.Client) -> None:
    assert text_of(ask(client, "hi", headers={"Origin": "https://evil.example", **ECHO})) == "hi"


def test_hints_are_accepted_without_effect(client: httpx.Client) -> None:
    hints = orjson.loads(
        b'{"store":true,"service_tier":"flex","prediction":{"type":"content","content":"x"},"moderation":{"a":1},'
        b'"stream_options":{"include_obfuscation":true}}'
    )
    assert text_of(ask(client, "hi", **hints)) == "hi"
