"""The tools that look through the workspace: `find` by name and `grep` by content.

Each call runs in a child process (`service.tools.workspace.search_process`), killed when its caller stops waiting.
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
from service.tools.process_slots import ProcessSlots
from service.tools.tool import Tool, ToolContext, ToolError
from service.tools.workspace.search_process import GRACE_SECONDS, MAX_MATCHES, MAX_PATHS

#: Time for one search; what was found until then is told.
SEARCH_SECONDS = 20.0

_PATTERN_CHARACTERS = 1_000
_COMMAND = (sys.executable, "-P", "-s", "-m", "service.tools.workspace.search_process")
_PIPE_BYTES = 65_536
#: For starting the process and reading its answer, on a busy machine.
_OVERHEAD_SECONDS = 10.0

_PATH = {"type": "string", "minLength": 1, "maxLength": 4096}
_GLOB = {"type": "string", "minLength": 1, "maxLength": _PATTERN_CHARACTERS}


def search_tools(slots: ProcessSlots, seconds: float = SEARCH_SECONDS) -> tuple[Tool, ...]:
    """The tools of this module, for an agent that has a workspace."""
    return FindTool(slots, seconds), GrepTool(slots, seconds)


class FindTool:
    """`find`: paths by glob."""

    name = "find"
    description = (
        "Find files and directories of the workspace by a glob: `*.py` at any depth, `src/**/*.ts`, `*.{md,txt}`. "
        f"Tells at most {MAX_PATHS} paths. Looks into .git, node_modules and the like only when path names them."
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
        """The paths that match; raises `ToolError`."""
        request = {"kind": "find", "pattern": arguments["pattern"], "path": arguments.get("path", ".")}
        return _search(request, context, self._slots, self._seconds)


class GrepTool:
    """`grep`: lines by regular expression."""

    name = "grep"
    description = (
        "Search the text files of the workspace for lines that match a regular expression (Python's syntax). "
        f"Tells at most {MAX_MATCHES} lines as `path:number: line`. Binary files are left out, as are .git, "
        "node_modules and the like unless path names them."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "pattern": {
                "type": "string",
                "minLength": 1,
                "maxLength": _PATTERN_CHARACTERS,
                "description": "The regular expression, matched against each line by itself.",
            },
            "path": {**_PATH, "description": "The directory or file to search; the workspace by default."},
            "glob": {**_GLOB, "description": "Search only files that match, such as `*.py`."},
            "ignore_case": {"type": "boolean", "description": "Whether upper and lower case are the same."},
            "context": {
                "type": "integer",
                "minimum": 0,
                "maximum": 10,
                "description": "How many lines to tell before and after each match; none by default.",
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
        """The lines that match; raises `ToolError`."""
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
        question, answers = _pipes(process)
        # Smaller than a pipe's buffer (the schema bounds every text), so writing does not wait.
        place = {"root": str(context.workspace), "hidden": list(map(str, context.hidden)), "seconds": seconds}
        question.write(orjson.dumps({**request, **place}))
        question.close()
        answer = b"".join(_read_pieces(answers.fileno()))
        status = process.wait()
    if status == -signal.SIGALRM:
        raise ToolError(f"The search did not end within {seconds:g} seconds. Use a simpler pattern or a narrower path.")
    if status != 0:
        raise RuntimeError(f"the search process ended with status {status}")
    told: dict[str, str] = orjson.loads(answer)
    if "error" in told:
        raise ToolError(told["error"])
    return told["text"]


@contextmanager
def _search_process() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(service.__file__).parent.parent), "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        _COMMAND,
        cwd="/",
        env=environment,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in _pipes(process):
            pipe.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    question, answers = process.stdin, process.stdout
    if question is None or answers is None:
        raise RuntimeError("the search process was started without pipes")
    return question, answers


def _read_pieces(fd: int) -> Iterator[bytes]:
    while True:
        wait_readable(fd)
        piece = os.read(fd, _PIPE_BYTES)
        if not piece:
            return
        yield piece
