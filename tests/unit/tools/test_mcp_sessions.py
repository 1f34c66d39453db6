"""MCP servers over HTTP that forget their sessions or send invalid Unicode, against a raw HTTP server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from mcp import types
from support.polling import until

from service.core import concurrency
from service.tools.mcp.server import McpEndpoint, McpServer
from service.tools.mcp.transport import HttpErrors
from service.tools.tool import ToolError

JSON, TEXT = "application/json", "text/plain; charset=utf-8"


def rpc_error(code: int, message: str, number: Any = None) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}).encode()


Refusal = tuple[int, str, bytes]
EMPTY: Refusal = (404, "", b"")
FORGOTTEN: list[Refusal] = [
    EMPTY,
    (404, JSON, rpc_error(-32600, "Session not found", "server-error")),
    (404, JSON, rpc_error(-32001, "Session not found")),
    (404, JSON, rpc_error(-32000, "gone", 3)),
    (404, JSON, b'{"error": "Session not found"}'),
    (404, JSON, b"{not json"),
    (404, TEXT, b"gone"),
    (404, "text/event-stream", b""),
    (400, JSON, rpc_error(-32000, "Bad Request: No valid session ID provided")),
    (400, JSON, rpc_error(-32000, "Bad Request: Server not initialized")),
    (400, TEXT, b"Invalid session ID"),
    (400, TEXT, b"session terminated"),
]
#: Answers to the request itself.
REFUSED: list[Refusal] = [
    (404, JSON, rpc_error(-32601, "Method not found: tools/call")),
    (404, JSON, rpc_error(-32602, "Unknown tool: where")),
    (400, JSON, rpc_error(-32602, "Invalid params: session is not found in the arguments")),
    (400, JSON, rpc_error(-32600, "Unsupported protocol version")),
    (400, TEXT, b"bad request"),
    (401, JSON, rpc_error(-32001, "Session not found")),
    (500, JSON, rpc_error(-32603, "Session not found")),
]


class ForgetfulServer(ThreadingHTTPServer):
    """An MCP server with sessions: it refuses those in `forgotten`, and every call with `is_forgetting`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.sessions = 0
        self.forgotten: set[str] = set()
        self.is_forgetting = False
        self.calls: list[int] = []
        self.text = ""
        self.refusal = EMPTY
        self.awaited = 0  # calls, before the first of them is refused
        self.seconds = 0.0  # between refusals
        self.forgets_after_call = False

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
            place = len(self.server.calls)
            until(lambda: len(self.server.calls) >= self.server.awaited)
            time.sleep(self.server.seconds * place)
            self.status(*self.server.refusal)
        elif "id" not in message:
            self.status(202)
        elif is_call:
            if self.server.forgets_after_call:
                self.server.forget()
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

    def status(self, status: int, label: str = "", body: bytes = b"") -> None:
        self.send_response(status)
        if label:
            self.send_header("Content-Type", label)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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


@pytest.mark.parametrize("refusal", [EMPTY, FORGOTTEN[1], FORGOTTEN[-2]])
def test_call_is_repeated_once_in_new_session_after_server_forgot_the_old_one(
    web: ForgetfulServer, server: McpServer, refusal: Refusal
) -> None:
    web.refusal = refusal
    assert server.call_tool("where", {}) == "in session-1"
    web.forget()
    assert server.call_tool("where", {}) == f"in session-{web.sessions}"
    assert web.calls == [200, 404, 200]
    assert server.state == "connected"


@pytest.mark.parametrize(
    ("refusal", "is_lost"), [*((refusal, True) for refusal in FORGOTTEN), *((refusal, False) for refusal in REFUSED)]
)
def test_lost_sessions_are_distinguished_from_refused_requests(refusal: Refusal, is_lost: bool) -> None:
    async def record(headers: dict[str, str]) -> bool:
        status, label, body = refusal
        call = {"id": 7, "method": "tools/call"}
        request = httpx.Request("POST", "http://127.0.0.1/mcp", json=call, headers=headers)
        errors = HttpErrors()
        await errors.record(httpx.Response(status, headers={"content-type": label}, content=body, request=request))
        errors.annotate(types.JSONRPCError(jsonrpc="2.0", id=7, error=types.ErrorData(code=-32603, message="error")))
        return errors.session_lost

    assert asyncio.run(record({"Mcp-Session-Id": "a"})) is is_lost
    assert not asyncio.run(record({}))  # it had no session


def test_call_that_is_refused_for_other_reasons_is_not_repeated(web: ForgetfulServer, server: McpServer) -> None:
    server.call_tool("where", {})
    web.refusal, web.is_forgetting = REFUSED[0], True
    with pytest.raises(ToolError):
        server.call_tool("where", {})
    web.is_forgetting = False
    assert server.call_tool("where", {}) == "in session-1"
    assert web.calls == [200, 404, 200]


def test_all_calls_of_a_forgotten_session_are_repeated(web: ForgetfulServer, server: McpServer) -> None:
    server.call_tool("where", {})
    web.forget()
    web.awaited, web.seconds = 4, 0.1
    found: list[str] = []
    callers = [concurrency.spawn(lambda: found.append(server.call_tool("where", {}))) for _ in range(3)]
    for caller in callers:
        caller.join()
    assert found == [f"in session-{web.sessions}"] * 3
    assert web.calls == [200, 404, 404, 404, 200, 200, 200]


def test_call_that_was_processed_is_not_repeated(web: ForgetfulServer, server: McpServer) -> None:
    web.forgets_after_call = True
    assert server.call_tool("where", {}) == "in session-1"
    assert server.call_tool("where", {}) == "in session-2"
    assert web.calls == [200, 404, 200]
    web.forgets_after_call = False
    server.call_tool("where", {})
    web.forgets_after_call = True
    web.calls.clear()
    with pytest.raises(ToolError):
        server.call_tool("hidden", {})  # the SDK lists the tools after the call of an unknown one
    assert web.calls == [200]


def test_call_that_is_forgotten_again_fails(web: ForgetfulServer, server: McpServer) -> None:
    server.call_tool("where", {})
    web.is_forgetting = True
    with pytest.raises(ToolError):
        server.call_tool("where", {})
    assert web.calls == [200, 404, 404]


def test_lone_surrogates_of_result_are_replaced(web: ForgetfulServer, server: McpServer) -> None:
    web.text = "a\ud83d b \ud83d\ude00"
    assert server.call_tool("where", {}) == "a\ufffd b \U0001f600"


def test_server_that_has_not_answered_yet_is_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = McpServer(McpEndpoint("silent", url=f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"))
        states: list[str] = [server.state]
        with pytest.raises(ToolError, match=r"did not list its tools within 0\.1 s"):
            server.list_tools(0.1)
        states.append(server.state)
        server.close()
        assert [*states, server.state] == ["idle", "connecting", "idle"]
