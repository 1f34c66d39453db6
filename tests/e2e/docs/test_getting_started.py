"""The tutorial, from the first configuration to the last command, in an empty home directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from support.documents import ROOT, at_address, blocks_of, succeed_in_shell
from support.upstream import Exchange, Upstream

TUTORIAL = ROOT / "docs" / "getting-started.md"
SERVE = "openclaw gateway\n"
START_SECONDS = 60

#: What the model of the tutorial calls, by a word of the question.
CALLS: dict[str, tuple[str, dict[str, str]]] = {
    "do": ("read", {"path": "todo.txt"}),
    "milk": ("edit", {"path": "todo.txt", "old_text": "Buy milk.", "new_text": "The milk is bought."}),
}


def answer(exchange: Exchange) -> None:
    """Call the tool that the question is about, then repeat its result."""
    last: dict[str, Any] = exchange.body["messages"][-1]
    offered = {tool["function"]["name"] for tool in exchange.body.get("tools", ())}
    words = str(last["content"]).rstrip(".?").split()
    name, arguments = next((CALLS[word] for word in reversed(words) if word in CALLS), ("", {}))
    exchange.head()
    if last["role"] == "user" and name in offered:
        function = {"name": name, "arguments": json.dumps(arguments)}
        exchange.event({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
        exchange.end("tool_calls")
    else:
        exchange.event({"content": last["content"]})
        exchange.end()


@contextmanager
def served(environment: dict[str, str], home: Path) -> Iterator[None]:
    """Run the tutorial's `openclaw gateway` beside the block."""
    url = f"http://127.0.0.1:{environment['OPENCLAW_GATEWAY_PORT']}/readyz"
    with (home / "gateway.log").open("wb") as log:
        process = subprocess.Popen(["openclaw", "gateway"], env=environment, cwd=home, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(url):
            assert process.poll() is None, (home / "gateway.log").read_text()
            assert time.monotonic() < deadline, (home / "gateway.log").read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_tutorial_works_as_written_in_an_empty_home(tmp_path: Path, upstream: Upstream) -> None:
    port = free_port()
    upstream.models.append("qwen3:8b")
    upstream.answers["qwen3:8b"] = answer
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OPENCLAW_GATEWAY_PORT": str(port),
        "OLLAMA_HOST": upstream.url.removesuffix("/v1"),
    }
    texts = [block.text for block in blocks_of(TUTORIAL) if block.language == "sh"]
    texts = [text for text in texts if "pip install" not in text and "models install" not in text]
    start = texts.index(SERVE)
    assert "ollama/qwen3:8b" in succeed_in_shell("".join(texts[:start]), environment, tmp_path)
    with served(environment, tmp_path):
        # A reader is slower than this: the gateway needs a second to apply what a block has edited.
        script = "sleep 2\n".join(texts[start + 1 :])
        shown = succeed_in_shell(at_address(script, ("127.0.0.1", port)), environment, tmp_path)
    assert '"content":"hi"' in shown
    assert '[calls read {"path": "todo.txt"}]' in shown
    assert "Buy milk. Call Anna about the contract." in shown
    assert "The milk is bought. Call Anna about the contract." in shown
    assert "\ntodo.txt (" in shown
