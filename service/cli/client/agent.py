"""Interface of the clients that run an agent for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import click

from service.core.dataclass import record
from service.storage.sessions.keys import default_session_key


@record
class AgentInvocation:
    """One turn of an agent: `agent_id` `None` is the default agent, `session_key` may lack the agent prefix.

    `model` is "provider/model" for this run only; `timeout_seconds` limits the run, `None` uses the agent's limit. With
    `json_schema` the answer is valid against it.
    """

    message: str
    agent_id: str | None
    session_key: str
    model: str | None
    timeout_seconds: float | None
    json_schema: dict[str, Any] | None = None


@record
class TextOutput:
    """The next piece of the agent's output."""

    text: str


@record
class ToolCallStarted:
    """The agent called one of its tools."""

    name: str


@record
class AgentResult:
    """End of the turn: `text` is the complete output, `outcome` the JSON result."""

    text: str
    outcome: dict[str, Any]


AgentEvent = TextOutput | ToolCallStarted | AgentResult


class AgentClient(Protocol):
    """A client that runs an agent."""

    def run(self, request: AgentInvocation) -> Iterator[AgentEvent]:
        """Run the agent and iterate over its output; `AgentResult` is last.

        Closing the iterator, or an interrupt inside it, aborts the run. Raises `AgentFailure`.
        """
        ...

    def close(self) -> None:
        """Send what waits to be sent; no run may follow."""
        ...


class AgentFailure(click.ClickException):
    """The turn failed; `code` is the gateway's error code, if there is one."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


def timed_out(seconds: float | None) -> AgentFailure:
    """Error for a turn that exceeded --timeout."""
    return AgentFailure(f"The agent did not finish within {seconds:g} s. The run was aborted.", "run_timeout")


def resolve_session(agent_id: str | None, session_id: str | None, session_key: str | None) -> tuple[str | None, str]:
    """Resolve the options to an agent and a session key; the agent's main session by default.

    Raises `click.UsageError` for contradictory options.
    """
    if session_id is not None and session_key is not None:
        raise click.UsageError("Use either --session-id or --session-key, not both.")
    own = default_session_key(session_key, session_id)
    if session_key is None:
        return agent_id, own
    first, _, rest = own.partition(":")
    named = rest.partition(":")[0] if first.lower() == "agent" else ""
    if named and agent_id is not None and agent_id.lower() != named.lower():
        raise click.UsageError(f"The session {session_key} belongs to the agent {named}, not to {agent_id}.")
    return named or agent_id, own
