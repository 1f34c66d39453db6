"""A run as OpenAI's chat completion: one object, or a stream of chunks as Server-Sent Events."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from service.agent.event_log import units_of
from service.agent.events import (
    ReasoningDelta,
    RunEnded,
    RunEvent,
    TextDelta,
    ToolCallRequested,
    ToolCallWritten,
    ToolEnded,
    ToolStarted,
)
from service.agent.request import REASONING
from service.agent.run import Run, RunResult
from service.api.http.chat_chunks import ChunkEncoder, to_tool_call, to_usage
from service.api.http.run_stream import QUIET_SECONDS, Offer, RunStream


def to_completion(
    run: Run,
    answer: RunResult,
    model: str,
    *,
    shows: Collection[str] = (),
    metadata: Mapping[str, str] | None = None,
    include_cost: bool = False,
) -> dict[str, Any]:
    """Translate a finished run to a `ChatCompletion`; `model` is returned as the caller sent it.

    `shows` are the kinds of events that the caller asks for beside the text.
    """
    content = answer.text if answer.text or not answer.tool_calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning and REASONING in shows:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [to_tool_call(call) for call in answer.tool_calls]
    choice = {"index": 0, "message": message, "finish_reason": answer.stop_reason, "logprobs": None}
    completion = {
        "id": run.id,
        "object": "chat.completion",
        "created": int(run.accepted_at),
        "model": model,
        "choices": [choice],
        "usage": to_usage(answer.usage, with_cost=include_cost),
    }
    if metadata is not None:
        completion["metadata"] = metadata
    return completion


class ChunkStream(RunStream):
    """The chunks of a completion. Those of detached runs, which can be resumed, are numbered.

    `shows` are the kinds of events that the caller asks for beside the text.
    """

    def __init__(
        self,
        run: Run,
        model: str,
        *,
        include_usage: bool,
        include_cost: bool = False,
        shows: Collection[str] = (),
        quiet_seconds: float = QUIET_SECONDS,
        offer: Offer | None = None,
    ) -> None:
        super().__init__(run, shows, quiet_seconds, offer)
        self._encoder = ChunkEncoder(
            run.id, run.accepted_at, model, include_usage=include_usage, include_cost=include_cost
        )
        self._last = 2 if run.accepted.detached else None  # the number of the last event, behind the start of the run

    def _opening(self) -> bytes:
        return self._encoder.opening()

    def _encode(self, event: RunEvent) -> bytes:
        if self._last is not None:
            self._last += units_of(event)
        number, encoder = self._last, self._encoder
        if isinstance(event, TextDelta):
            return encoder.text(event.text, number)
        if isinstance(event, ToolCallWritten):
            return encoder.arguments(event.index, event.id, event.name, event.text)
        if isinstance(event, ToolCallRequested):
            return encoder.call(event.index, event.call, number)
        if isinstance(event, RunEnded):
            if event.error is not None:
                return encoder.failure(event.error.to_envelope()["error"])
            return encoder.end(event.stop_reason, event.usage, None if number is None else number + 1)
        return self._beside_text(event, number) if isinstance(event, self._visible) else b""

    def _beside_text(self, event: RunEvent, number: int | None) -> bytes:
        if isinstance(event, ReasoningDelta):
            return self._encoder.reasoning(event.text, number)
        if isinstance(event, ToolStarted):
            return self._encoder.tool_start(event.call, number)
        if isinstance(event, ToolEnded):
            return self._encoder.tool_end(event.call, event.duration_ms, number, ok=not event.failed)
        return b""
