"""Tools that search the workspace: `find` by name and `grep` by content.

Each call runs in a child process (`service.tools.workspace.search_process`) that is killed when the call is cancelled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar

import orjson

import service
from service.core.concurrency import wait_readable
from service.core.shield import shield
from service.tools.process_slots import ProcessSlots
from service.tools.tool import ToolAccess, ToolContext, ToolError
from service.tools.workspace.search_limits import GRACE_SECONDS, MAX_MATCHES, MAX_PATHS

#: The time limit of one search; results found until then are returned.
SEARCH_SECONDS = 20.0

_PATTERN_CHARACTERS = 1_000
_COMMAND = (sys.executable, "-P", "-m", "service.tools.workspace.search_process")
_PIPE_BYTES = 65_536
#: Time to start the process and read its output on a busy machine.
_OVERHEAD_SECONDS = 10.0

_PATH = {"type": "string", "minLength": 1, "maxLength": 4096}
_GLOB = {"type": "string", "minLength": 1, "maxLength": _PATTERN_CHARACTERS}


class FindTool:
    """`find`: paths by glob."""

    name: ClassVar = "find"
    access: ClassVar = ToolAccess(("group:fs",), by_default=True, needs_workspace=True)
    description = (
        "Find files and directories of the workspace by a glob: `*.py` at any depth, `src/**/*.ts`, `*.{md,txt}`. "
        f"Returns at most {MAX_PATHS} paths. Searches .git, node_modules and similar only if path names them."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "pattern": {**_GLOB, "description": "The glob; with a slash in it, it is relative to path."},
            "path": {**_PATH, "description": "The directory to search; the workspace by default."},
        },
        "required": ["pattern"],
        "additionalProperties": False,
    }
    parallel = True

    def __init__(self, slots: ProcessSlots, seconds: float = SEARCH_SECONDS) -> None:
        self._slots = slots
        self._seconds = seconds
        self.timeout_seconds = seconds + GRACE_SECONDS + _OVERHEAD_SECONDS

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the matching paths. Raises `ToolError`."""
        request = {"kind": "find", "pattern": arguments["pattern"], "path": arguments.get("path", ".")}
        return _search(request, context, self._slots, self._seconds)


class GrepTool:
    """`grep`: lines by regular expression."""

    name: ClassVar = "grep"
    # OpenClaw has no `grep` tool, so its users deny `read`.
    access: ClassVar = ToolAccess(("group:fs",), by_default=True, needs_workspace=True, denied_with="read")
    description = (
        "Search the text files of the workspace for lines that match a regular expression (Python's syntax). "
        f"Returns at most {MAX_MATCHES} lines as `path:number: line`. Binary files are skipped, as are .git, "
        "node_modules and similar unless path names them."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "pattern": {
                "type": "string",
                "minLength": 1,
                "maxLength": _PATTERN_CHARACTERS,
                "description": "The regular expression, matched against each line separately.",
            },
            "path": {**_PATH, "description": "The directory or file to search; the workspace by default."},
            "glob": {**_GLOB, "description": "Search only files that match, such as `*.py`."},
            "ignore_case": {"type": "boolean", "description": "Ignore upper and lower case; false by default."},
            "context": {
                "type": "integer",
                "minimum": 0,
                "maximum": 10,
                "description": "Number of lines to show before and after each match; 0 by default.",
            },
        },
        "required": ["pattern"],
        "additionalProperties": False,
    }
    parallel = True

    def __init__(self, slots: ProcessSlots, seconds: float = SEARCH_SECONDS) -> None:
        self._slots = slots
        self._seconds = seconds
        self.timeout_seconds = seconds + GRACE_SECONDS + _OVERHEAD_SECONDS

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the matching lines. Raises `ToolError`."""
        request = {
            "kind": "grep",
            "pattern": arguments["pattern"],
            "path": arguments.get("path", "."),
            "glob": arguments.get("glob"),
            "ignore_case": arguments.get("ignore_case", False),
            "context": arguments.get("context", 0),
        }
        return _search(request, context, self._slots, self._seconds)


def _search(request: dict[str, Any], context: ToolContext, slots: ProcessSlots, seconds: float) -> str:
    if context.workspace is None:
        raise ToolError("This agent has no workspace, so there is nothing to search.")
    with slots.hold(_OVERHEAD_SECONDS / 2), _search_process() as process:
        stdin, stdout = _pipes(process)
        # The schema limits all strings, so the request fits into the pipe's buffer and writing does not block.
        scope = {"root": str(context.workspace), "hidden": list(map(str, context.hidden)), "seconds": seconds}
        stdin.write(orjson.dumps({**request, **scope}))
        stdin.close()
        output = b"".join(_read_chunks(stdout.fileno()))
        status = process.wait()
    if status == -signal.SIGALRM:
        raise ToolError(f"The search did not end within {seconds:g} seconds. Use a simpler pattern or a narrower path.")
    if status != 0:
        raise RuntimeError(f"the search process ended with status {status}")
    response: dict[str, str] = orjson.loads(output)
    if "error" in response:
        raise ToolError(response["error"])
    return response["text"]


@contextmanager
def _search_process() -> Iterator[subprocess.Popen[bytes]]:
    # A start that is interrupted would leave a process behind, beside those that the slots allow.
    process = shield(_start, _end)
    try:
        yield process
    finally:
        _end(process)


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(service.__file__).parent.parent), "PYTHONUTF8": "1"}
    return subprocess.Popen(
        _COMMAND,
        cwd="/",
        env=environment,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in _pipes(process):
        pipe.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("the search process was started without pipes")
    return stdin, stdout


def _read_chunks(fd: int) -> Iterator[bytes]:
    while True:
        wait_readable(fd)
        chunk = os.read(fd, _PIPE_BYTES)
        if not chunk:
            return
        yield chunk
