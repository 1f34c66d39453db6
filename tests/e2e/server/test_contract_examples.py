"""The contract's examples against a live gateway: each answer is really returned, each request accepted."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import orjson
import pytest
import yaml
from support.conformance import Conformance
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.polling import until

from service.api.http.contract import load_contract
from service.core.errors import KINDS

CONTRACT = load_contract()
CHAT = "/v1/chat/completions"
ERRORS = {
    code: example["value"]["error"]
    for response in CONTRACT["components"]["responses"].values()
    for code, example in response.get("content", {}).get("application/json", {}).get("examples", {}).items()
}
REQUESTS = [
    pytest.param(path, example["value"], id=f"{path} {name}")
    for path, item in CONTRACT["paths"].items()
    for name, example in item.get("post", {})
    .get("requestBody", {"content": {}})["content"]
    .get("application/json", {})
    .get("examples", {})
    .items()
    if "{" not in path
]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway with every endpoint whose models are asked once."""
    config = scripted_config()
    config["models"]["retry"] = {"attempts": 1}
    config["gateway"]["controlUi"] = {"enabled": True}
    config["gateway"]["http"]["endpoints"] |= {name: {"enabled": True} for name in ("embeddings", "tools", "metrics")}
    workspace = tmp_path_factory.mktemp("workspace")
    config["agents"]["list"][0] |= {"workspace": str(workspace), "tools": {"profile": "full"}}
    config["agents"]["list"].append({"id": "asker", "tools": {"approvals": {"*": "ask"}}})
    config["embeddings"] = {"model": "scripted/echo"}
    with live_gateway(tmp_path_factory.mktemp("scripted"), config) as running:
        yield running


#: What asks a model, with a body that it takes.
ASKING: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/v1/embeddings": {"model": "openclaw", "input": "hi"},
}
#: Where the examples have none.
PARAMS = {"missing_credentials": "authorization", "invalid_api_key": "authorization"}
TO_REPEAT = {"rate_limit_exceeded", "too_many_runs", "too_many_failed_attempts", "overloaded", "too_many_connections"}


def listed_errors(path: str) -> dict[str, int]:
    """The codes that an operation answers with, and their statuses."""
    responses = CONTRACT["paths"][path]["post"]["responses"]
    shared = {status: response["$ref"] for status, response in responses.items() if "$ref" in response}
    return {code: int(status) for status, reference in shared.items() for code in _examples_of(reference)}


def fail(http: httpx.Client, path: str, code: str, **fields: Any) -> httpx.Response:
    return http.post(path, json=ASKING[path] | fields, headers={"x-openclaw-model": f"scripted/fail-{code}"})


@pytest.mark.parametrize(
    ("path", "fields"),
    [(CHAT, {}), (CHAT, {"stream": True}), ("/v1/responses", {}), ("/v1/embeddings", {})],
    ids=["chat", "stream", "responses", "embeddings"],
)
def test_every_error_of_an_operation_is_returned_as_it_is_described(
    scripted: LiveGateway, path: str, fields: dict[str, Any]
) -> None:
    listed, contract = listed_errors(path), Conformance()
    assert len(listed) > 50
    with scripted.client() as http:
        for code, status in listed.items():
            answer, example = fail(http, path, code, **fields), ERRORS[code]
            contract.check(answer)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["type"]) == (status, code, example["type"])
            if path == CHAT:  # whose fields the examples name
                assert error["param"] == PARAMS.get(code, example["param"])
            assert ("retry-after" in answer.headers) is (code in TO_REPEAT)
            assert answer.headers["link"] == f'</docs/errors/{code}>; rel="describedby"'
            assert http.get(f"/docs/errors/{code}").status_code == 200


@pytest.mark.parametrize("path", ASKING)
def test_error_of_other_operations_is_no_model(scripted: LiveGateway, path: str) -> None:
    others = KINDS.keys() - listed_errors(path)
    assert others > {"run_events_gone", "unknown_method"}
    with scripted.client() as http:
        for code in (*others, "nonsense"):
            answer = fail(http, path, code)
            Conformance().check(answer)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "token", "code"),
    [
        ("POST", "", "missing_credentials"),
        ("POST", "Bearer wrong", "invalid_api_key"),
        ("PUT", f"Bearer {TOKEN}", "method_not_allowed"),
    ],
)
def test_model_that_refuses_has_the_headers_of_the_refusal(
    scripted: LiveGateway, method: str, token: str, code: str
) -> None:
    with scripted.client() as http:
        real = http.request(method, CHAT, json=ASKING[CHAT], headers={"Authorization": token})
        played = fail(http, CHAT, code)
    assert real.json()["error"] | {"message": ""} == played.json()["error"] | {"message": ""}
    changing = {"x-request-id", "date", "content-length", "connection"}  # the last as bodies are read or not
    assert {name: value for name, value in real.headers.items() if name not in changing} == {
        name: value for name, value in played.headers.items() if name not in changing
    }


def _examples_of(reference: str) -> Any:
    response = CONTRACT["components"]["responses"][reference.rpartition("/")[2]]
    return response.get("content", {}).get("application/json", {}).get("examples", {})


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_example_of_a_request_is_accepted(scripted: LiveGateway, path: str, body: Any) -> None:
    with scripted.client() as http:
        assert http.post(path, json=body).is_success


def test_every_example_of_a_success_is_returned(scripted: LiveGateway) -> None:
    with scripted.client() as http:
        returned = answers(http)
    examples = {
        (f"{method.upper()} {path}", kind): content["example"]
        for path, item in CONTRACT["paths"].items()
        for method, operation in item.items()
        for status, response in operation["responses"].items()
        if status.startswith("2")
        for kind, content in response.get("content", {}).items()
    }
    assert returned.keys() == examples.keys()
    different = [key for key, example in examples.items() if not is_returned(example, key[1], returned[key])]
    assert not different


def answers(http: httpx.Client) -> dict[tuple[str, str], httpx.Response]:
    """Ask each operation of the contract for each type of success; the answers by operation and type."""
    found: dict[tuple[str, str], httpx.Response] = {}

    def ask(
        label: str, *, headers: Mapping[str, str] | None = None, json: Any = None, query: str = "", **at: str
    ) -> Any:
        method, _, path = label.partition(" ")
        answer = http.request(method, path.format(**at) + query, headers=headers, json=json).raise_for_status()
        kind = answer.headers["content-type"].partition(";")[0]
        found.setdefault((label, kind), answer)
        return answer.json() if kind == "application/json" else answer.text

    hello = {"messages": [{"role": "user", "content": "Hello"}]}
    session = {"x-openclaw-session-key": "notes"}
    ask("POST /v1/chat/completions", json=hello, headers=session)
    ask("POST /v1/chat/completions", json=hello | {"stream": True})
    kept = ask("POST /v1/responses", json={"input": "Hello"})["id"]
    ask("POST /v1/responses", json={"input": "Hello", "stream": True})
    watched = {"input": "Hello", "background": True, "stream": True}
    events = ask("POST /v1/responses", json=watched)
    stored = orjson.loads(events.partition("data: ")[2].partition("\n")[0])["response"]["id"]
    ask("GET /v1/responses/{response_id}", response_id=kept)
    ask("GET /v1/responses/{response_id}", response_id=stored, query="?stream=true")
    ask("GET /v1/responses/{response_id}/input_items", response_id=kept)
    ask("DELETE /v1/responses/{response_id}", response_id=kept)
    stuck = {"x-openclaw-model": "scripted/stuck"}
    lasting = http.post("/v1/responses", json={"input": "Hello", "background": True}, headers=stuck).json()["id"]
    ask("POST /v1/responses/{response_id}/cancel", response_id=lasting)
    ask("POST /v1/embeddings", json={"model": "openclaw", "input": "hi"})
    ask("POST /tools/invoke", json={"tool": "session_status", "args": {}})
    run = ask("POST /v1/runs", json={"input": "Hello", "session_key": "notes", "metadata": {"ticket": "17"}})["id"]
    ask("GET /v1/runs/{run_id}/events", run_id=run)
    ask("GET /v1/runs/{run_id}/chat-stream", run_id=run)
    ask("GET /v1/runs/{run_id}", run_id=run)
    other = http.post("/v1/runs", json={"input": "Hello", "model": "scripted/stuck"}).json()["id"]
    ask("POST /v1/runs/{run_id}/cancel", run_id=other)
    ask("GET /v1/sessions/{key}", key="agent:main:notes")
    fork = ask("POST /v1/sessions/{key}/fork", json={}, key="agent:main:notes")["key"]
    ask("DELETE /v1/sessions/{key}", key=fork)
    asking = {"model": "openclaw/asker", **hello}
    asker = threading.Thread(
        target=http.post, args=(CHAT,), kwargs={"json": asking, "headers": {"x-openclaw-model": "scripted/tools"}}
    )
    asker.start()
    until(lambda: http.get("/v1/approvals").json()["data"])
    approval = ask("GET /v1/approvals")["data"][0]["id"]
    ask("POST /v1/approvals/{approval_id}", json={"decision": "deny"}, approval_id=approval)
    asker.join()
    for path, item in CONTRACT["paths"].items():
        if "get" in item and "{" not in path:
            ask(f"GET {path}")
    ask("GET /metrics", headers={"Accept": "application/openmetrics-text"})
    for path, names in (("/docs/{asset}", ("swagger-ui.css", "start.js")), ("/ui/{asset}", ("style.css", "app.js"))):
        for name in names:
            ask(f"GET {path}", asset=name)
    ask("GET /ui/vendor/{library}", library="lit-html.js")
    ask("GET /v1/models/{model}", model="openclaw")
    ask("GET /docs/errors/{code}", code="invalid_value")
    return found


def is_returned(example: Any, kind: str, answer: httpx.Response) -> bool:
    """Return True if `answer` is what `example` shows, but for what differs from one answer to the next."""
    match kind:
        case "application/json":
            return is_like(example, answer.json(), is_extract="info" in example)
        case "text/yaml":
            return is_like(yaml.safe_load(example), yaml.safe_load(answer.text), is_extract=True)
        case "text/event-stream":
            wanted = example | {"data": orjson.loads(example["data"])}
            return any(is_like(wanted, event) for event in events_of(answer.text))
    # Files and figures are shown in part: each piece must be there.
    pieces = re.split(r"[\d.]+\n|(?<=>)(?=<)|[\n{}]", example)
    return all(compact(piece) in compact(answer.text) for piece in pieces)


def is_like(example: Any, value: Any, *, is_extract: bool = False) -> bool:
    """Compare names and types; null is of any type, and the elements of a list are some of those of `value`.

    An extract has some of the members of its objects.
    """
    if isinstance(example, dict) and isinstance(value, dict):
        names = value.keys() & example.keys() if is_extract else value.keys()
        return names == example.keys() and all(
            is_like(example[name], value[name], is_extract=is_extract) for name in names
        )
    if isinstance(example, list) and isinstance(value, list):
        return all(any(is_like(one, other) for other in value) for one in example)
    return example is None or value is None or type(example) is type(value)


def compact(text: str) -> str:
    return re.sub(r"\s", "", text).lower()


def events_of(text: str) -> list[Any]:
    """Return the events of a stream as the contract shows them, each with its data as a value."""
    blocks = [[line for line in block.splitlines() if not line.startswith(":")] for block in text.split("\n\n")]
    events = [dict(line.split(": ", 1) for line in block) for block in blocks if block]
    return [event | {"data": orjson.loads(event["data"])} for event in events if event["data"] != "[DONE]"]
