"""What running an agent means to the command line, whichever door it goes through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import click

from service.core.dataclass import record
from service.storage.sessions.keys import default_session_key


@record
class AgentInvocation:
    """One turn of an agent: `agent_id` `None` is the default agent, `session_key` may lack the agent's name.

    `model` is "provider/model" for this run alone; `timeout_seconds` bounds the whole, `None` leaves that to the agent.
    """

    message: str
    agent_id: str | None
    session_key: str
    model: str | None
    timeout_seconds: float | None


@record
class TextSaid:
    """The agent said `text` next."""

    text: str


@record
class ToolUsed:
    """The agent uses one of its tools."""

    name: str


@record
class AgentDone:
    """The turn is over: `text` is all that was said, `outcome` what programs are told."""

    text: str
    outcome: dict[str, Any]


AgentEvent = TextSaid | ToolUsed | AgentDone


class AgentClient(Protocol):
    """A way to an agent."""

    def run(self, request: AgentInvocation) -> Iterator[AgentEvent]:
        """What the agent says as it says it, `AgentDone` last.

        Closing the iterator, or an interrupt inside it, stops the run. Raises `AgentFailure`.
        """
        ...


class AgentFailure(click.ClickException):
    """The turn failed, in words for people."""


def timed_out(seconds: float | None) -> AgentFailure:
    """The failure of a turn that took longer than its caller would wait."""
    return AgentFailure(f"The agent did not finish within {seconds:g} s. Its run was stopped.")


def session_of(agent_id: str | None, session_id: str | None, session_key: str | None) -> tuple[str | None, str]:
    """The agent and the session key that the options mean; the agent's main session where they name none.

    Raises `click.UsageError` when they contradict each other.
    """
    if session_id is not None and session_key is not None:
        raise click.UsageError("Give --session-id or --session-key, not both.")
    own = default_session_key(session_key, session_id)
    if session_key is None:
        return agent_id, own
    first, _, rest = own.partition(":")
    named = rest.partition(":")[0] if first.lower() == "agent" else ""
    if named and agent_id is not None and agent_id.lower() != named.lower():
        raise click.UsageError(f"The session {session_key} belongs to the agent {named}, not to {agent_id}.")
    return named or agent_id, own
