"""The program behind `find` and `grep`: a JSON request on standard input, a JSON response on standard output.

It is a separate process because a regular expression can run forever and cannot be interrupted. An alarm signal ends
it at its time limit. Where the kernel has Landlock, it can read the workspace and nothing else, and write nothing.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from service.core.processes.sandbox import read_only
from service.tools.tool import ToolError
from service.tools.workspace.filenames import to_display
from service.tools.workspace.globs import compile_glob
from service.tools.workspace.hidden_files import HiddenFiles
from service.tools.workspace.paths import (
    MAX_DEPTH,
    Workspace,
    check_regular,
    kind_of,
    open_regular_file,
    open_subdirectory,
)
from service.tools.workspace.search_limits import GRACE_SECONDS, MAX_MATCHES, MAX_PATHS

MAX_LINE_CHARACTERS = 400
MAX_CHARACTERS = 48_000
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 100_000
#: Directories without hand-written files; they are searched only if the path names them.
SKIPPED_DIRECTORIES = frozenset({".git", "node_modules", "__pycache__", ".venv"})

_SNIFF_BYTES = 8 * 1024
_LINES_BETWEEN_CHECKS = 50
_NICENESS = 10
_MEMORY_BYTES = 1024 * 1024 * 1024


class Entry(NamedTuple):
    """An entry of the walk: `name` in the open `directory`; `path` is relative to the start of the search."""

    directory: int
    name: str
    path: str
    mode: int
    hidden: HiddenFiles


@dataclass(slots=True)
class SearchOutput:
    """The output of a search: a limited number of lines, and counts of skipped items."""

    stop_at: float
    prefix: str = ""  # the path of the search's start in the workspace
    lines: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    stopped: str | None = None
    _characters: int = 0

    def add(self, line: str) -> None:
        """Add `line`, or stop the search if the output is full."""
        self._characters += len(line) + 1
        if self._characters > MAX_CHARACTERS:
            self.stop("output limit reached; narrow the search")
        else:
            self.lines.append(line)

    def count_skipped(self, kind: str) -> None:
        """Count one more skipped item of this kind."""
        self.skipped[kind] = self.skipped.get(kind, 0) + 1

    def stop(self, reason: str) -> None:
        """Stop the search; the first reason is reported."""
        self.stopped = self.stopped or reason

    def check_time(self) -> None:
        """Stop the search at its time limit."""
        if time.monotonic() > self.stop_at:
            self.stop("time limit reached; use a narrower path")

    def to_text(self, nothing: str) -> str:
        """Return the output, with `nothing` in place of an empty list."""
        ends = [f"[{self.stopped}]"] if self.stopped else []
        ends += [f"[skipped: {count} {kind}]" for kind, count in self.skipped.items()]
        return "\n".join([*(self.lines or [nothing]), *ends])


def search(request: dict[str, Any]) -> str:
    """Execute a request of `service.tools.workspace.search`. Raises `ToolError`."""
    output = SearchOutput(time.monotonic() + request["seconds"])
    kind = find if request["kind"] == "find" else grep
    with Workspace(Path(request["root"]), map(Path, request["hidden"])).open_entry(request["path"]) as target:
        target.check_visible()
        status = target.stat()
        if status is None:
            raise FileNotFoundError
        if stat.S_ISDIR(status.st_mode):
            output.prefix = "" if target.shown == "." else f"{target.shown}/"
            directory = target.open_directory()
            try:
                return kind(request, walk(directory, output, target.hidden), output)
            finally:
                os.close(directory)
        check_regular(status.st_mode, target.shown)
        output.prefix = target.shown.rpartition("/")[0]
        output.prefix += "/" if output.prefix else ""
        only = Entry(target.directory, target.name, target.name, status.st_mode, target.hidden)
        return kind(request, iter([only]), output)


def walk(directory: int, output: SearchOutput, hidden: HiddenFiles, path: str = "", depth: int = 0) -> Iterator[Entry]:
    """Yield all entries below the open `directory`, parents first. Links are yielded, not followed.

    Hidden entries are skipped.
    """
    with closing(os.scandir(directory)) as entries:
        names = sorted(entry.name for entry in islice(entries, MAX_ENTRIES))
    if len(names) == MAX_ENTRIES:
        output.count_skipped(f"directory's entries beyond {MAX_ENTRIES}")
    for name in names:
        output.check_time()
        if output.stopped:
            return
        with suppress(OSError, ToolError):  # removed or changed meanwhile, or not readable
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if hidden.hides_name(directory, name) or hidden.hides(status):
                continue
            entry = Entry(directory, name, path + name, status.st_mode, hidden)
            yield entry
            if stat.S_ISDIR(status.st_mode) and name not in SKIPPED_DIRECTORIES:
                yield from _walk_into(entry, output, depth + 1)


def _walk_into(entry: Entry, output: SearchOutput, depth: int) -> Iterator[Entry]:
    if depth > MAX_DEPTH:
        output.count_skipped(f"directories more than {MAX_DEPTH} deep")
        return
    directory = open_subdirectory(entry.name, entry.directory, entry.path, entry.hidden)
    try:
        yield from walk(directory, output, entry.hidden, f"{entry.path}/", depth)
    finally:
        os.close(directory)


def find(request: dict[str, Any], entries: Iterator[Entry], output: SearchOutput) -> str:
    """Return the paths that match the request's glob, one per line, directories with a trailing slash."""
    matches = compile_glob(request["pattern"])
    for entry in entries:
        if not matches(entry.path):
            continue
        if len(output.lines) == MAX_PATHS:
            output.stop(f"limit of {MAX_PATHS} paths reached; narrow the pattern")
            break
        end = "/" if stat.S_ISDIR(entry.mode) else "" if stat.S_ISREG(entry.mode) else f" ({kind_of(entry.mode)})"
        output.add(output.prefix + to_display(entry.path) + end)
    return output.to_text("(no path matches)")


def grep(request: dict[str, Any], entries: Iterator[Entry], output: SearchOutput) -> str:
    """Return the lines that match the request's regular expression, as `path:number: line`."""
    try:
        regex = re.compile(request["pattern"], re.IGNORECASE if request["ignore_case"] else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise ToolError(f"The pattern is not a valid regular expression: {error}. Escape literal characters.") from None
    wanted = compile_glob(request["glob"]) if request["glob"] else None
    left = MAX_MATCHES
    for entry in entries:
        if not stat.S_ISREG(entry.mode) or (wanted is not None and not wanted(entry.path)):
            continue
        lines = _text_lines(entry, output)
        matches = list(islice(_matches(regex, lines, output), left + 1))
        if len(matches) > left:
            output.stop(f"limit of {MAX_MATCHES} matching lines reached; narrow the search")
        _add_matches(dict(matches[:left]), lines, request["context"], output.prefix + to_display(entry.path), output)
        left -= len(matches)
        if output.stopped:
            break
    return output.to_text("(no line matches)")


def _text_lines(entry: Entry, output: SearchOutput) -> list[str]:
    try:
        with open_regular_file(entry.name, entry.directory, entry.path, entry.hidden) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ToolError):
        output.count_skipped("files that could not be read")
        return []
    if b"\0" in content[:_SNIFF_BYTES]:
        output.count_skipped("binary files")
        return []
    if len(content) > MAX_FILE_BYTES:
        output.count_skipped(f"files of more than {MAX_FILE_BYTES} bytes")
        return []
    return content.decode("utf-8-sig", "replace").removesuffix("\n").split("\n") if content else []


def _matches(regex: re.Pattern[str], lines: list[str], output: SearchOutput) -> Iterator[tuple[int, int]]:
    """Yield the index of each matching line and the position of its match."""
    for index, line in enumerate(lines):
        if index % _LINES_BETWEEN_CHECKS == 0:
            output.check_time()
            if output.stopped:
                return
        if match := regex.search(line.removesuffix("\r")):
            yield index, match.start()


def _add_matches(matches: dict[int, int], lines: list[str], context: int, path: str, output: SearchOutput) -> None:
    previous = -2
    around = {index for number in matches for index in range(max(0, number - context), number + context + 1)}
    for index in sorted(around):
        if index >= len(lines):
            break
        if context and output.lines and index != previous + 1:
            output.add("--")
        mark = ":" if index in matches else "-"
        output.add(f"{path}{mark}{index + 1}{mark} {_excerpt(lines[index], matches.get(index, 0))}")
        previous = index


def _excerpt(line: str, match_at: int) -> str:
    """Truncate a long line around its match."""
    line = line.removesuffix("\r")
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    begin = max(0, match_at - MAX_LINE_CHARACTERS // 2)
    end = begin + MAX_LINE_CHARACTERS
    before = f"[{begin} characters omitted] " if begin else ""
    return f"{before}{line[begin:end]}{' [line truncated]' if len(line) > end else ''}"


def main() -> None:
    """Execute the request on standard input and print `{"text"}` or `{"error"}`."""
    request = json.load(sys.stdin.buffer)
    signal.setitimer(
        signal.ITIMER_REAL, request["seconds"] + GRACE_SECONDS
    )  # without a handler the signal ends the process
    os.nice(_NICENESS)  # runs that stream have priority
    read_only(request["root"], [os.path.realpath(path) for path in request["hidden"]])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        response = {"text": search(request)}
    except ToolError as error:
        response = {"error": str(error)}
    except MemoryError:
        response = {"error": "The search ran out of memory. Use a simpler pattern."}
    sys.stdout.buffer.write(json.dumps(response).encode())


if __name__ == "__main__":
    main()
