"""What a tool is: one protocol, implemented by each module beside this file.

A tool's failure is a message to the model, never a crash of the run: `ToolError` carries the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from service.core.dataclass import record


class ToolError(Exception):
    """A tool could not do what it was asked; the text is told to the model and says what would work."""


@record
class ToolContext:
    """For whom a tool works: the agent, its workspace (None: it has none) and the session and run that ask.

    `hidden` are the gateway's own files and directories, which no tool may reach. `caller_functions` are the names that
    the model may call besides the agent's tools.
    """

    agent_id: str
    workspace: Path | None
    session_key: str
    run_id: str
    hidden: tuple[Path, ...] = ()
    caller_functions: tuple[str, ...] = ()


class Tool(Protocol):
    """Something a model may ask for.

    `parameters` is a JSON schema of an object; arguments are checked against it before `run`. `timeout_seconds` bounds
    one call. With `parallel` several calls of one turn, of this and other parallel tools, may run side by side.
    """

    @property
    def name(self) -> str:
        """What the model calls it: letters, digits, `_` and `-`."""
        ...

    @property
    def description(self) -> str:
        """What the model is told it does."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of its arguments."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """How long one call may take."""
        ...

    @property
    def parallel(self) -> bool:
        """Whether calls may run side by side with others."""
        ...

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Do it and return the result for the model; raises `ToolError`.

        Runs in a greenlet of its own. It may be ended at any moment by an exception that is not an `Exception`
        (`concurrency.Cancelled`, `Deadline`): then it lets go of everything it holds, child processes included, within
        a second.
        """
        ...
