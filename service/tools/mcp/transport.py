"""The SDK's ways to an MCP server, mended where one fault of a server would cost more than it has to."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

#: One message of a server over HTTP; this process's memory may end sooner, which alone bounds one on standard output.
MAX_EVENT_BYTES = 64 * 1024 * 1024

_MAX_KIND_CHARS = 80
_MAX_REFUSALS = 256
_LAUNCHER = Path(__file__).parents[2] / "core" / "processes" / "launcher.py"


class HttpRefusals:
    """What HTTP said of the requests it refused, which the SDK tells as an "error response" without more."""

    def __init__(self) -> None:
        self._words: dict[Any, str] = {}

    async def note(self, response: Any) -> None:
        """Remember why, if `response` is no success; a hook of the SDK's HTTP client."""
        if response.is_success or response.request.method != "POST":
            return
        kind = response.headers.get("content-type", "")[:_MAX_KIND_CHARS]
        words = f"HTTP {response.status_code} {response.reason_phrase}".strip()
        with suppress(ValueError, AttributeError):  # what carries no question is not waited for
            self._words[json.loads(response.request.content).get("id")] = f"{words}, {kind}" if kind else words
        if len(self._words) > _MAX_REFUSALS:
            del self._words[next(iter(self._words))]  # nobody has asked for the oldest

    def explain(self, message: Any) -> None:
        """Add to `message`, if it is an error that answers one of those requests, what HTTP said."""
        error = getattr(message, "error", None)
        if error is not None and (words := self._words.pop(message.id, "")):
            error.message = f"{error.message} ({words})"


def open_transport(order: dict[str, Any], refusals: HttpRefusals) -> Any:
    """The SDK's way to the server of `order`, not entered yet. Raises `FileNotFoundError` for a missing command."""
    if order.get("url"):
        # Imported here, as all of the SDK: that it is missing has to be told, not crashed with.
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415
        from mcp.shared._httpx_utils import create_mcp_http_client  # noqa: PLC0415

        client = create_mcp_http_client(headers=order["headers"])
        client.event_hooks = {"response": [refusals.note]}
        return streamable_http_client(order["url"], http_client=client, max_sse_event_size=MAX_EVENT_BYTES)
    from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: PLC0415

    path = shutil.which(order["command"], path=order["env"].get("PATH"))
    if path is None:
        raise FileNotFoundError(f"its command {order['command']} is not an executable file")
    # The SDK gives the server a session of its own, so it is tied to this process by the kernel.
    args = ["-I", "-S", str(_LAUNCHER), "--report", str(os.getpid()), path, *order["args"]]
    server = StdioServerParameters(command=sys.executable, args=args, env=order["env"], cwd=order["cwd"])
    return stdio_client(server, errlog=sys.stderr)


class _Lenient:
    """A stream of the server's messages, its listings mended: one bad tool must not cost all the others."""

    def __init__(self, stream: Any, ended: asyncio.Event, refusals: HttpRefusals) -> None:
        self._stream = stream
        self._ended = ended
        self._refusals = refusals

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
        message = getattr(item, "message", None)
        self._refusals.explain(message)
        result = getattr(message, "result", None)
        if isinstance(result, dict) and isinstance(result.get("tools"), list):
            result["tools"] = [tool for tool in result["tools"] if _mend_tool(tool)]
        return item


def _mend_tool(tool: Any) -> bool:
    """Give a schema without a type that of an object; returns whether the tool can be used.

    What it says of its results is dropped: the SDK would refuse one that is otherwise, of a call that took place.
    """
    schema = tool.get("inputSchema") if isinstance(tool, dict) else None
    if schema is not None:
        tool.pop("outputSchema", None)
    if isinstance(schema, dict) and schema.setdefault("type", "object") == "object":
        return True
    name = tool.get("name") if isinstance(tool, dict) else None
    logging.getLogger(__name__).warning("the tool %r is left out: its arguments are not an object", name)
    return False


@asynccontextmanager
async def open_lenient(order: dict[str, Any], ended: asyncio.Event) -> AsyncIterator[tuple[Any, Any]]:
    """Both streams to the server of `order`; `ended` is set as soon as nothing comes any more."""
    refusals = HttpRefusals()
    async with open_transport(order, refusals) as (read_stream, write_stream):
        yield _Lenient(read_stream, ended, refusals), write_stream
