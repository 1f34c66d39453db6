"""Tools for single files and directories of the workspace: `read`, `write`, `edit`, `ls`.

They work in slices of limited size and yield in between, because file access blocks the event loop.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO, ClassVar

from service.core.concurrency import sleep
from service.core.real_paths import close_directory
from service.tools.tool import ToolAccess, ToolContext, ToolError
from service.tools.workspace.filenames import to_display
from service.tools.workspace.hidden_files import HiddenFiles
from service.tools.workspace.paths import Workspace, kind_of

MAX_READ_LINES = 2_000
MAX_LINE_CHARACTERS = 2_000
MAX_READ_CHARACTERS = 48_000
MAX_EDIT_BYTES = 2 * 1024 * 1024
MAX_EDITS = 100
MAX_WRITE_BYTES = 2 * 1024 * 1024
MAX_LISTED = 1_000
MAX_ENTRIES = 20_000

_SLICE_BYTES = 256 * 1024
_SNIFF_BYTES = 8 * 1024
_ENTRIES_AT_ONCE = 500
_TIMEOUT_SECONDS = 30.0

_PATH = {"type": "string", "minLength": 1, "description": "Path in the workspace, such as `notes/a.txt`."}


class ReadTool:
    """`read`: numbered lines of a text file."""

    name: ClassVar = "read"
    access: ClassVar = ToolAccess(("group:fs",), by_default=True, needs_workspace=True)
    description = (
        "Read a text file of the workspace. Lines come with their numbers, which are not part of the file. "
        f"At most {MAX_READ_LINES} lines at a time: use offset and limit for more."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "path": _PATH,
            "offset": {"type": "integer", "minimum": 1, "description": "The first line to read; 1 by default."},
            "limit": {
                "type": "integer",
                "minimum": 1,
                "description": f"Number of lines to read; {MAX_READ_LINES} at most and by default.",
            },
        },
        "required": ["path"],
        "additionalProperties": False,
    }
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = True

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the requested lines. Raises `ToolError`, also for anything but a text file."""
        offset, limit = int(arguments.get("offset", 1)), int(arguments.get("limit", MAX_READ_LINES))
        with Workspace.of(context).open_entry(arguments["path"]) as entry, entry.open_file() as file:
            _skip_bom(file, entry.shown)
            _skip_lines(file, offset - 1)
            return _numbered_lines(file, offset, min(limit, MAX_READ_LINES))


class WriteTool:
    """`write`: create or replace a whole file."""

    name: ClassVar = "write"
    access: ClassVar = ToolAccess(("group:fs",), needs_workspace=True)
    description = (
        "Write a whole text file of the workspace, replacing an existing one. Missing directories are created. "
        "To change a part of a file, use edit."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"path": _PATH, "content": {"type": "string", "description": "All of the file's text."}},
        "required": ["path", "content"],
        "additionalProperties": False,
    }
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = False

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Write the file atomically. Raises `ToolError`."""
        content = arguments["content"].encode()
        if len(content) > MAX_WRITE_BYTES:
            raise ToolError(f"The content has {len(content)} bytes; at most {MAX_WRITE_BYTES} can be written at once.")
        with Workspace.of(context).open_entry(arguments["path"], create_parents=True) as entry:
            created = entry.replace(content)
            return f"{'Created' if created else 'Replaced'} {entry.shown} ({len(content)} bytes)."


class EditTool:
    """`edit`: exact replacements in a file, all or none."""

    name: ClassVar = "edit"
    access: ClassVar = ToolAccess(("group:fs",), needs_workspace=True)
    description = (
        "Change a text file of the workspace by exact replacement. Each old_text must occur exactly once in the file, "
        "whitespace included: include enough context. Several edits are applied in order, all or none. "
        "Give either edits, or one old_text and new_text."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "path": _PATH,
            "old_text": {"type": "string", "minLength": 1, "description": "The text to replace."},
            "new_text": {"type": "string", "description": "The replacement; may be empty."},
            "edits": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_EDITS,
                "items": {
                    "type": "object",
                    "properties": {
                        "old_text": {"type": "string", "minLength": 1},
                        "new_text": {"type": "string"},
                    },
                    "required": ["old_text", "new_text"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["path"],
        "additionalProperties": False,
    }
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = False

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Apply the edits. Raises `ToolError` and then leaves the file unchanged.

        Does not yield between reading and writing, so that no other tool of this process changes the file in between.
        """
        edits = _edits(arguments)
        with Workspace.of(context).open_entry(arguments["path"]) as entry:
            with entry.open_file() as file:
                text = _editable_text(file.read(MAX_EDIT_BYTES + 1), entry.shown)
            # Models write \n; files with \r\n line ends keep them.
            crlf = 0 < text.count("\n") == text.count("\r\n")
            if crlf:
                text = text.replace("\r\n", "\n")
            lines = []
            for number, (old, new) in enumerate(edits, start=1):
                text, line = _replace_once(text, old, new, f"edits[{number - 1}]: " if len(edits) > 1 else "")
                lines.append(line)
            entry.replace((text.replace("\n", "\r\n") if crlf else text).encode())
            numbers = ", ".join(map(str, lines))
            return f"Edited {entry.shown} at line{'s' if len(lines) > 1 else ''} {numbers}."


class ListTool:
    """`ls`: the entries of a directory."""

    name: ClassVar = "ls"
    access: ClassVar = ToolAccess(("group:fs",), by_default=True, needs_workspace=True)
    description = (
        "List a directory of the workspace: directories end with /, files have their size. "
        f"At most {MAX_LISTED} entries are listed."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"path": {**_PATH, "description": "The directory; the workspace itself by default."}},
        "additionalProperties": False,
    }
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = True

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the entries, sorted by name. Raises `ToolError`."""
        with Workspace.of(context).open_entry(arguments.get("path", ".")) as entry:
            directory = entry.open_directory()
            try:
                names = list(islice(_names(directory), MAX_ENTRIES + 1))
                shown = sorted(names[:MAX_ENTRIES])[:MAX_LISTED]
                lines = [line for name in shown if (line := _entry(name, directory, entry.hidden))]
            finally:
                close_directory(directory)
        if len(names) > MAX_ENTRIES:
            lines.append(f"[more than {MAX_ENTRIES} entries; use find to narrow them down]")
        elif len(names) > len(shown):
            lines.append(f"[{len(names) - len(shown)} more; use find to narrow them down]")
        return "\n".join(lines) or "(the directory is empty)"


def _skip_bom(file: BinaryIO, shown: str) -> None:
    """Move to the start of the text, after a UTF-8 byte order mark. Raises `ToolError` for binary files."""
    start = file.read(_SNIFF_BYTES)
    if b"\0" in start:
        size = os.fstat(file.fileno()).st_size
        raise ToolError(f'"{shown}" is a binary file of {size} bytes; only text can be read.')
    file.seek(len(BOM_UTF8) if start.startswith(BOM_UTF8) else 0)


def _skip_lines(file: BinaryIO, count: int) -> None:
    """Move past `count` lines. Raises `ToolError` if no text follows them."""
    if count == 0:
        return
    passed = 0
    while piece := file.read(_SLICE_BYTES):
        breaks = piece.count(b"\n")
        if passed + breaks >= count:
            end = -1
            for _ in range(count - passed):
                end = piece.index(b"\n", end + 1)
            file.seek(end + 1 - len(piece), os.SEEK_CUR)
            if file.read(1):
                file.seek(-1, os.SEEK_CUR)
                return
            raise _too_few(count)
        passed += breaks
        sleep(0)
    raise _too_few(passed if _ends_with_break(file) else passed + 1)


def _ends_with_break(file: BinaryIO) -> bool:
    if file.tell() == 0:
        return True
    file.seek(-1, os.SEEK_CUR)
    return file.read(1) == b"\n"


def _too_few(lines: int) -> ToolError:
    return ToolError(f"The file has only {lines} line{'' if lines == 1 else 's'}. Use a smaller offset.")


def _numbered_lines(file: BinaryIO, first: int, limit: int) -> str:
    lines: list[str] = []
    ends: list[str] = []
    characters, all_utf8 = 0, True
    for number, (line, is_utf8) in enumerate(_lines(file), start=first):
        if len(lines) == limit or characters + len(line) > MAX_READ_CHARACTERS:
            ends.append(f"[more lines follow; continue with offset {number}]")
            break
        lines.append(f"{number:>6}\t{line}")
        characters += len(lines[-1])
        all_utf8 = all_utf8 and is_utf8
    if not all_utf8:
        ends.append("[not UTF-8: bytes that could not be read are shown as U+FFFD]")
    return "\n".join([*lines, *ends]) or "(the file is empty)"


def _lines(file: BinaryIO) -> Iterator[tuple[str, bool]]:
    """Yield the remaining lines without line ends, truncated, each with a flag: valid UTF-8."""
    while line := file.readline(MAX_LINE_CHARACTERS * 4):
        cut = False
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(_SLICE_BYTES)):
            cut = True
            sleep(0)
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        shown = text[:MAX_LINE_CHARACTERS]
        is_utf8 = "\ufffd" not in shown or line.startswith(shown.encode())
        yield f"{shown} [line truncated]" if cut or len(text) > len(shown) else shown, is_utf8


def _edits(arguments: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    single = "old_text" in arguments and "new_text" in arguments
    if single == ("edits" in arguments) or (not single and ("old_text" in arguments or "new_text" in arguments)):
        raise ToolError("Give either edits, or both old_text and new_text.")
    if single:
        return [(arguments["old_text"], arguments["new_text"])]
    return [(edit["old_text"], edit["new_text"]) for edit in arguments["edits"]]


def _editable_text(content: bytes, shown: str) -> str:
    if len(content) > MAX_EDIT_BYTES:
        raise ToolError(f'"{shown}" is larger than {MAX_EDIT_BYTES} bytes, the most that can be edited.')
    if b"\0" in content[:_SNIFF_BYTES]:
        raise ToolError(f'"{shown}" is a binary file; only text can be edited.')
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f'"{shown}" is not UTF-8 at byte {error.start}; only UTF-8 text can be edited.') from None


def _replace_once(text: str, old: str, new: str, prefix: str) -> tuple[str, int]:
    """Replace the single occurrence of `old`; return the new text and the line number."""
    if "\r\n" not in text:
        old, new = old.replace("\r\n", "\n"), new.replace("\r\n", "\n")
    if old == new:
        raise ToolError(f"{prefix}old_text and new_text are equal, so there is nothing to change.")
    count = text.count(old)
    if count == 0:
        raise ToolError(f"{prefix}old_text was not found. Read the file again and copy the text exactly.")
    if count > 1:
        raise ToolError(f"{prefix}old_text occurs {count} times. Include more context.")
    at = text.index(old)
    return text[:at] + new + text[at + len(old) :], text.count("\n", 0, at) + 1


def _names(directory: int) -> Iterator[str]:
    with closing(os.scandir(directory)) as entries:
        for number, entry in enumerate(entries, start=1):
            yield entry.name
            if number % _ENTRIES_AT_ONCE == 0:
                sleep(0)


def _entry(name: str, directory: int, hidden: HiddenFiles) -> str:
    """Return the line for an entry, empty if it is hidden."""
    shown = to_display(name)
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return f"{shown} (removed meanwhile)"
    if hidden.hides_name(directory, name) or hidden.hides(status):
        return ""
    match kind_of(status.st_mode):
        case "a directory":
            return f"{shown}/"
        case "a file":
            return f"{shown} ({status.st_size} bytes)"
        case other:
            return f"{shown} ({other})"
