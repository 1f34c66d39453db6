"""A sandbox for the command of an MCP server. Needs only the standard library."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from service.core.processes.confined_exec import words_before
from service.core.processes.sandbox import PROGRAM_DIRECTORIES, Kind, Sandbox, choose_sandbox, describe
from service.tools.workspace.hidden_files import HiddenFiles

_PRIVATE = "/tmp"  # noqa: S108 - bubblewrap's is private


class McpSandbox(NamedTuple):
    """The wanted sandbox of a server: only its directory and $TMPDIR are writable, and `hidden` cannot be read."""

    kind: Kind | Literal["auto"]
    network: bool = True
    hidden: tuple[str, ...] = ()
    program_directories: str = PROGRAM_DIRECTORIES

    def to_text(self) -> str:
        """Describe it in a clause of plain English. Starts a program to test it."""
        try:
            kind, _ = choose_sandbox(self.kind, self.program_directories)
        except OSError as error:
            return f"the server is not started, as its {_remedy(error)}"
        return f"the server runs in a sandbox: {describe(kind, network=self.network)}"

    @contextmanager
    def confine(self, cwd: str | None) -> Iterator[tuple[tuple[str, ...], Mapping[str, str]]]:
        """Yield the words before a command that starts in `cwd` and the variables to add to its environment.

        A temporary directory exists until the end of the block. Raises `OSError` if no sandbox works here.
        """
        try:
            kind, program = choose_sandbox(self.kind, self.program_directories)
        except OSError as error:
            raise OSError(f"its {_remedy(error)}") from error
        files = HiddenFiles(map(Path, self.hidden))
        if (problem := files.link_problem()) is not None:
            raise OSError(problem)
        writable = () if cwd is None else (cwd,)
        if set(writable) & set(files.paths):
            raise OSError("its directory is the gateway's own; set another cwd")
        with tempfile.TemporaryDirectory(prefix="openclaw-mcp-") as directory:
            temporary = os.path.realpath(directory) if kind == "landlock" else _PRIVATE
            hidden = files.paths_with_copies(writable[0] if writable else temporary)
            sandbox = Sandbox(kind, writable, hidden, self.network, program)
            yield words_before(sandbox, temporary), {"TMPDIR": temporary}


def _remedy(error: OSError) -> str:
    return f'sandbox does not work here: {error}. Install bubblewrap, choose another sandbox, or set it to "off"'


@contextmanager
def confine(settings: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, str]]]:
    """Confine the command of a server's `settings` as `McpSandbox.confine` does; without a sandbox, add nothing.

    Raises `OSError` if a link leads to its directory: an agent can have made it, to have the server work elsewhere.
    """
    if (cwd := settings["cwd"]) is not None and os.path.realpath(cwd) != cwd:
        raise OSError("a symbolic link leads to its directory; set its cwd to the real path")
    if settings["sandbox"] is None:
        yield (), {}
        return
    with McpSandbox(*settings["sandbox"]).confine(settings["cwd"]) as confined:
        yield confined
