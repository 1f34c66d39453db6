"""The SDK's ways to an MCP server, mended where one fault of a server would cost more than it has to."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

_LAUNCHER = Path(__file__).parents[1] / "providers" / "die_with_parent.py"


def open_transport(order: dict[str, Any]) -> Any:
    """The SDK's way to the server of `order`, not entered yet. Raises `FileNotFoundError` for a missing command."""
    if order.get("url"):
        # Imported here, as all of the SDK: that it is missing has to be told, not crashed with.
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415
        from mcp.shared._httpx_utils import create_mcp_http_client  # noqa: PLC0415

        return streamable_http_client(order["url"], http_client=create_mcp_http_client(headers=order["headers"]))
    from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: PLC0415

    path = shutil.which(order["command"], path=order["env"].get("PATH"))
    if path is None:
        raise FileNotFoundError(f"its command {order['command']} is not an executable file")
    # The SDK gives the server a session of its own, so it is tied to this process by the kernel.
    args = ["-I", "-S", str(_LAUNCHER), "--tell", str(os.getpid()), path, *order["args"]]
    server = StdioServerParameters(command=sys.executable, args=args, env=order["env"], cwd=order["cwd"])
    return stdio_client(server, errlog=sys.stderr)


class _Lenient:
    """A stream of the server's messages, its listings mended: one bad tool must not cost all the others."""

    def __init__(self, stream: Any, ended: asyncio.Event) -> None:
        self._stream = stream
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> Any:
        self._ended.set()  # it is left as soon as nothing comes any more
        return await self._stream.__aexit__(*exc_info)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await self._stream.__anext__()
        result = getattr(getattr(item, "message", None), "result", None)
        if isinstance(result, dict) and isinstance(result.get("tools"), list):
            result["tools"] = [tool for tool in result["tools"] if _mend_tool(tool)]
        return item


def _mend_tool(tool: Any) -> bool:
    """Give a schema without a type that of an object; returns whether the tool can be used."""
    schema = tool.get("inputSchema") if isinstance(tool, dict) else None
    if isinstance(schema, dict) and schema.setdefault("type", "object") == "object":
        return True
    name = tool.get("name") if isinstance(tool, dict) else None
    logging.getLogger(__name__).warning("the tool %r is left out: its arguments are not an object", name)
    return False


@asynccontextmanager
async def open_lenient(order: dict[str, Any], ended: asyncio.Event) -> AsyncIterator[tuple[Any, Any]]:
    """Both streams to the server of `order`; `ended` is set as soon as nothing comes any more."""
    async with open_transport(order) as (read_stream, write_stream):
        yield _Lenient(read_stream, ended), write_stream
