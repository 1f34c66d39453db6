"""The traces that the access log of a live gateway names, whatever becomes of a request."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.chat import PATH, ask, error_of, streamed_text, user
from support.collector import Collector, collector
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.upstream import Upstream

SPAN = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    with collector() as made:
        yield made


@pytest.fixture(scope="module")
def gateway(
    module_upstream: Upstream, collected: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("traced")
    config = stubbed_config(module_upstream.url, retry={"attempts": 1})
    config["logging"] = {"format": "json"}
    config["diagnostics"] = {"otel": {"enabled": True, "endpoint": collected.url}}
    config["agents"]["list"] = [{"id": "main", "workspace": str(directory), "tools": {"profile": "full"}}]
    config["gateway"]["http"]["endpoints"] |= {"embeddings": {"enabled": True}, "tools": {"enabled": True}}
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as connected:
        yield connected


@pytest.fixture
def headers() -> dict[str, str]:
    """Headers with an id and a trace of their own."""
    trace = uuid.uuid4().hex
    return {"x-request-id": f"of-{trace}", "traceparent": f"00-{trace}-{SPAN}-01"}


def line_of(gateway: LiveGateway, headers: dict[str, str], logger: str = "access") -> dict[str, Any]:
    """Return the line of the request with these headers, which has to name its trace."""

    def find() -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [orjson.loads(line) for line in gateway.output.splitlines() if line[:1] == "{"]
        found = [one for one in lines if one["logger"] == f"openclaw.{logger}"]
        return [one for one in found if one.get("request_id") == headers["x-request-id"]]

    line: dict[str, Any] = until(find)[0]
    assert line["trace_id"] == headers["traceparent"].split("-")[1]
    return line


@pytest.mark.parametrize("path", [PATH, "/v1/responses"])
def test_failed_request_has_its_trace(
    gateway: LiveGateway, client: httpx.Client, headers: dict[str, str], path: str
) -> None:
    body = {"messages": [user("hi")]} if path == PATH else {"input": "hi"}
    refused = client.post(path, json=body, headers=headers | {"x-openclaw-model": "stub/status-401"})
    assert error_of(refused)[1] == "provider_authentication_failed"
    line = line_of(gateway, headers)
    assert (line["status"], line["error"]) == (502, "provider_authentication_failed")


@pytest.mark.parametrize(("model", "error"), [("ok", None), ("error-event", "provider_error")])
def test_stream_has_its_trace_and_the_error_that_ends_it(
    gateway: LiveGateway, client: httpx.Client, headers: dict[str, str], model: str, error: str | None
) -> None:
    answer = ask(client, "hi", stream=True, headers=headers | {"x-openclaw-model": f"stub/{model}"})
    assert error is not None or streamed_text(answer)
    assert line_of(gateway, headers).get("error") == error


@pytest.mark.parametrize(("stream", "model"), [(True, "hang-midway"), (True, "hang"), (False, "hang")])
def test_request_whose_client_hangs_up_has_its_trace(
    gateway: LiveGateway, upstream: Upstream, headers: dict[str, str], stream: bool, model: str
) -> None:
    all_headers = headers | {
        "Host": "localhost",
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "application/json",
        "x-openclaw-model": f"stub/{model}",
    }
    body = orjson.dumps({"messages": [user("hi")], "stream": stream})
    head = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
    with socket.create_connection(gateway.address, timeout=10) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: upstream.requests)
        received = b""
        while model == "hang-midway" and b"Hello" not in received:
            received += connection.recv(4096)
    assert line_of(gateway, headers)["status"] == (200 if received else 499)
    ended = line_of(gateway, headers, "run")
    assert (ended["outcome"], ended["reason"]) == ("run_aborted", "The run was aborted.")


@pytest.mark.parametrize(("tool", "status"), [("ls", 200), ("nosuchtool", 404)])
def test_call_of_tool_has_its_trace(
    gateway: LiveGateway, client: httpx.Client, headers: dict[str, str], tool: str, status: int
) -> None:
    assert client.post("/tools/invoke", json={"tool": tool}, headers=headers).status_code == status
    assert line_of(gateway, headers)["status"] == status


@pytest.mark.parametrize(
    ("name", "url", "shown"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:Marzipan7731@{address}/", "http://{address}/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://{address}/t?key=Marzipan7731", "http://{address}/t"),
    ],
)
def test_log_says_where_collector_is_missing_and_why(
    module_upstream: Upstream, tmp_path: Path, name: str, url: str, shown: str
) -> None:
    config = stubbed_config(module_upstream.url)
    config["diagnostics"] = {"otel": {"enabled": True}}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        env = {
            name: url.format(address=address),
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        }
        with live_gateway(tmp_path, config, env=env) as gateway, gateway.client() as client:
            ask(client, "hi")
            until(lambda: "Traces cannot be sent" in gateway.output)
            [line] = [one for one in gateway.output.splitlines() if "Traces cannot be sent" in one]
    assert f"to {shown.format(address=address)}, and are lost: " in line
    assert "Connection refused" in line
    assert "diagnostics.otel.endpoint" in line
    assert "Marzipan7731" not in line


@pytest.mark.parametrize("status", [200, 401])
@pytest.mark.parametrize("is_kept", [False, True])
def test_request_for_embeddings_has_its_trace(
    gateway: LiveGateway,
    client: httpx.Client,
    upstream: Upstream,
    headers: dict[str, str],
    status: int,
    is_kept: bool,
) -> None:
    upstream.answers["vectors"] = lambda exchange: exchange.json(status, {"data": [{"embedding": [1]}]})
    names = headers | {"x-openclaw-model": "stub/vectors"}
    if is_kept:
        names["Idempotency-Key"] = uuid.uuid4().hex
    answer = client.post("/v1/embeddings", json={"input": "hi"}, headers=names)
    assert answer.status_code == (200 if status == 200 else 502)
    assert line_of(gateway, headers)["status"] == answer.status_code
