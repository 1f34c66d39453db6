"""What a caller asks for, whatever the door, and what can be wrong with it for an agent."""

from __future__ import annotations

from service.agent.conversation import IncomingMessage
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Function, Sampling, ToolChoice, ToolChoiceMode
from service.models.catalog import ChosenModel
from service.storage.runs.idempotency import IdempotencyKey
from service.tools.toolbox import Toolbox


@record
class AgentRequest:
    """What a caller asks for, in our own words; a door makes it from its wire.

    `model` and `agent_id` name the agent, `provider_model` (`provider/model`) replaces the agent's model for this run,
    `session_key` and `user` pick the session, `channel` is told to the agent. Requests with the same `idempotency_key`
    get the answer of one run, which goes on when its caller leaves. `timeout_seconds` may shorten, not extend, what
    the agent's runs may take. Of a turn that is not `streamed` only the end is read, so that a model that fails in the
    middle may begin anew.
    """

    messages: tuple[IncomingMessage, ...]
    system_text: str = ""
    model: str | None = None
    agent_id: str | None = None
    provider_model: str | None = None
    session_key: str | None = None
    user: str | None = None
    channel: str | None = None
    functions: tuple[Function, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: Sampling = Sampling()
    idempotency_key: IdempotencyKey | None = None
    timeout_seconds: float | None = None
    streamed: bool = True

    @property
    def offers_functions(self) -> bool:
        """Whether the model may call a function of the caller."""
        return bool(self.functions) and self.tool_choice.mode is not ToolChoiceMode.NONE


def check_names(functions: tuple[Function, ...], own: Toolbox) -> None:
    """Raise `GatewayError` if one of the caller's functions is called like one of the agent's own tools."""
    for index, function in enumerate(functions):
        if function.name in own:
            text = f'The agent has a tool of its own that is called "{function.name}". Give yours another name.'
            raise GatewayError("invalid_value", text, param=f"tools[{index}].function.name")


def check_model(turn: AgentRequest, model: ChosenModel) -> None:
    """Raise `GatewayError` if the turn has pictures that `model` cannot see or functions that it cannot call."""
    if turn.offers_functions and not model.calls_functions:
        text = f"The model {model.ref} cannot call functions. Leave `tools` out, or choose a model that calls them."
        raise GatewayError("unsupported_parameter", text, param="tools")
    if model.takes_images:
        return
    for item in turn.messages:
        if item.message.has_image:
            text = f"The model {model.ref} does not take images. Send text only, or choose a model that takes images."
            raise GatewayError("invalid_value", text, param=f"{item.place}.content")
