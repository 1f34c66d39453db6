"""Speak with one MCP server for a gateway that cannot: the official SDK needs asyncio, which needs its own process.

Run as a program, `python -P mcp_child.py`, with the SDK but nothing of the gateway. JSON lines come and go on standard
input and output. The first line is the order: `command`, `args`, `env` and `cwd`, or `url` and `headers`. Then come
`{"id", "method": "list_tools" | "call_tool" | "cancel", ...}`, and each but `cancel` is answered with its `id` and
`result`, `error`, or `failed` where the connection was lost over it. `{"event": "tools_changed"}` is told unasked, and
`{"failed": why}` when a connection came to nothing or the server ended it; what is asked after any `failed` is not
answered. The end of the input, or SIGTERM, ends the server and this program.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

#: The result of a call is cut here, before it crosses to the gateway.
MAX_RESULT_CHARS = 200_000
MAX_DESCRIPTION_CHARS = 8_000
MAX_TOOLS = 1_000

#: A server that makes this program grow beyond it (a line without an end) is given up.
MAX_MEMORY_BYTES = 256 * 1024 * 1024

_MAX_REQUEST_BYTES = 64 * 1024 * 1024
_MEMORY_CHECK_SECONDS = 0.2
_PROBE_SECONDS = 5.0
_MIN_SECRET_CHARS = 6
_CLOSED = "Connection closed"  # the SDK's words
_LAUNCHER = Path(__file__).parents[1] / "providers" / "die_with_parent.py"
_MISSING_SDK = "MCP servers need a package that is not installed. Run `pip install '.[mcp]'` in the gateway's clone."

Tell = Callable[[dict[str, Any]], None]


class _OneLine(logging.Formatter):
    """Log lines without tracebacks, which would repeat what the server sent."""

    def formatException(self, _ei: object) -> str:  # noqa: N802 - logging's name
        return ""

    def formatStack(self, _stack_info: str) -> str:  # noqa: N802 - logging's name
        return ""


class Bridge:
    """Answers the gateway's requests with what the MCP server says."""

    def __init__(self, client: Any, tell: Tell, redact: Callable[[str], str], ended: asyncio.Event) -> None:
        self._client = client
        self._tell = tell
        self._redact = redact
        self._ended = ended
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def serve(self, requests: AsyncIterator[dict[str, Any]]) -> None:
        """Answer until it is cancelled or the connection is lost, which raises `ConnectionError`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_changes())
            tasks.create_task(self._watch_end())
            async for request in requests:
                number = request["id"]
                if request["method"] != "cancel":
                    call = self._calls[number] = tasks.create_task(self._answer(request))
                    call.add_done_callback(partial(self._forget, number))
                elif number in self._calls:
                    self._calls[number].cancel()

    def _forget(self, number: int, _call: asyncio.Task[None]) -> None:
        del self._calls[number]

    async def _answer(self, request: dict[str, Any]) -> None:
        try:
            if request["method"] == "list_tools":
                answer: dict[str, Any] = {"result": await self._list_tools()}
            else:
                answer = await self._call_tool(request["name"], request["arguments"])
        except Exception as error:  # whatever it is, the one who waits is told
            is_lost = not await self._is_alive()
            self._tell({"id": request["id"], "failed" if is_lost else "error": self._redact(describe(error))})
            if is_lost:
                raise ConnectionError(describe(error)) from error
        else:
            self._tell({"id": request["id"], **answer})

    async def _list_tools(self) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(tools) < MAX_TOOLS:
            page = await self._client.list_tools(cursor=cursor, cache_mode="bypass")
            tools.extend(to_tool(tool) for tool in page.tools)
            cursor = page.next_cursor
            if not cursor:
                break
        return tools[:MAX_TOOLS]

    async def _call_tool(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        result = await self._client.call_tool(name, arguments)
        return {"error" if result.is_error else "result": to_text(result)}

    async def _is_alive(self) -> bool:
        # An error of one call and the loss of the connection look alike: only another question tells them apart.
        with suppress(TimeoutError):  # busy, which the gateway's own time limits judge
            async with asyncio.timeout(_PROBE_SECONDS):
                try:
                    await self._client.list_tools(cache_mode="bypass")
                except Exception:  # noqa: BLE001 - any failure to list is the answer
                    return False
        return True

    async def _watch_end(self) -> None:
        await self._ended.wait()
        # Calls under way are answered first: some have their results, the others learn of the end by themselves.
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
        self._tell({"failed": _CLOSED})
        raise ConnectionError(_CLOSED)

    async def _watch_changes(self) -> None:
        # Servers of the newer protocol tell only those who listen.
        tools = self._client.server_capabilities.tools
        if self._client.session.discover_result is None or tools is None or not tools.list_changed:
            return
        with suppress(Exception):  # without it the gateway asks again after a while
            async with self._client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._tell({"event": "tools_changed"})


def to_tool(tool: Any) -> dict[str, Any]:
    """What the gateway needs to know of an SDK tool."""
    annotations = tool.annotations
    return {
        "name": tool.name,
        "description": (tool.description or tool.title or "")[:MAX_DESCRIPTION_CHARS],
        "parameters": tool.input_schema,
        "read_only": bool(annotations and annotations.read_only_hint),
    }


def to_text(result: Any) -> str:
    """The result of a call as text: text parts joined by a blank line, other parts named, all of it bounded."""
    text = "\n\n".join(_part_text(part) for part in result.content)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    if len(text) > MAX_RESULT_CHARS:
        text = f"{text[:MAX_RESULT_CHARS]}\n[{len(text) - MAX_RESULT_CHARS} more characters were cut]"
    return text


def _part_text(part: Any) -> str:
    if part.type == "text":
        return str(part.text)
    if part.type == "resource_link":
        return f"[resource {part.name}: {part.uri}]"
    if part.type == "resource":
        resource = part.resource
        kind = resource.mime_type or "unknown type"
        return str(resource.text) if hasattr(resource, "text") else f"[resource {resource.uri}, {kind}, not shown]"
    return f"[{part.type}, {part.mime_type}, {len(part.data) * 3 // 4} bytes, not shown]"


def describe(error: BaseException) -> str:
    """What went wrong, of a group the first thing that did."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


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
async def _lenient(order: dict[str, Any], ended: asyncio.Event) -> AsyncIterator[tuple[Any, Any]]:
    async with open_transport(order) as (read_stream, write_stream):
        yield _Lenient(read_stream, ended), write_stream


def redactor(order: dict[str, Any]) -> Callable[[str], str]:
    """A function that hides the secrets of `order` in a text: values of headers and environment, the URL's query."""
    values = [
        *order.get("env", {}).values(),
        *order.get("headers", {}).values(),
        urlsplit(order.get("url") or "").query,
    ]
    values += [word for value in values for word in value.split()]  # the token of `Bearer token`
    secrets = sorted({value for value in values if len(value) >= _MIN_SECRET_CHARS}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    return redact


async def run(order: dict[str, Any], requests: asyncio.StreamReader, tell: Tell) -> None:
    """Connect and serve until the input ends or SIGTERM comes, which cancels it."""
    from mcp.client import Client  # noqa: PLC0415
    from mcp_types import Implementation, ToolListChangedNotification  # noqa: PLC0415

    async def on_message(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            tell({"event": "tools_changed"})

    client_info = Implementation(name="openclaw-gateway", version=order["version"])
    ended = asyncio.Event()
    client = Client(_lenient(order, ended), cache=None, client_info=client_info, message_handler=on_message)
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    serving = asyncio.create_task(_serve(client, Bridge(client, tell, redactor(order), ended), inbox))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    beside = [asyncio.create_task(_read(requests, inbox, serving)), asyncio.create_task(_watch_memory(tell))]
    try:
        await serving
    finally:
        for task in beside:
            task.cancel()


async def _serve(client: Any, bridge: Bridge, inbox: asyncio.Queue[dict[str, Any]]) -> None:
    async with client:
        await bridge.serve(_each(inbox))


async def _read(
    requests: asyncio.StreamReader, inbox: asyncio.Queue[dict[str, Any]], serving: asyncio.Task[None]
) -> None:
    while line := await requests.readline():
        inbox.put_nowait(json.loads(line))
    serving.cancel()


async def _each(inbox: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    while True:
        yield await inbox.get()


async def _watch_memory(tell: Tell) -> None:
    while (resident := _resident_bytes()) is not None:
        if resident > MAX_MEMORY_BYTES:
            tell({"failed": f"it sent more than fits into {MAX_MEMORY_BYTES // 1024**2} MiB"})
            os._exit(1)
        await asyncio.sleep(_MEMORY_CHECK_SECONDS)


def _resident_bytes() -> int | None:
    """The memory this process holds, `None` where Linux does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def _main(tell: Tell) -> int:
    requests = asyncio.StreamReader(limit=_MAX_REQUEST_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    order = json.loads(await requests.readline())
    try:
        await run(order, requests, tell)
    except asyncio.CancelledError:
        return 0  # it was asked to end
    except ImportError:
        tell({"failed": _MISSING_SDK})
    except Exception as error:  # noqa: BLE001 - the gateway is told, whatever it is
        tell({"failed": redactor(order)(describe(error))})
    return 1


def main() -> int:
    """Serve until the gateway is gone; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.root.handlers[0].setFormatter(_OneLine("%(name)s: %(message)s"))
    # Nothing that prints may come between the lines: the real standard output is this function's alone.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(message: dict[str, Any]) -> None:
        output.write(json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n")
        output.flush()

    return asyncio.run(_main(tell))


if __name__ == "__main__":
    sys.exit(main())
