"""What a run needs before the model is asked: tools, history and pictures, got within the run's own time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from service.agents import Agent
from service.concurrency import Deadline, deadline
from service.conversation import Conversation, select_new
from service.errors import GatewayError
from service.messages import Message
from service.models import ChosenModel
from service.parts import Held
from service.prompt import to_system_text
from service.providers import ModelRequest
from service.recall import recall_steps
from service.runner import AgentTools
from service.runs import Run
from service.sessions.ledger import OpenRun
from service.sessions.state import State
from service.text_only import fit_choices
from service.tools import ToolContext
from service.turn import Turn, check_names


@dataclass(frozen=True, slots=True)
class Work:
    """All that a started run needs; `opened` holds its session, `held` what the configuration was when it began.

    The run has `timeout_seconds` from its admission on, until `ends_at` of the monotonic clock.
    """

    held: Held
    timeout_seconds: float
    ends_at: float
    choices: tuple[ChosenModel, ...]
    request: ModelRequest
    conversation: Conversation
    tools: AgentTools
    opened: OpenRun
    takes_back: bool

    @property
    def left_seconds(self) -> float:
        """What is left of the run's time."""
        return max(0.0, self.ends_at - time.monotonic())


def prepare(
    turn: Turn,
    held: Held,
    agent: Agent,
    choices: tuple[ChosenModel, ...],
    run: Run,
    opened: OpenRun,
    state: State,
) -> Work:
    """Make the work of a run that has just been admitted: its time begins now.

    Waits for MCP servers and pictures. Raises `GatewayError` for what is wrong with the turn, or `run_timeout`.
    """
    timeout_seconds = min(agent.timeout_seconds, turn.timeout_seconds or agent.timeout_seconds)
    ends_at = time.monotonic() + timeout_seconds
    try:
        with deadline(timeout_seconds):
            own = held.parts.toolboxes.of(agent)
            history: tuple[Message, ...] = ()
            incoming = turn.messages
            if not opened.run.stateless:
                history = state.store.load_conversation(run.session_key)
            elif own.functions():
                incoming = recall_steps(incoming, agent.id, state.records, state.store)
            new = held.parts.check_images(select_new(history, incoming))
    except Deadline:
        raise run_timeout(timeout_seconds) from None
    check_names(turn.functions, own)
    conversation = Conversation(history, tuple(item.message for item in new))
    request = ModelRequest(
        model=choices[0].id,
        system=to_system_text(agent, channel=turn.channel, request_text=turn.system_text),
        messages=conversation.messages,
        sampling=turn.sampling,
    )
    context = ToolContext(agent.id, agent.workspace, run.session_key, run.id)
    tools = AgentTools(own, context, turn.functions, turn.tool_choice)
    # Whoever sends the same idempotency key may want it as a stream.
    takes_back = not turn.streamed and turn.idempotency_key is None
    choices = fit_choices(choices, conversation.new)
    return Work(held, timeout_seconds, ends_at, choices, request, conversation, tools, opened, takes_back)


def run_timeout(limit_seconds: float) -> GatewayError:
    """What the caller of a run that has used up its time is told."""
    return GatewayError("run_timeout", f"The run took longer than its limit of {limit_seconds:g} seconds.")
