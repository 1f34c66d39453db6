"""A run in which the caller calls one of the agent's tools itself: no model is asked."""

from __future__ import annotations

from collections.abc import Callable

from service.core.errors import GatewayError
from service.core.messages import Role, StopReason, ToolCall
from service.models.provider import ModelEnded, ModelRequest, TextReceiver

#: What such a run has in place of a model.
INVOKED = "gateway/tool"

#: The call, and the answer that repeats its result.
INVOCATION_TURNS = 2

_MAX_ERROR_CHARACTERS = 2000


class InvokedTool:
    """Stands for a model that makes `call` and repeats its result.

    `has_failed` is set if the call has failed; then `tool_failed` is raised with the result.
    """

    def __init__(self, call: ToolCall, has_failed: Callable[[], bool] = lambda: False) -> None:
        self._call = call
        self._has_failed = has_failed

    def ask(
        self, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None] | None = None
    ) -> ModelEnded:
        """See `RestartingProvider.ask`."""
        del on_restart
        last = request.messages[-1] if request.messages else None
        if last is None or last.role is not Role.TOOL:
            return ModelEnded(StopReason.TOOL_CALLS, (self._call,))
        if self._has_failed():
            raise GatewayError("tool_failed", last.text[:_MAX_ERROR_CHARACTERS])
        on_text(last.text)
        return ModelEnded(StopReason.STOP)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
