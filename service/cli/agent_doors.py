"""What running an agent means to the command line, whichever door it goes through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import click

MAIN_SESSION = "main"
#: Sessions that a caller names by an id of its own.
_BY_ID = "explicit"


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """One turn of an agent: `agent_id` `None` is the default agent, `session_key` as the header has it.

    `model` is "provider/model" for this run alone; `timeout_seconds` bounds the whole, `None` leaves that to the agent.
    """

    message: str
    agent_id: str | None
    session_key: str
    model: str | None
    timeout_seconds: float | None


@dataclass(frozen=True, slots=True)
class TextSaid:
    """The agent said `text` next."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUsed:
    """The agent uses one of its tools."""

    name: str


@dataclass(frozen=True, slots=True)
class AgentDone:
    """The turn is over. The usage is counted in tokens."""

    run_id: str
    session_key: str
    input_tokens: int
    output_tokens: int

    def to_meta(self, duration_ms: int) -> dict[str, Any]:
        """What programs are told besides the text."""
        usage = {"input": self.input_tokens, "output": self.output_tokens}
        agent_id = self.session_key.split(":")[1]
        return {
            "durationMs": duration_ms,
            "aborted": False,
            "agentMeta": {
                "agentId": agent_id,
                "sessionKey": self.session_key,
                "usage": {**usage, "total": sum(usage.values())},
            },
        }


AgentEvent = TextSaid | ToolUsed | AgentDone


class AgentDoor(Protocol):
    """A way to an agent."""

    def run(self, request: AgentRequest) -> Iterator[AgentEvent]:
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
    if session_id is not None:
        return agent_id, f"{_BY_ID}:{session_id}"
    if session_key is None:
        return agent_id, MAIN_SESSION
    first, _, rest = session_key.partition(":")
    named = rest.partition(":")[0] if first.lower() == "agent" else ""
    if named and agent_id is not None and agent_id.lower() != named.lower():
        raise click.UsageError(f"The session {session_key} belongs to the agent {named}, not to {agent_id}.")
    return named or agent_id, session_key
