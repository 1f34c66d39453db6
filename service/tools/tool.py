"""The protocol of a tool. Each tool module of this package implements it.

A tool failure is a message to the model, never a crash of the run: raise `ToolError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from service.core.dataclass import record


class ToolError(Exception):
    """A tool call failed. The message is sent to the model: cause and remedy."""


@record
class ToolContext:
    """The caller of a tool: the agent, its workspace (a real path; `None`: it has none), the session and the run.

    `hidden` are the gateway's own files and directories, which no tool may access. `caller_functions` are names of
    functions that the model may call besides the agent's tools. `agents` are those that the run's caller may use,
    `None` for all.
    """

    agent_id: str
    workspace: Path | None
    session_key: str
    run_id: str
    hidden: tuple[Path, ...] = ()
    caller_functions: tuple[str, ...] = ()
    agents: tuple[str, ...] | None = None


class Tool(Protocol):
    """A function that a model may call.

    `parameters` is a JSON schema of an object; arguments are validated against it before `run`, unless the schema makes
    that costly. `timeout_seconds` limits one call. Calls of one turn run concurrently if all their tools are
    `parallel`.
    """

    @property
    def name(self) -> str:
        """The function name for the model: letters, digits, `_` and `-`."""
        ...

    @property
    def description(self) -> str:
        """The description for the model."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """The time limit of one call."""
        ...

    @property
    def parallel(self) -> bool:
        """True if calls may run concurrently with others."""
        ...

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Execute the call and return the result for the model. Raises `ToolError`.

        Runs in a separate greenlet and may be interrupted at any time by a `BaseException` that is not an `Exception`
        (`concurrency.Cancelled`, `Deadline`): it must then release everything, child processes included, within a
        second.
        """
        ...


@record
class ToolAccess:
    """The place of a built-in tool in the tool policy.

    Lists may name it by any of its `groups`. It is allowed `by_default`, without a profile and lists, only if it
    neither writes, executes nor reaches the network. Denying the tool `denied_with` denies this one, too.
    """

    groups: tuple[str, ...]
    by_default: bool = False
    needs_workspace: bool = False
    denied_with: str | None = None


class BuiltInTool(Tool, Protocol):
    """A tool of this package. Its construction is a row in `service/tools/built_in.py`."""

    name: ClassVar[str]
    access: ClassVar[ToolAccess]
