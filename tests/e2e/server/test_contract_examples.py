"""The contract's examples against a live gateway: each error is really returned, each request accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config

from service.api.http.contract import load_contract

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
    config["gateway"]["http"]["endpoints"] |= {name: {"enabled": True} for name in ("embeddings", "tools")}
    config["embeddings"] = {"model": "scripted/echo"}
    with live_gateway(tmp_path_factory.mktemp("scripted"), config) as running:
        yield running


def test_every_example_of_an_error_is_returned_with_a_link_to_its_page(scripted: LiveGateway) -> None:
    statuses = {
        code: int(status)
        for item in CONTRACT["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if "$ref" in response
        for code in _examples_of(response["$ref"])
    }
    assert len(ERRORS) > 50
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=scripted.url, headers=headers, timeout=30) as http:
        for code, example in ERRORS.items():
            failing = {"x-openclaw-model": f"scripted/fail-{code}"}
            answer = http.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]}, headers=failing)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["type"]) == (statuses[code], code, example["type"])
            assert error.keys() == example.keys()
            assert answer.headers["link"] == f'</docs/errors/{code}>; rel="describedby"'
            assert http.get(f"/docs/errors/{code}").status_code == 200


def _examples_of(reference: str) -> Any:
    response = CONTRACT["components"]["responses"][reference.rpartition("/")[2]]
    return response.get("content", {}).get("application/json", {}).get("examples", {})


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_example_of_a_request_is_accepted(scripted: LiveGateway, path: str, body: Any) -> None:
    with scripted.client() as http:
        assert http.post(path, json=body).is_success
