"""An MCP server made with the SDK, with working and failing tools: `python mcp_servers.py [PORT]`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, TextContent, ToolAnnotations

server = MCPServer("test")


def write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="ascii")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("the disk is full")


@server.tool()
def crash() -> str:
    """Die."""
    os._exit(3)


@server.tool()
async def hang(touch: str) -> str:
    """Wait for ever; the file `touch` appears when the wait begins and grows when it is called off."""
    write(touch, "begun")
    try:
        await asyncio.sleep(3600)
    finally:
        write(touch, "begun and called off")
    return ""


@server.tool()
def block() -> str:
    """Stop the whole server from answering anything."""
    time.sleep(3600)
    return ""


@server.tool()
def big(characters: int) -> str:
    """A long answer."""
    return "x" * characters


@server.tool()
def endless() -> str:
    """A line that does not end."""
    while True:
        os.write(1, b"x" * 1_000_000)


@server.tool()
def noisy() -> str:
    """Print what is no JSON before the answer."""
    os.write(1, b'garbage\n{"half": \n\xff\xfe\n[]\n')
    return "still here"


@server.tool()
def environment(name: str) -> str:
    """Return the value of an environment variable."""
    return os.environ.get(name, "(unset)")


@server.tool()
def attempt(action: str, target: str) -> str:
    """Read or write a file, or connect to a port."""
    try:
        if action == "read":
            return Path(target).read_text(encoding="utf-8")
        if action == "write":
            write(target, "written")
        else:
            socket.create_connection(("127.0.0.1", int(target)), timeout=5).close()
    except OSError as error:
        return f"refused: {error.strerror}"
    return "done"


@server.tool()
def trace(ctx: Context[Any, Any]) -> str:
    """Return the trace context of the message, and that of the HTTP request."""
    meta: Any = ctx.request_context.meta or {}
    return f"{meta.get('traceparent')} {(ctx.headers or {}).get('traceparent')}"


@server.tool()
def process() -> str:
    """The process id."""
    return str(os.getpid())


@server.tool()
def parts() -> Sequence[Any]:
    """Text and a picture."""
    return [TextContent(text="before"), ImageContent(data="AAAA", mime_type="image/png"), TextContent(text="after")]


@server.tool()
async def grow(ctx: Context[Any, Any]) -> str:
    """Add a tool."""
    server.add_tool(lambda: "new", name="grown", description="Was added.")
    await ctx.notify_tools_changed()
    await ctx.request_context.session.send_tool_list_changed()
    return "grown"


def main() -> None:
    """Serve over HTTP on the port that is given, else over the standard streams."""
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()


if __name__ == "__main__":
    main()
