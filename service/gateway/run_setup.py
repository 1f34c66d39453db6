"""What a run needs before the model is asked: tools, history and pictures, got within the run's own time."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Self

from service.agent.conversation import Conversation, annotate_truncated, select_new
from service.agent.hidden_steps import recall_steps
from service.agent.loop import AgentTools
from service.agent.model_fit import fit_choices
from service.agent.request import AgentRequest, check_names
from service.agent.run import Run
from service.agent.system_prompt import to_system_text
from service.config.agents import Agent
from service.core.concurrency import Deadline, deadline
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Message, Role
from service.gateway.runtime import RuntimeLease
from service.models.catalog import ChosenModel
from service.models.provider import ModelRequest
from service.storage.runs.ledger import OpenRun
from service.storage.storage import Storage
from service.tools.tool import ToolContext

#: A shorter wait for room does not matter to anybody.
_TOLD_SECONDS = 0.1


@record
class RunDeadline:
    """The time a run has, from when it has its session on: `seconds` of it, until `ends_at` of the monotonic clock.

    All of it counts: what it waits for room, of which `waited_seconds` tells, and for what it needs.
    """

    seconds: float
    ends_at: float
    waited_seconds: float = 0.0

    @classmethod
    def begin(cls, turn: AgentRequest, agent: Agent) -> Self:
        """What the agent's runs may take, or the turn wants if that is less, from now on."""
        seconds = min(agent.timeout_seconds, turn.timeout_seconds or agent.timeout_seconds)
        return cls(seconds, monotonic() + seconds)

    def after_wait(self) -> Self:
        """The same once there is room."""
        return replace(self, waited_seconds=self.seconds - self.left_seconds)

    @property
    def left_seconds(self) -> float:
        """What is left of it."""
        return max(0.0, self.ends_at - monotonic())

    def is_up(self) -> GatewayError:
        """What the caller of a run that has used it up is told."""
        text = f"The run took longer than its limit of {self.seconds:g} seconds"
        if self.waited_seconds >= _TOLD_SECONDS:
            waited = f"{self.waited_seconds:.1f} of them it waited for room (agents.defaults.maxConcurrent)"
            text = f"{text}; {waited}"
        return GatewayError("run_timeout", f"{text}.")


@record
class PreparedRun:
    """All that a started run needs; `opened` holds its session, `held` what the configuration was when it began.

    `keep_partial`: store partial output on failure. `restartable`: nobody reads output before the end.
    """

    held: RuntimeLease
    time: RunDeadline
    choices: tuple[ChosenModel, ...]
    request: ModelRequest
    conversation: Conversation
    tools: AgentTools
    opened: OpenRun
    keep_partial: bool
    restartable: bool


def prepare(
    turn: AgentRequest,
    time: RunDeadline,
    held: RuntimeLease,
    agent: Agent,
    choices: tuple[ChosenModel, ...],
    run: Run,
    opened: OpenRun,
    state: Storage,
) -> PreparedRun:
    """Make the work of a run that has its session and room.

    Waits for MCP servers and pictures, within its time. Raises `GatewayError` for what is wrong with the turn, or
    `run_timeout`.
    """
    try:
        with deadline(time.left_seconds):
            own = held.parts.toolboxes.of(agent, len(turn.functions), [choice.ref for choice in choices])
            history: tuple[Message, ...] = ()
            incoming = turn.messages
            if not opened.run.stateless:
                history = annotate_truncated(state.store.load_conversation(run.session_key))
            else:
                incoming = recall_steps(incoming, agent.id, state.records, state.store)
            new = held.parts.check_images(select_new(history, incoming))
    except Deadline:
        raise time.is_up() from None
    check_names(turn.functions, own)
    conversation = Conversation(history, tuple(item.message for item in new))
    request = ModelRequest(
        model=choices[0].ref,
        system=to_system_text(agent, held.parts.hidden, channel=turn.channel, request_text=turn.system_text),
        messages=conversation.messages,
        sampling=turn.sampling,
    )
    context = ToolContext(agent.id, agent.workspace, run.session_key, run.id, held.parts.hidden)
    tools = AgentTools(own, context, turn.functions, turn.tool_choice)
    # Whoever sends the same idempotency key may want it as a stream.
    restartable = not turn.streamed and turn.idempotency_key is None
    choices = fit_choices(choices, conversation, with_functions=turn.offers_functions)
    # Only what a reader has seen and nobody will send again by themselves.
    is_plain = all(message.role is Role.USER for message in conversation.new)
    keep_partial = turn.streamed and turn.idempotency_key is None and is_plain
    return PreparedRun(held, time, choices, request, conversation, tools, opened, keep_partial, restartable)
