"""Connect to one MCP server in a child process, because the official SDK needs asyncio.

Run as a program, `python -P -m service.tools.mcp.child`. It exchanges JSON lines on standard input and output. The
first line has the settings: `command`, `args`, `env` and `cwd`, or `url` and `headers`. Then come requests
`{"id", "method": "list_tools" | "call_tool" | "cancel", ...}`; the `trace` of a call goes into its `_meta`. Each but
`cancel` gets a response with its `id` and `result`, `error`, or `failed` if the connection was lost during it; with
`session_lost` the server had forgotten the session, and did not process the request. `{"event": "tools_changed"}` is
sent as it occurs, and `{"failed": reason}` when connecting fails or the server closes the connection; requests after a
`failed` get no response. End of input or SIGTERM stops the server and this program.
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

from service.tools.mcp.results import INSTALL_MCP, describe, redactor, to_text, to_tool
from service.tools.mcp.transport import FORGOTTEN_SESSION, HttpErrors, open_lenient

MAX_TOOLS = 1_000

#: The connection fails when this program needs more memory, for example for an endless line.
MAX_MEMORY_BYTES = 256 * 1024 * 1024

_MAX_REQUEST_BYTES = 64 * 1024 * 1024
_MEMORY_CHECK_SECONDS = 0.2
_PROBE_SECONDS = 5.0
_LIST = "tools/list"
_CLOSED = "Connection closed"  # the SDK's message
_SESSION_LOST = "The server has forgotten the session"
_MISSING_SDK = f"MCP servers need a package that is not installed. {INSTALL_MCP}"

Send = Callable[[dict[str, Any]], None]


class _OneLine(logging.Formatter):
    """Log lines without tracebacks, which would repeat what the server sent."""

    def formatException(self, _ei: object) -> str:  # noqa: N802 - logging's name
        return ""

    def formatStack(self, _stack_info: str) -> str:  # noqa: N802 - logging's name
        return ""


class Bridge:
    """Forwards requests of the gateway to the MCP server and sends back the responses."""

    def __init__(
        self, client: Any, send: Send, redact: Callable[[str], str], ended: asyncio.Event, http_errors: HttpErrors
    ) -> None:
        self._client = client
        self._http_errors = http_errors
        self._send = send
        self._redact = redact
        self._ended = ended
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._session_lost = asyncio.Event()
        self._listed: set[str] = set()

    async def serve(self, requests: AsyncIterator[dict[str, Any]]) -> None:
        """Serve until cancelled. Raises `ConnectionError` when the connection is lost."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_changes())
            tasks.create_task(self._watch_end())
            tasks.create_task(self._watch_session())
            async for request in requests:
                number = request["id"]
                if request["method"] != "cancel":
                    call = self._calls[number] = tasks.create_task(self._respond(request))
                    call.add_done_callback(partial(self._forget, number))
                elif number in self._calls:
                    self._calls[number].cancel()

    def _forget(self, number: int, _call: asyncio.Task[None]) -> None:
        del self._calls[number]

    async def _respond(self, request: dict[str, Any]) -> None:
        try:
            if request["method"] == "list_tools":
                response: dict[str, Any] = {"result": await self._list_tools()}
            else:
                response = await self._call_tool(request["name"], request["arguments"], request.get("trace"))
        except Exception as error:  # report any failure to the waiting caller
            session_lost = str(getattr(error, "data", "")).startswith(FORGOTTEN_SESSION)
            is_lost = session_lost or self._http_errors.session_lost or not await self._is_alive()
            failure = {"failed" if is_lost else "error": self._redact(describe(error))}
            self._send({"id": request["id"], **failure, "session_lost": session_lost})
            if session_lost:
                self._session_lost.set()
            elif is_lost and not self._session_lost.is_set():
                raise ConnectionError(describe(error)) from error
        else:
            self._send({"id": request["id"], **response})

    async def _list_tools(self) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(tools) < MAX_TOOLS:
            page = await self._client.list_tools(cursor=cursor, cache_mode="bypass")
            tools.extend(to_tool(tool) for tool in page.tools)
            cursor = page.next_cursor
            if not cursor:
                break
        self._listed = {tool["name"] for tool in tools}
        return tools[:MAX_TOOLS]

    async def _call_tool(self, name: str, arguments: dict[str, Any], trace: dict[str, str] | None) -> dict[str, Any]:
        if name not in self._listed:  # else the SDK lists them after the call, whose result a failure would lose
            await self._list_tools()
        try:
            result = await self._client.call_tool(name, arguments, meta=trace)
        except Exception as error:
            if getattr(error, "data", None) == f"{FORGOTTEN_SESSION}{_LIST}":  # the call itself was processed
                raise ConnectionError(describe(error)) from error
            raise
        return {"error" if result.is_error else "result": to_text(result)}

    async def _is_alive(self) -> bool:
        # The SDK reports a failed call and a lost connection alike; only another request distinguishes them.
        with suppress(TimeoutError):  # the server is busy; the gateway's time limits apply
            async with asyncio.timeout(_PROBE_SECONDS):
                try:
                    await self._client.list_tools(cache_mode="bypass")
                except Exception:  # noqa: BLE001 - any failure means a lost connection
                    return False
        return True

    async def _watch_end(self) -> None:
        await self._ended.wait()
        # Pending calls first: some have results, the others fail on their own.
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
        self._send({"failed": _CLOSED})
        raise ConnectionError(_CLOSED)

    async def _watch_session(self) -> None:
        await self._session_lost.wait()
        while self._calls:  # the others were processed, or are refused in the same way
            await asyncio.gather(*self._calls.values(), return_exceptions=True)
        raise ConnectionError(_SESSION_LOST)

    async def _watch_changes(self) -> None:
        # Servers of the newer protocol notify only subscribers.
        tools = self._client.server_capabilities.tools
        if self._client.session.discover_result is None or tools is None or not tools.list_changed:
            return
        with suppress(Exception):  # without it the gateway lists again after a while
            async with self._client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._send({"event": "tools_changed"})


async def run(settings: dict[str, Any], requests: asyncio.StreamReader, send: Send) -> None:
    """Connect and serve until end of input or SIGTERM, which cancels it."""
    from mcp.client import Client  # noqa: PLC0415
    from mcp_types import Implementation, ToolListChangedNotification  # noqa: PLC0415

    async def on_message(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            send({"event": "tools_changed"})

    client_info = Implementation(name="openclaw-gateway", version=settings["version"])
    ended = asyncio.Event()
    http_errors = HttpErrors()
    client = Client(
        open_lenient(settings, ended, http_errors), cache=None, client_info=client_info, message_handler=on_message
    )
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    serving = asyncio.create_task(_serve(client, Bridge(client, send, redactor(settings), ended, http_errors), inbox))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    helpers = [asyncio.create_task(_read(requests, inbox, serving)), asyncio.create_task(_watch_memory(send))]
    try:
        await serving
    finally:
        for task in helpers:
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


async def _watch_memory(send: Send) -> None:
    while (resident := _resident_bytes()) is not None:
        if resident > MAX_MEMORY_BYTES:
            send({"failed": f"it sent more than fits into {MAX_MEMORY_BYTES // 1024**2} MiB"})
            os._exit(1)
        await asyncio.sleep(_MEMORY_CHECK_SECONDS)


def _resident_bytes() -> int | None:
    """Return the resident memory of this process, `None` if /proc does not show it."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def _main(send: Send) -> int:
    requests = asyncio.StreamReader(limit=_MAX_REQUEST_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    settings = json.loads(await requests.readline())
    try:
        await run(settings, requests, send)
    except asyncio.CancelledError:
        return 0  # a requested stop
    except ImportError:
        send({"failed": _MISSING_SDK})
    except Exception as error:  # noqa: BLE001 - report any failure to the gateway
        send({"failed": redactor(settings)(describe(error))})
    return 1


def main() -> int:
    """Serve until the gateway closes the input; return the exit status."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.root.handlers[0].setFormatter(_OneLine("%(name)s: %(message)s"))
    # Redirect stray prints to standard error, so that they do not mix with the JSON lines.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(message: dict[str, Any]) -> None:
        output.write(json.dumps(message).encode() + b"\n")  # in ASCII: a text may have lone surrogates
        output.flush()

    return asyncio.run(_main(send))


if __name__ == "__main__":
    sys.exit(main())
