"""Speak with one MCP server for a gateway that cannot: the official SDK needs asyncio, which needs its own process.

Run as a program, `python -P -m service.tools.mcp.child`. JSON lines come and go on standard input and output. The first
line is the order: `command`, `args`, `env` and `cwd`, or `url` and `headers`. Then come
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
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from service.tools.mcp.results import describe, redactor, to_text, to_tool
from service.tools.mcp.transport import open_lenient

MAX_TOOLS = 1_000

#: A server that makes this program grow beyond it (a line without an end) is given up.
MAX_MEMORY_BYTES = 256 * 1024 * 1024

_MAX_REQUEST_BYTES = 64 * 1024 * 1024
_MEMORY_CHECK_SECONDS = 0.2
_PROBE_SECONDS = 5.0
_CLOSED = "Connection closed"  # the SDK's words
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


async def run(order: dict[str, Any], requests: asyncio.StreamReader, tell: Tell) -> None:
    """Connect and serve until the input ends or SIGTERM comes, which cancels it."""
    from mcp.client import Client  # noqa: PLC0415
    from mcp_types import Implementation, ToolListChangedNotification  # noqa: PLC0415

    async def on_message(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            tell({"event": "tools_changed"})

    client_info = Implementation(name="openclaw-gateway", version=order["version"])
    ended = asyncio.Event()
    client = Client(open_lenient(order, ended), cache=None, client_info=client_info, message_handler=on_message)
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
