"""The request for a run, independent of its protocol, and its checks against the agent and the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.agent.conversation import IncomingMessage
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Function, Sampling, ToolCall, ToolChoice, ToolChoiceMode
from service.core.principal import Principal
from service.models.catalog import ChosenModel
from service.models.provider import ModelRequest
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import Protocol, Webhook
from service.tools.toolbox import Toolbox

#: Kinds of events beside the text: the reasoning of the models, and the use of the agent's own tools.
REASONING, TOOLS = "reasoning", "tools"


@record
class AgentRequest:
    """A request for a run, independent of the protocol that carried it.

    `principal` is who sent it: the session that it selects is one of that caller's. `model` and `agent_id` name the
    agent, `provider_model` (`provider/model`) replaces the agent's model for this run, `session_key` and `user` select
    the session; a client that `resends` sends all of it each time. The usage counts for `end_user`. `channel` goes into
    the system prompt. A request with a `task` is a side request of a chat program (`service.agent.side_tasks`).
    Requests with the same `idempotency_key` get the answer of one run, which continues when its caller leaves. A
    `detached` run continues from the start, and is recorded with its `metadata` (JSON) whatever becomes of it;
    `webhook` receives its end. `run_id` is the caller's own name for the run. `response` returns what a response that
    is stored repeats of the request (JSON), given the agent's id and the parameters in force. With a `previous_run_id`
    the messages continue after that run's, wherever these are in the session. `timeout_seconds` may shorten, not
    extend, the agent's limit. The output of a request that is not `streamed` is read only at its end, so that a
    failing model may be retried. `shows` are the kinds of events beside the text, `REASONING` and `TOOLS`, that the
    caller asks for. The agent uses its own tools at most `max_tool_calls` times. A request with a `call` of one of
    the agent's tools asks no model; its session is only where the tool is used.
    """

    principal: Principal
    protocol: Protocol
    messages: tuple[IncomingMessage, ...]
    system_text: str = ""
    model: str | None = None
    agent_id: str | None = None
    provider_model: str | None = None
    session_key: str | None = None
    user: str | None = None
    end_user: str | None = None
    resends: bool = False
    channel: str | None = None
    task: str | None = None
    functions: tuple[Function, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: Sampling = Sampling()
    idempotency_key: IdempotencyKey | None = None
    detached: bool = False
    metadata: str | None = None
    webhook: Webhook | None = None
    response: Callable[[str, Sampling], str] | None = None
    previous_run_id: str | None = None
    timeout_seconds: float | None = None
    streamed: bool = True
    run_id: str | None = None
    shows: frozenset[str] = frozenset()
    max_tool_calls: int | None = None
    call: ToolCall | None = None

    @property
    def offers_functions(self) -> bool:
        """True if the model may call a function of the caller."""
        return bool(self.functions) and self.tool_choice.mode is not ToolChoiceMode.NONE

    @property
    def is_restartable(self) -> bool:
        """True if no reader can get output before the end, as from a retry with the same idempotency key."""
        return not self.streamed and self.idempotency_key is None and not self.detached


def check_names(functions: tuple[Function, ...], own: Toolbox) -> None:
    """Raise `GatewayError` if one of the caller's functions has the name of one of the agent's own tools."""
    for index, function in enumerate(functions):
        if function.name in own:
            text = f'The agent has a tool of its own that is called "{function.name}". Give yours another name.'
            raise GatewayError("invalid_value", text, param=f"tools[{index}].function.name")


def check_model(request: AgentRequest, model: ChosenModel) -> None:
    """Raise `GatewayError` if the request has images or functions that `model` does not support."""
    if request.offers_functions and not model.calls_functions:
        text = f"The model {model.ref} cannot call functions. Leave `tools` out, or choose a model that calls them."
        raise GatewayError("unsupported_parameter", text, param="tools")
    if model.takes_images:
        return
    for item in request.messages:
        if item.message.has_image:
            text = f"The model {model.ref} does not take images. Send text only, or choose a model that takes images."
            raise GatewayError("invalid_value", text, param=f"{item.param}.content")


def check_tool_choice(request: ModelRequest, calls: Sequence[ToolCall]) -> None:
    """Raise `GatewayError` if `calls` are not what the tool choice of `request` requires."""
    choice = request.tool_choice
    if choice.mode is not ToolChoiceMode.REQUIRED:
        return
    offered = {function.name for function in request.functions} if choice.name is None else {choice.name}
    if offered.isdisjoint(call.name for call in calls):
        demanded = "one of the request's `tools`" if choice.name is None else choice.name
        text = f"`tool_choice` requires a call of {demanded}; the model made none. Try again or use another model."
        raise GatewayError("tool_choice_not_met", text, param="tool_choice")
