"""MCP servers over streamable HTTP: size limits and HTTP errors."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import support
from mcp import types
from support.polling import until
from support.processes import started

from service.core.work_context import WorkContext, current_work
from service.tools.mcp.server import McpEndpoint, McpServer
from service.tools.mcp.transport import HttpErrors
from service.tools.tool import ToolError

SERVER = str(Path(support.__file__).with_name("mcp_servers.py"))


def _works(server: McpServer) -> bool:
    try:
        return server.call_tool("add", {"a": 1, "b": 1}) == "2"
    except ToolError:
        return False


@contextmanager
def refusing_server(status: int, *headers: tuple[str, str]) -> Iterator[str]:
    """The URL of a web server that answers every request with `status`."""

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", "2")):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/mcp"
        web.shutdown()


def test_streamable_http_works_and_survives_restart_of_server() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp?key=a-secret-key"
    server = McpServer(McpEndpoint("web", url=url, headers={"Authorization": "Bearer a-secret-token"}))
    with pytest.raises(ToolError) as caught:
        server.list_tools()
    assert "a-secret" not in str(caught.value)
    for _ in range(2):
        with started([sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL) as web:
            until(lambda: _works(server))
            assert "add" in {tool.name for tool in server.list_tools()}
            parent = f"00-{'a' * 32}-{'b' * 16}-01"
            token = current_work.set(WorkContext(trace_headers={"traceparent": parent}))
            assert server.call_tool("trace", {}) == f"{parent} {parent}"
            current_work.reset(token)
            assert server.call_tool("big", {"characters": 3_000_000}).endswith("[2800000 more characters omitted]")
            web.kill()
    server.close()


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (401, [("Content-Type", "application/json"), ("WWW-Authenticate", "Bearer")], "HTTP 401 Unauthorized"),
        (404, [("Content-Type", "text/html; charset=utf-8")], "HTTP 404 Not Found, text/html"),
        (503, [], "HTTP 503 Service Unavailable"),
        (302, [("Location", "http://127.0.0.1:1/elsewhere")], r"elsewhere not followed.* \(HTTP 302 Found\)"),
        (200, [("Content-Type", "text/html")], "Unexpected content type: text/html"),
    ],
)
def test_http_error_is_reported_with_status(
    status: int, headers: list[tuple[str, str]], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with refusing_server(status, *headers) as url:
        server = McpServer(McpEndpoint("web", url=url))
        with pytest.raises(ToolError, match=told):
            server.list_tools()
        server.close()
    assert re.search(told, caplog.text)


def test_unclaimed_http_errors_are_bounded() -> None:
    async def refuse_all(refusals: HttpErrors) -> None:
        for number in range(1_000):
            request = httpx.Request("POST", "http://127.0.0.1/mcp", json={"id": number})
            await refusals.record(httpx.Response(503, request=request))

    def explained(number: int) -> str:
        error = types.ErrorData(code=-32603, message="error response")
        refusals.annotate(types.JSONRPCError(jsonrpc="2.0", id=number, error=error))
        return error.message

    refusals = HttpErrors()
    asyncio.run(refuse_all(refusals))
    assert explained(0) == "error response"
    assert explained(999) == "error response (HTTP 503 Service Unavailable)"
