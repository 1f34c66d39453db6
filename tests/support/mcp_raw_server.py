"""An MCP server without the SDK, for protocol violations: `python mcp_raw_server.py KIND`.

The kinds are `wild`, `many`, `results`, `mute` and `broken`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

SCHEMAS = {"list": {"type": "array"}, "bare": {}, "bad name!": {"type": "object"}, "n" * 100: {"type": "object"}}
PROMISED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
PICTURE = {"type": "image", "mimeType": "image/png", "data": "AAA="}

RESULTS: dict[str, dict[str, Any]] = {
    "silent failure": {"content": [], "isError": True},
    "broken promise": {"content": [], "structuredContent": {"n": "none"}},
    "rows": {"content": [{"type": "text", "text": "3 rows"}], "structuredContent": {"rows": [1, 2, 3]}},
    "same": {"content": [{"type": "text", "text": '{"a":1}'}], "structuredContent": {"a": 1}},
    "wrapped": {
        "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "x"}],
        "structuredContent": {"result": [1, "x"]},
    },
    "picture": {"content": [PICTURE], "structuredContent": {"result": [PICTURE]}},
    "terminal": {"content": [{"type": "text", "text": "\x1b[31mred\x1b[0m\r\nplain"}]},
    "binary": {"content": [{"type": "text", "text": "\0" * 1000}]},
    "half a pair": {"content": [{"type": "text", "text": "a\ud83d b"}], "structuredContent": {"\udc00": "\ud83d"}},
    "half a pair in a failure": {"content": [{"type": "text", "text": "no \udfff"}], "isError": True},
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        server = {"name": "odd", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "tools/list":
        tools = [{"name": name, "inputSchema": schema} for name, schema in SCHEMAS.items()]
        if sys.argv[1] == "many":
            tools = [{"name": f"t{number}", "inputSchema": {}} for number in range(300)]
        broken = {"name": "broken promise", "inputSchema": {}, "outputSchema": PROMISED}
        return {"tools": tools if sys.argv[1] != "results" else [broken]}
    if method == "tools/call" and sys.argv[1] == "results":
        return RESULTS[params["name"]]
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
