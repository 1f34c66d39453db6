"""The run itself: ask the model, pass on what it says, tell what it wants.

A failure is raised as `GatewayError`; what was said before stays in the run's log.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

from service.errors import GatewayError
from service.events import TextDelta, ToolCallRequested
from service.messages import Message, Role, StopReason, Text, ToolCall, ToolChoice, ToolChoiceMode, Usage
from service.providers import ModelEnded, ModelRequest, ModelText, Provider
from service.runs import Run


@dataclass(slots=True)
class Reply:
    """What the model has said so far; complete once `run_model` has returned."""

    pieces: list[str] = field(default_factory=list)
    tool_calls: tuple[ToolCall, ...] = ()
    stop_reason: StopReason = StopReason.STOP
    usage: Usage = Usage()

    def to_message(self) -> Message:
        """The reply as the assistant's message of the transcript."""
        text = "".join(self.pieces)
        return Message(Role.ASSISTANT, (Text(text),) if text else (), tool_calls=self.tool_calls)


def run_model(run: Run, provider: Provider, request: ModelRequest, reply: Reply) -> None:
    """Ask `provider` and fill `reply`, telling the run's readers piece by piece.

    Returns when the model has finished. Raises what the provider raises, and `tool_choice_not_met` when the model did
    not make the call the request demands; then no call is told.
    """
    with closing(provider.stream(request)) as events:  # type: ignore[type-var]  # a generator in every dialect
        for event in events:
            if isinstance(event, ModelText):
                reply.pieces.append(event.text)
                run.append(TextDelta(event.text))
            else:
                _finish(run, request.tool_choice, event, reply)


def _finish(run: Run, choice: ToolChoice, ended: ModelEnded, reply: Reply) -> None:
    _check_tool_choice(choice, ended.tool_calls)
    reply.tool_calls, reply.stop_reason, reply.usage = ended.tool_calls, ended.stop_reason, ended.usage
    for index, call in enumerate(ended.tool_calls):
        run.append(ToolCallRequested(index, call))


def _check_tool_choice(choice: ToolChoice, calls: tuple[ToolCall, ...]) -> None:
    if choice.mode is not ToolChoiceMode.REQUIRED:
        return
    if choice.name is None and not calls:
        text = "`tool_choice` requires a tool call, but the model answered without one. Try again or use another model."
        raise GatewayError("tool_choice_not_met", text, param="tool_choice")
    if choice.name is not None and not any(call.name == choice.name for call in calls):
        text = f"`tool_choice` requires a call of {choice.name}, but the model did not make it. Try again."
        raise GatewayError("tool_choice_not_met", text, param="tool_choice")
