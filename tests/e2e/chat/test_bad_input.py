"""Invalid input over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support.chat import PATH, ask, error_of, text_of, user
from support.live import TOKEN, LiveGateway

JSON = {"Content-Type": "application/json"}
SHOWING = {"content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:"}}]}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}
NULL_TOOL = {"type": "function", "function": {"name": "f", "description": None, "parameters": None, "strict": None}}
NULL_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "description": None, "schema": None, "strict": None}}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAY"
    "AAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def post(client: httpx.Client, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return client.post(PATH, content=body, headers={**JSON, **(headers or {})})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"messages": [NaN]}', "invalid_json"),
        (b'{"messages": "\xff"}', "invalid_json"),
        (b"\xef\xbb\xbf{", "invalid_json"),
        (b"[" * 10_000 + b"]" * 10_000, "invalid_json"),
        (b"[]", "invalid_type"),
        (b'"text"', "invalid_type"),
        (b"null", "invalid_type"),
        (b"{}", "missing_required_parameter"),
    ],
)
def test_body_that_is_no_json_object_is_refused(client: httpx.Client, body: bytes, code: str) -> None:
    assert error_of(post(client, body))[:2] == (400, code)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_other_content_type_is_415(client: httpx.Client, kind: str) -> None:
    assert error_of(post(client, b"{}", {"Content-Type": kind})) == (415, "unsupported_media_type", "content-type")


def test_missing_content_type_is_415(client: httpx.Client) -> None:
    request = client.build_request("POST", PATH, content=b"{}")
    request.headers.pop("content-type", None)
    assert client.send(request).status_code == 415


def test_compressed_body_is_415(client: httpx.Client) -> None:
    assert post(client, b"{}", {"Content-Encoding": "gzip"}).status_code == 415


LIMIT = 20 * 1024 * 1024


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_20_mib_is_413(gateway: LiveGateway, chunked: bool) -> None:
    body = b" " * (LIMIT + 1024 * 1024)
    content: Any = iter([body[:LIMIT], body[LIMIT:]]) if chunked else body
    with gateway.client() as client:
        response = client.post(PATH, content=content, headers=JSON)
    assert error_of(response) == (413, "request_too_large", None)


def test_valid_body_followed_by_20_mib_is_not_truncated(gateway: LiveGateway) -> None:
    valid = b'{"messages":[{"role":"user","content":"hi"}]}'
    with gateway.client() as client:
        response = client.post(PATH, content=iter([valid, b" " * LIMIT, b"rubbish"]), headers=JSON)
    assert response.status_code == 413


def test_body_of_nearly_20_mib_is_read(client: httpx.Client) -> None:
    text = "word " * (LIMIT // 5 - 100)
    assert text_of(ask(client, text, headers={"x-openclaw-model": "scripted/count-1"})).strip() == "1"


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ([], "invalid_value", "messages"),
        ("hi", "invalid_type", "messages"),
        ([{"role": "system", "content": " "}], "missing_required_parameter", "messages"),
        ([{"role": "system", "content": "x"}, user("  ")], "missing_required_parameter", "messages"),
        ([user("  ")], "missing_required_parameter", "messages"),
        ([{"role": "assistant", "content": "x"}], "missing_required_parameter", "messages"),
        ([{"role": "robot", "content": "x"}], "invalid_value", "messages[0].role"),
        ([{"content": "x"}], "missing_required_parameter", "messages[0].role"),
        ([user("x"), user(7)], "invalid_type", "messages[1].content"),
        ([user([])], "invalid_value", "messages[0].content"),
        ([user([{"type": "text"}])], "missing_required_parameter", "messages[0].content[0].text"),
        ([user([{"type": "input_audio", "input_audio": {}}])], "unsupported_parameter", "messages[0].content[0].type"),
        ([user("x"), {"role": "tool", "content": "1"}], "missing_required_parameter", "messages[1].tool_call_id"),
        ([user("x"), {"role": "tool", "content": "1", "tool_call_id": "c"}], "invalid_value", "messages[1]"),
        ([user("x"), {"role": "function", "content": "1", "name": "f"}], "invalid_value", "messages[1]"),
        (
            [user("x"), {"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}],
            "unsupported_parameter",
            "messages[1].tool_calls[0].type",
        ),
        (
            [user("x"), {"role": "assistant", "tool_calls": [CALL]}, {**SHOWING, "role": "tool", "tool_call_id": "c"}],
            "unsupported_parameter",
            "messages[2].content[1].type",
        ),
    ],
)
def test_invalid_message_is_refused_with_its_location(
    client: httpx.Client, messages: Any, code: str, param: str
) -> None:
    assert error_of(client.post(PATH, json={"messages": messages})) == (400, code, param)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/cat.png",
        "data:image/png;base64,",
        "data:image/png;base64,####",
        "data:image/png;base64,aGVsbG8gd29ybGQ=",
        "data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=",
        "data:text/plain,hello",
        "DATA:text/plain;base64,aGVsbG8gd29ybGQ=",
        "PNG",
        PNG[:-1],
        "file:///etc/passwd",
    ],
)
def test_invalid_image_data_is_refused(client: httpx.Client, url: str) -> None:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    param = "messages[0].content[1].image_url.url"
    assert error_of(ask(client, user(parts))) == (400, "invalid_value", param)


def test_picture_is_accepted_whatever_its_media_type(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PNG.replace("png", "jpeg")}}]
    assert text_of(ask(client, user(parts))) == "look"


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("temperature", [0, 2, 1.5, None], [-0.1, 2.1, "1", True]),
        ("top_p", [0, 1, None], [-0.1, 1.1, []]),
        ("frequency_penalty", [-2, 2, None], [-2.1, 2.1]),
        ("presence_penalty", [-2, 2, None], [-2.1, 2.1]),
        ("seed", [-(2**63), 2**63 - 1, 7.0, None], [2**63, -(2**63) - 1, 1.5, "1"]),
        ("max_tokens", [1, 0, -1, 2**31 - 1, None], [-2, 2**31, 1.5]),
        ("max_completion_tokens", [1, 0, -1, 2**31 - 1, None], [-2, 2**31]),
        ("stop", ["x", ["a", "b", "c", "d"], [], None], [["a"] * 5, 1, [1]]),
        ("logit_bias", [{"50256": -100}, {"1": 100}, None], [{"1": 101}, {"1": -101}, {"1": 0.5}, []]),
        ("reasoning_effort", ["none", "max", None], ["huge", 1]),
        ("verbosity", ["low", "high", None], ["loud"]),
        ("n", [1, None], [0, 2, 1.5]),
        ("logprobs", [False, None], [True, 0]),
        ("top_logprobs", [0, None], [1, 20]),
        ("modalities", [["text"], None], [["audio"], ["text", "audio"]]),
        ("audio", [None], [{"voice": "alloy", "format": "wav"}]),
        ("web_search_options", [None], [{}]),
        ("prediction", [{"type": "content", "content": "x"}, None], ["x"]),
        ("moderation", [{"model": "omni-moderation-latest"}, None], [True]),
        ("store", [True, False, None], ["yes"]),
        ("service_tier", ["auto", "priority", "flex", "", None], [1]),
        ("functions", [None], [[{"name": "f"}]]),
        ("function_call", [None, "auto", "none"], [{"name": "f"}, "required"]),
        ("stream", [False, None], ["yes", 1]),
        ("stream_options", [None, {}, {"include_usage": None, "include_obfuscation": True}], [{"include_usage": 1}]),
        ("user", ["anna", "", None], ["a\x00b", "x" * 129, 7]),
        ("metadata", [None, {}, {"a": "b"}], [{"a": 1}, {"a": "x" * 513}, {str(key): "" for key in range(17)}]),
        (
            "tools",
            [[], [TOOL], [NULL_TOOL], None],
            [[{"type": "custom"}], [{"type": "function", "function": {"name": "a b"}}]],
        ),
        ("tool_choice", ["none", "auto", None], ["required", "maybe", {"type": "function", "function": {"name": "f"}}]),
        ("parallel_tool_calls", [True, None], ["yes"]),
        (
            "response_format",
            [{"type": "text"}, {"type": "json_object"}, NULL_FORMAT, None],
            [{"type": "xml"}, {"type": "json_schema"}, {}],
        ),
        ("model", ["openclaw", "", None], [7, "x" * 257]),
        ("x_unknown", [1, None, {"a": []}], []),
    ],
)
def test_every_field_is_validated_at_its_bounds(
    client: httpx.Client, field: str, right: list[Any], wrong: list[Any]
) -> None:
    for value in right:
        assert ask(client, "hi", **{field: value}).status_code == 200, value
    for value in wrong:
        status, code, param = error_of(ask(client, "hi", **{field: value}))
        assert status == 400, value
        assert code in ("invalid_value", "invalid_type", "unsupported_parameter", "missing_required_parameter")
        assert param is not None
        assert param.startswith(field)


def test_unsupported_fields_are_refused_by_name(client: httpx.Client) -> None:
    for field, value in {
        "n": 2,
        "logprobs": True,
        "web_search_options": {},
        "audio": {},
        "functions": [{"name": "f"}],
    }.items():
        assert error_of(ask(client, "hi", **{field: value})) == (400, "unsupported_parameter", field)


def test_error_names_the_page_that_explains_it(client: httpx.Client) -> None:
    link = ask(client, "hi", n=2).headers["Link"]
    assert link == '</docs/errors/unsupported_parameter>; rel="describedby"'
    page = httpx.get(client.base_url.join(link[1 : link.index(">")]))  # without a token
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h2>What to do</h2>" in page.text
    assert error_of(client.get("/docs/errors/none"))[:2] == (404, "not_found")


def test_two_tools_with_one_name_are_refused(client: httpx.Client) -> None:
    assert error_of(ask(client, "hi", tools=[TOOL, TOOL])) == (400, "invalid_value", "tools[1].function.name")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-request-id", "a b"),
        ("x-request-id", "x" * 129),
        ("x-openclaw-agent-id", "not an id"),
        ("x-openclaw-model", "/no-provider"),
        ("x-openclaw-message-channel", "a b"),
        ("x-openclaw-task", "a b"),
        ("x-openclaw-session-key", "x" * 2049),
        ("x-openclaw-session-key", "x" * 2048),  # longer with the agent's prefix
        ("x-openclaw-session-key", "Nguyễn"),
    ],
)
def test_invalid_headers_are_refused(client: httpx.Client, name: str, value: str) -> None:
    response = ask(client, "hi", headers={name: value.encode()})
    assert error_of(response) == (400, "invalid_value", name)


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        "/v1/models",
        "/v1/models/openclaw",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/openapi.yaml",
        "/docs",
        "/health",
        "/v1/health",
        "/ready",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"])
def test_wrong_method_is_405_on_every_path(gateway: LiveGateway, path: str, method: str) -> None:
    right = ["POST"] if path == PATH else ["GET", "HEAD"]
    if method in right:
        return
    with gateway.client(token=None) as client:
        response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == ", ".join(right)


@pytest.mark.parametrize(
    "path", ["//", "///", "/v1", "/v1/chat/completions/", "//healthz", "/docs/", "/docs/x", "/%00", "/v1/models/"]
)
def test_unknown_path_is_404_with_envelope(gateway: LiveGateway, path: str) -> None:
    with gateway.client() as client:
        request = client.build_request("GET", gateway.url)
        request.url = httpx.URL(gateway.url, raw_path=path.encode())
        assert error_of(client.send(request)) == (404, "not_found", None)


@pytest.mark.parametrize("path", ["/", "/ui/app.js"])
def test_page_is_off_unless_it_is_switched_on(gateway: LiveGateway, path: str) -> None:
    with gateway.client(token=None) as client:
        refused = client.get(path)
    assert error_of(refused)[:2] == (404, "endpoint_disabled")
    assert "gateway.controlUi.enabled" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("/v1/chat/completions/", "Use /v1/chat/completions."),
        ("/chat/completions", "Use /v1/chat/completions."),
        ("/v1/v1/chat/completions", "Use /v1/chat/completions."),
        ("/api/v1/models", "Use /v1/models."),
        ("/v1//models/openclaw/", "Use /v1/models/openclaw."),
        ("/models/", "Use /v1/models."),
        ("/v1/healthz", "Use /healthz."),
        ("/docs/", "Use /docs."),
        ("//healthz", "Use /healthz."),
        ("/v1/completions", "OpenAI's /v1/completions is not offered. Use /v1/chat/completions."),
        ("/v1/audio/speech", "OpenAI's /v1/audio is not offered. Send such requests to a model provider."),
        (
            "/v1/conversations",
            "OpenAI's /v1/conversations is not offered. Name a session in `conversation` of POST /v1/responses.",
        ),
        ("/v1/responses/x/y", "See /openapi.json for the paths of this gateway."),
        ("/moderations", "OpenAI's /v1/moderations is not offered. Send such requests to a model provider."),
        ("/docs/errors/", "See /openapi.json for the paths of this gateway."),
        (f"/v1/sessions/{'x' * 5000}", "See /openapi.json for the paths of this gateway."),
        ("/docs/x", "See /openapi.json for the paths of this gateway."),
        ("/nowhere", "See /openapi.json for the paths of this gateway."),
    ],
)
def test_unknown_path_is_answered_with_suggestion(gateway: LiveGateway, path: str, suggestion: str) -> None:
    with gateway.client() as client:
        request = client.build_request("GET", gateway.url)
        request.url = httpx.URL(gateway.url, raw_path=path.encode())
        assert client.send(request).json()["error"]["message"] == f"Unknown path. {suggestion}"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_credentials"),
        ("", "missing_credentials"),
        ("Basic YTpi", "missing_credentials"),
        (f"Bearer {TOKEN}x", "invalid_api_key"),
        ("Bearer ü", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", [PATH, "/v1/models", "/v1/models/openclaw"])
def test_missing_and_wrong_credentials_are_401(gateway: LiveGateway, path: str, header: str | None, code: str) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    with gateway.client(token=None) as client:
        method = "POST" if path == PATH else "GET"
        response = client.request(method, path, headers=headers)  # type: ignore[arg-type]  # httpx takes bytes
    assert error_of(response)[:2] == (401, code)


@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER   {TOKEN}"])
def test_bearer_scheme_ignores_case_and_spaces(gateway: LiveGateway, header: str) -> None:
    with gateway.client(token=None) as client:
        assert client.get("/v1/models", headers={"Authorization": header}).status_code == 200


def test_invalid_request_id_is_replaced_on_other_paths(gateway: LiveGateway) -> None:
    with gateway.client(token=None) as client:
        for path in ("/nowhere", "/v1/models"):
            assert client.get(path, headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_log_has_no_traceback_and_no_token(gateway: LiveGateway) -> None:
    assert "Traceback" not in gateway.output
    assert TOKEN not in gateway.output
