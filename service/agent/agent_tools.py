"""The functions that the model may call in one run."""

from __future__ import annotations

from service.core.dataclass import record, replace
from service.core.ids import new_call_id
from service.core.messages import Function, ToolCall, ToolChoice, ToolChoiceMode
from service.models.provider import ModelRequest
from service.tools.tool import ToolContext
from service.tools.toolbox import Toolbox


@record
class AgentTools:
    """The functions available to the model in one run: the agent's own tools and the caller's.

    `callers` are the `caller_functions` of `context`. The model may use the agent's own tools `max_calls` times.
    """

    own: Toolbox
    context: ToolContext
    callers: tuple[Function, ...]
    choice: ToolChoice
    max_calls: int | None = None

    def offered(self) -> tuple[tuple[Function, ...], ToolChoice]:
        """Return the functions and the tool choice to send to the model.

        "required" and a named function mean the caller's functions, so only those are sent. "none" excludes the
        caller's functions; the agent's own stay.
        """
        if self.choice.mode is ToolChoiceMode.REQUIRED:
            return self.callers, self.choice
        if self.choice.mode is ToolChoiceMode.NONE:
            return self.own.functions(), ToolChoice()
        return self.own.functions(self.callers), self.choice

    def limit_to_ends(self, request: ModelRequest) -> ModelRequest:
        """Return `request` restricted to choices that end the run: calls of the caller's functions.

        If none are available the tool choice is "none"; the functions stay, since providers require the definitions of
        functions called earlier.
        """
        if self.choice.mode is ToolChoiceMode.NONE or not self.callers:
            return replace(request, tool_choice=ToolChoice(ToolChoiceMode.NONE))
        return replace(request, functions=self.callers)

    def is_callers(self, call: ToolCall) -> bool:
        """Return True if `call` is a call of an offered function of the caller."""
        return call.name in self.context.caller_functions and self.choice.mode is not ToolChoiceMode.NONE

    def with_own_ids(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        """Return `calls`, with unique ids for the caller's functions: many providers merely number their calls."""
        return tuple([replace(call, id=new_call_id()) if self.is_callers(call) else call for call in calls])
