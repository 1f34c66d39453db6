"""The program behind `find` and `grep`: one request as JSON on standard input, one answer on standard output.

It is a process of its own because a regular expression may take for ever and cannot be interrupted. The kernel ends
it when its time is up, whether or not anybody waits. Needs only the standard library.
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

from service.tools.tool import ToolError
from service.tools.workspace.filenames import to_display
from service.tools.workspace.globs import compile_glob
from service.tools.workspace.hidden import HiddenFiles
from service.tools.workspace.paths import (
    MAX_DEPTH,
    Workspace,
    check_regular,
    kind_of,
    open_regular_file,
    open_subdirectory,
)

MAX_PATHS = 1_000
MAX_MATCHES = 200
MAX_LINE_CHARACTERS = 400
MAX_CHARACTERS = 48_000
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 100_000
#: Directories that hold nothing a person wrote; they are searched only when the path names them.
LEFT_OUT = frozenset({".git", "node_modules", "__pycache__", ".venv"})

_SNIFF_BYTES = 8 * 1024
_LINES_BETWEEN_CHECKS = 50
_NICENESS = 10
_MEMORY_BYTES = 1024 * 1024 * 1024
#: How much longer than its time for walking the process may live: what is left over is the regular expression's.
GRACE_SECONDS = 0.5


class Entry(NamedTuple):
    """Something met on the way: `name` in the open `directory`; `path` from where the search began, undecorated."""

    directory: int
    name: str
    path: str
    mode: int
    hidden: HiddenFiles


@dataclass(slots=True)
class Findings:
    """What is told: lines, bounded, and what was left out of them."""

    stop_at: float
    prefix: str = ""  # from the workspace to where the search begins
    lines: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    stopped: str | None = None
    _characters: int = 0

    def add(self, line: str) -> None:
        """Tell `line`, if there is room for it."""
        self._characters += len(line) + 1
        if self._characters > MAX_CHARACTERS:
            self.stop("there is more; narrow the search down")
        else:
            self.lines.append(line)

    def note(self, what: str) -> None:
        """Count one more of `what` among the things left out."""
        self.notes[what] = self.notes.get(what, 0) + 1

    def stop(self, why: str) -> None:
        """End the search; the first reason is told."""
        self.stopped = self.stopped or why

    def check_time(self) -> None:
        """Stop when the time for walking is up."""
        if time.monotonic() > self.stop_at:
            self.stop("the search took too long and was stopped here; name a narrower path")

    def to_text(self, nothing: str) -> str:
        """The answer, with `nothing` in the place of no lines."""
        ends = [f"[{self.stopped}]"] if self.stopped else []
        ends += [f"[left out: {count} {what}]" for what, count in self.notes.items()]
        return "\n".join([*(self.lines or [nothing]), *ends])


def search(request: dict[str, Any]) -> str:
    """The answer to a request as `service.tools.workspace.search` makes it. Raises `ToolError`."""
    findings = Findings(time.monotonic() + request["seconds"])
    kind = find if request["kind"] == "find" else grep
    with Workspace(Path(request["root"]), request["hidden"]).open_place(request["path"]) as place:
        place.check_visible()
        found = place.stat()
        if found is None:
            raise FileNotFoundError
        if stat.S_ISDIR(found.st_mode):
            findings.prefix = "" if place.shown == "." else f"{place.shown}/"
            directory = place.open_directory()
            try:
                return kind(request, walk(directory, findings, place.hidden), findings)
            finally:
                os.close(directory)
        check_regular(found.st_mode, place.shown)
        findings.prefix = place.shown.rpartition("/")[0]
        findings.prefix += "/" if findings.prefix else ""
        only = Entry(place.directory, place.name, place.name, found.st_mode, place.hidden)
        return kind(request, iter([only]), findings)


def walk(directory: int, findings: Findings, hidden: HiddenFiles, path: str = "", depth: int = 0) -> Iterator[Entry]:
    """Everything beneath the open `directory`, each directory before what is in it; links are told, not followed.

    What is hidden is left out.
    """
    with closing(os.scandir(directory)) as entries:
        names = sorted(entry.name for entry in islice(entries, MAX_ENTRIES))
    if len(names) == MAX_ENTRIES:
        findings.note(f"directory's entries beyond {MAX_ENTRIES}")
    for name in names:
        findings.check_time()
        if findings.stopped:
            return
        with suppress(OSError, ToolError):  # gone or changed meanwhile, or not ours to read
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if hidden.hides_name(directory, name) or hidden.hides(status):
                continue
            entry = Entry(directory, name, path + name, status.st_mode, hidden)
            yield entry
            if stat.S_ISDIR(status.st_mode) and name not in LEFT_OUT:
                yield from _walk_into(entry, findings, depth + 1)


def _walk_into(entry: Entry, findings: Findings, depth: int) -> Iterator[Entry]:
    if depth > MAX_DEPTH:
        findings.note(f"directories more than {MAX_DEPTH} deep")
        return
    directory = open_subdirectory(entry.name, entry.directory, entry.path, entry.hidden)
    try:
        yield from walk(directory, findings, entry.hidden, f"{entry.path}/", depth)
    finally:
        os.close(directory)


def find(request: dict[str, Any], entries: Iterator[Entry], findings: Findings) -> str:
    """The paths that match the request's glob, one a line, directories with a slash at their end."""
    matches = compile_glob(request["pattern"])
    for entry in entries:
        if not matches(entry.path):
            continue
        if len(findings.lines) == MAX_PATHS:
            findings.stop(f"these are the first {MAX_PATHS}; narrow the pattern down")
            break
        end = "/" if stat.S_ISDIR(entry.mode) else "" if stat.S_ISREG(entry.mode) else f" ({kind_of(entry.mode)})"
        findings.add(findings.prefix + to_display(entry.path) + end)
    return findings.to_text("(no path matches)")


def grep(request: dict[str, Any], entries: Iterator[Entry], findings: Findings) -> str:
    """The lines that match the request's regular expression, as `path:number: line`."""
    try:
        regex = re.compile(request["pattern"], re.IGNORECASE if request["ignore_case"] else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise ToolError(f"The pattern is not a regular expression: {error}. Escape what is meant literally.") from None
    wanted = compile_glob(request["glob"]) if request["glob"] else None
    left = MAX_MATCHES
    for entry in entries:
        if not stat.S_ISREG(entry.mode) or (wanted is not None and not wanted(entry.path)):
            continue
        lines = _text_lines(entry, findings)
        matches = list(islice(_matches(regex, lines, findings), left + 1))
        if len(matches) > left:
            findings.stop(f"these are the first {MAX_MATCHES} matching lines; narrow the search down")
        _tell(dict(matches[:left]), lines, request["context"], findings.prefix + to_display(entry.path), findings)
        left -= len(matches)
        if findings.stopped:
            break
    return findings.to_text("(no line matches)")


def _text_lines(entry: Entry, findings: Findings) -> list[str]:
    try:
        with open_regular_file(entry.name, entry.directory, entry.path, entry.hidden) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ToolError):
        findings.note("files that could not be read")
        return []
    if b"\0" in content[:_SNIFF_BYTES]:
        findings.note("binary files")
        return []
    if len(content) > MAX_FILE_BYTES:
        findings.note(f"files of more than {MAX_FILE_BYTES} bytes")
        return []
    return content.decode("utf-8-sig", "replace").removesuffix("\n").split("\n") if content else []


def _matches(regex: re.Pattern[str], lines: list[str], findings: Findings) -> Iterator[tuple[int, int]]:
    """The index of each line that matches, and of the match's first character in it."""
    for index, line in enumerate(lines):
        if index % _LINES_BETWEEN_CHECKS == 0:
            findings.check_time()
            if findings.stopped:
                return
        if match := regex.search(line.removesuffix("\r")):
            yield index, match.start()


def _tell(matches: dict[int, int], lines: list[str], context: int, path: str, findings: Findings) -> None:
    previous = -2
    around = {index for number in matches for index in range(max(0, number - context), number + context + 1)}
    for index in sorted(around):
        if index >= len(lines):
            break
        if context and findings.lines and index != previous + 1:
            findings.add("--")
        mark = ":" if index in matches else "-"
        findings.add(f"{path}{mark}{index + 1}{mark} {_shown(lines[index], matches.get(index, 0))}")
        previous = index


def _shown(line: str, match_at: int) -> str:
    """`line`, or as much of a long one as has its match in sight."""
    line = line.removesuffix("\r")
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    begin = max(0, match_at - MAX_LINE_CHARACTERS // 2)
    end = begin + MAX_LINE_CHARACTERS
    before = f"[{begin} characters before] " if begin else ""
    return f"{before}{line[begin:end]}{' [the line goes on]' if len(line) > end else ''}"


def main() -> None:
    """Answer the one request of standard input with `{"text"}` or `{"error"}`."""
    request = json.load(sys.stdin.buffer)
    signal.setitimer(signal.ITIMER_REAL, request["seconds"] + GRACE_SECONDS)  # unhandled, so it ends the process
    os.nice(_NICENESS)  # streams go first
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        answer = {"text": search(request)}
    except ToolError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "The search took too much memory. Use a simpler pattern."}
    sys.stdout.buffer.write(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
