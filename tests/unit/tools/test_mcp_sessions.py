"""MCP servers over HTTP that forget their sessions or send invalid Unicode, against a raw HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service.tools.mcp.server import McpEndpoint, McpServer
from service.tools.tool import ToolError


class ForgetfulServer(ThreadingHTTPServer):
    """An MCP server with sessions: it answers 404 to those in `forgotten`, and to every call with `is_forgetting`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.sessions = 0
        self.forgotten: set[str] = set()
        self.is_forgetting = False
        self.calls: list[int] = []
        self.text = ""

    def forget(self) -> None:
        self.forgotten = {f"session-{number}" for number in range(1, self.sessions + 1)}


class _Exchange(BaseHTTPRequestHandler):
    server: ForgetfulServer

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, session = message["method"], self.headers.get("mcp-session-id")
        if method == "initialize":
            self.server.sessions += 1
            info = {"name": "forgetful", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
            self.reply(message, result, ("mcp-session-id", f"session-{self.server.sessions}"))
            return
        is_call = method == "tools/call"
        if session is None:
            self.status(400)
            return
        is_forgotten = session in self.server.forgotten or (self.server.is_forgetting and is_call)
        if is_call:
            self.server.calls.append(404 if is_forgotten else 200)
        if is_forgotten:
            self.status(404)
        elif "id" not in message:
            self.status(202)
        elif is_call:
            self.reply(message, {"content": [{"type": "text", "text": self.server.text or f"in {session}"}]})
        else:
            self.reply(message, {"tools": [{"name": "where", "inputSchema": {"type": "object"}}]})

    def do_GET(self) -> None:
        self.status(405)

    def do_DELETE(self) -> None:
        self.status(405)

    def reply(self, message: Any, result: Any, *headers: tuple[str, str]) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        self.send_response(200)
        for name, value in (*headers, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def status(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[ForgetfulServer]:
    with ForgetfulServer() as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web
        web.shutdown()


@pytest.fixture
def server(web: ForgetfulServer) -> Iterator[McpServer]:
    opened = McpServer(McpEndpoint("web", url=f"http://127.0.0.1:{web.server_port}/mcp"))
    yield opened
    opened.close()


def test_call_is_repeated_once_in_new_session_after_server_forgot_the_old_one(
    web: ForgetfulServer, server: McpServer
) -> None:
    assert server.call_tool("where", {}) == "in session-1"
    web.forget()
    assert server.call_tool("where", {}) == f"in session-{web.sessions}"
    assert web.calls == [200, 404, 200]
    assert server.state == "connected"


def test_call_that_is_forgotten_again_fails(web: ForgetfulServer, server: McpServer) -> None:
    server.call_tool("where", {})
    web.is_forgetting = True
    with pytest.raises(ToolError):
        server.call_tool("where", {})
    assert web.calls == [200, 404, 404]


def test_lone_surrogates_of_result_are_replaced(web: ForgetfulServer, server: McpServer) -> None:
    web.text = "a\ud83d b \ud83d\ude00"
    assert server.call_tool("where", {}) == "a\ufffd b \U0001f600"
