"""An MCP server without the SDK, which would not let it misbehave: `python mcp_raw_server.py wild | mute | broken`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

SCHEMAS = {"list": {"type": "array"}, "bare": {}, "bad name!": {"type": "object"}, "n" * 100: {"type": "object"}}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        server = {"name": "odd", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": schema} for name, schema in SCHEMAS.items()]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": call(params["name"])}]}
    return None


def call(name: str) -> str:
    if name == "crash":
        os._exit(3)
    while name == "block":
        time.sleep(3600)
    while name == "endless":
        os.write(1, b"x" * 1_000_000)
    return str(os.getpid()) if name == "process" else f"called {name}"


def main() -> None:
    if sys.argv[1] == "broken":
        sys.exit("cannot find my database")
    for line in sys.stdin:
        message = json.loads(line)
        if sys.argv[1] == "mute" or "id" not in message or message.get("params", {}).get("name") == "never":
            continue
        result = answer(message["method"], message.get("params", {}))
        told = {"error": {"code": -32601, "message": "unknown method"}} if result is None else {"result": result}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **told}) + "\n")
        sys.stdout.flush()
        if message.get("params", {}).get("arguments", {}).get("end"):
            return


if __name__ == "__main__":
    main()
