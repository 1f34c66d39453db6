"""The client packages of `clients/`, built and used against a live gateway through a relay that breaks streams.

The programs of all languages do the same and print the same lines; each passes its language's strict checks.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.client_packages import compile_typescript
from support.cutting_relay import CuttingRelay
from support.documents import ROOT, blocks_of, reader_environment, succeed
from support.listener import Listener
from support.live import LiveGateway

PROGRAMS = Path(__file__).with_name("programs")
SLOW = "This answer comes slowly, word by word, so that there is time to leave before it ends."
LINES = {
    "chat": "hi",
    "stream": SLOW,
    "asynchronous stream": SLOW,
    "tool": "weather sunny",
    "run": f"{SLOW} run.ended ok",
    "response": f"{SLOW} response.completed",
    "session": "4 4",
    "error": "404 model_not_found model",
    "retry": "True",
}
#: The streams whose first connections the relay breaks, by the last parts of their paths.
CUT = {"completions", "chat-stream", "events", "responses"}
#: The end of a run as a newer gateway might send it: an unknown type, an unknown value, and then `state`.
NEWER_EVENTS = """\
id: 1
event: run.paused
data: {"type": "run.paused", "sequence_number": 1}

id: 2
event: approval.closed
data: {"type": "approval.closed", "sequence_number": 2, "id": "a", "state": "forwarded", "decision": null}

id: 3
event: text.delta
data: {"type": "text.delta", "sequence_number": 3, "text": "hi"}

id: 4
event: run.ended
data: {"type": "run.ended", "sequence_number": 4, "state": "STATE", "finish_reason": "stop", "error": null, "usage": \
{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}

"""
NEWER_PROGRAM = """
import sys
from openclaw_client import Client
from openclaw_client.streams import run_events
try:
    for event in run_events(Client(base_url=sys.argv[1]), "one"):
        print(event.type_)
except TypeError as error:
    print(f"TypeError: {error}"[:37])
"""
GO_PROGRAM = """
package main

import (
	"context"
	"fmt"
	"os"

	"openclaw"
)

func main() {
%s
}
"""


@pytest.fixture
def relay(gateway: LiveGateway) -> Iterator[CuttingRelay]:
    with CuttingRelay(gateway.address) as running:
        yield running


class NewerGateway(Listener):
    """Answers every request with `NEWER_EVENTS`, whose run ends with `state`."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.events = NEWER_EVENTS.replace("STATE", state)

    def serve(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        connection.sendall(f"{head}Content-Length: {len(self.events)}\r\n\r\n{self.events}".encode())


def from_readme(language: str, gateway: LiveGateway) -> str:
    """The README's lines for a language, with the gateway's address."""
    [block] = [
        block
        for block in blocks_of(ROOT / "README.md")
        if block.language == language
        and "openclaw" in block.text
        and "client" in block.text
        and "openai" not in block.text
    ]
    return block.at(gateway.address)


def check(printed: str, relay: CuttingRelay, *left_out: str) -> None:
    lines = dict(line.split(": ", 1) for line in printed.splitlines())
    assert lines == {name: line for name, line in LINES.items() if name not in left_out}
    assert {request.rpartition("/")[2] for request in relay.cuts} >= CUT


def test_python_package(
    gateway: LiveGateway, relay: CuttingRelay, build: Callable[[str], Path], tmp_path: Path
) -> None:
    package = build("python")
    program = PROGRAMS / "use.py"
    environment = reader_environment(gateway) | {"PYTHONPATH": str(package)}
    check(succeed([sys.executable, str(program), relay.url], environment, tmp_path), relay)
    assert succeed([sys.executable, "-c", from_readme("python", gateway)], environment, tmp_path) == "hi"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "--config-file", ""]
    by_hand = [str(package / "openclaw_client" / name) for name in ("streams.py", "envelopes.py")]
    checked = [str(program), str(PROGRAMS / "read_streams.py"), *by_hand]
    succeed([*mypy, *checked], {**os.environ, "MYPYPATH": str(package)}, tmp_path)
    for state, last in (("ok", "run.ended"), ("paused", "TypeError: Unexpected value 'paused'.")):
        with NewerGateway(state) as newer:
            url = f"http://127.0.0.1:{newer.port}"
            printed = succeed([sys.executable, "-c", NEWER_PROGRAM, url], environment, tmp_path)
        assert printed.splitlines() == ["text.delta", last]


def test_package_that_cannot_be_built_leaves_no_directory(tmp_path: Path) -> None:
    package = tmp_path / "package"
    command = [sys.executable, str(ROOT / "clients" / "generate.py"), "typescript", str(package)]
    environment = {**os.environ, "PATH": str(tmp_path)}  # without npm
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 1
    assert not package.exists()
    package.mkdir()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, "exists" in ended.stderr) == (2, True)


def test_typescript_package(
    gateway: LiveGateway, relay: CuttingRelay, build: Callable[[str], Path], tmp_path: Path
) -> None:
    package = build("typescript")
    directory = tmp_path / "program"
    modules = directory / "node_modules"
    modules.mkdir(parents=True)
    (modules / "openclaw-client").symlink_to(package)
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / "use.ts").write_bytes((PROGRAMS / "use.ts").read_bytes())
    (directory / "readme.ts").write_text(from_readme("ts", gateway))
    compile_typescript(package, directory, "use.ts", "readme.ts")
    assert succeed(["node", "readme.js"], reader_environment(gateway), directory) == "hi"
    printed = succeed(["node", "use.js", relay.url], reader_environment(gateway), directory)
    check(printed, relay, "asynchronous stream")


def test_go_package(gateway: LiveGateway, relay: CuttingRelay, build: Callable[[str], Path], tmp_path: Path) -> None:
    package = build("go")
    readme = GO_PROGRAM % from_readme("go", gateway)
    for name, text in {"use": (PROGRAMS / "use.go").read_text(), "readme": readme}.items():
        (package / name).mkdir()
        (package / name / "main.go").write_text(text)
    succeed(["go", "vet", "./..."], os.environ, package)
    succeed(["go", "build", "-o", str(tmp_path), "./use", "./readme"], os.environ, package)
    environment = reader_environment(gateway)
    assert succeed([str(tmp_path / "readme")], environment, tmp_path) == "hi"
    check(succeed([str(tmp_path / "use"), relay.url], environment, tmp_path), relay, "asynchronous stream")
