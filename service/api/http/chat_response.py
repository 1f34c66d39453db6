"""A run as OpenAI's chat completion: one object, or a stream of chunks as Server-Sent Events."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import orjson

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
from service.agent.request import REASONING, TOOLS
from service.agent.run import Run, RunResult
from service.api.http.responses import FinalPiece
from service.core.messages import ToolCall, Usage
from service.models.tool_calls import wire_arguments

#: Maximum silence of a stream once its run has begun; then a comment line is sent.
QUIET_SECONDS = 15.0

#: Events that are visible to every caller, and by their kind to those that want to see them.
_VISIBLE_EVENTS = (TextDelta, ToolCallWritten, ToolCallRequested, RunEnded)
_EVENTS_OF_KIND = {REASONING: (ReasoningDelta,), TOOLS: (ToolStarted, ToolEnded)}

_LABEL_CHARACTERS = 80

_COMMENT = b": still working\n\n"
_DONE = b"data: [DONE]\n\n"


def to_completion(
    run: Run,
    answer: RunResult,
    model: str,
    *,
    shows: Collection[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Translate a finished run to a `ChatCompletion`; `model` is returned as the caller sent it.

    `shows` are the kinds of events that the caller wants to see beside the text.
    """
    content = answer.text if answer.text or not answer.tool_calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning and REASONING in shows:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [_to_tool_call(call) for call in answer.tool_calls]
    choice = {"index": 0, "message": message, "finish_reason": answer.stop_reason, "logprobs": None}
    completion = {
        "id": run.id,
        "object": "chat.completion",
        "created": int(run.accepted_at),
        "model": model,
        "choices": [choice],
        "usage": to_usage(answer.usage),
    }
    if metadata is not None:
        completion["metadata"] = metadata
    return completion


def _to_tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def to_usage(usage: Usage) -> dict[str, Any]:
    """Translate token counts to the contract's `Usage`."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def _to_progress(kind: str, call: ToolCall) -> dict[str, Any]:
    return {"type": kind, "tool_call_id": call.id, "name": call.name, "label": _to_label(call)}


def _to_label(call: ToolCall) -> str:
    """Return what people may read about a call: the name of the tool, and the first text of the arguments."""
    arguments = wire_arguments(call)
    text = next((" ".join(value.split()) for value in arguments.values() if isinstance(value, str)), "")
    if len(text) > _LABEL_CHARACTERS:
        text = f"{text[: _LABEL_CHARACTERS - 1]}…"
    return f"{call.name}: {text}" if text else call.name


class ChunkStream:
    """The events of a run as the bytes of an event stream: call `begin` first, then iterate.

    The constant part of every chunk is encoded once. After `quiet_seconds` without events a comment line is sent.
    `shows` are the kinds of events that the caller wants to see beside the text.
    """

    def __init__(
        self,
        run: Run,
        model: str,
        *,
        include_usage: bool,
        shows: Collection[str] = (),
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._run = run
        self._visible: tuple[type[RunEvent], ...] = _VISIBLE_EVENTS
        for kind in shows:
            if kind != REASONING or run.shows_reasoning:
                self._visible += _EVENTS_OF_KIND[kind]
        self._quiet_seconds = quiet_seconds
        self._batches = run.follow(quiet_seconds)
        self._first: list[RunEvent] = []
        self._written: dict[int, int] = {}  # characters of the arguments of calls, by their indexes
        head = {
            "id": run.id,
            "object": "chat.completion.chunk",
            "created": int(run.accepted_at),
            "model": model,
        }
        if include_usage:
            head["usage"] = None
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":[{"index":0,"logprobs":null,"finish_reason":'
        self._usage_head = None
        if include_usage:
            del head["usage"]
            self._usage_head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":[],"usage":'

    def begin(self) -> None:
        """Wait for the first event that is visible to the caller, at most `quiet_seconds` from the run's beginning.

        Raises the `GatewayError` of a run that fails before that event, while the status can still be chosen.
        """
        for batch in self._batches:
            self._first += batch
            is_quiet = not batch and self._run.has_begun
            if is_quiet or any(isinstance(event, self._visible) for event in batch):
                break
            if self._run.running_seconds >= self._quiet_seconds:
                break
        visible = [event for event in self._first if isinstance(event, self._visible)]
        if len(visible) == 1 and isinstance(visible[0], RunEnded) and visible[0].error is not None:
            raise visible[0].error.copy()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the role and the first events, then events as they come, `[DONE]` last; never raises."""
        opening = self._chunk({"role": "assistant", "content": "", "refusal": None})
        yield self._to_piece(self._first, opening)
        if not self._first or not isinstance(self._first[-1], RunEnded):
            for batch in self._batches:
                yield self._to_piece(batch) if batch else _COMMENT

    def _to_piece(self, batch: Sequence[RunEvent], opening: bytes = b"") -> bytes:
        piece = opening + b"".join(map(self._encode, batch))
        return FinalPiece(piece) if batch and isinstance(batch[-1], RunEnded) else piece

    def _chunk(self, delta: object, finish_reason: bytes = b"null") -> bytes:
        return b'%b%b,"delta":%b}]}\n\n' % (self._head, finish_reason, orjson.dumps(delta))

    def _encode(self, event: RunEvent) -> bytes:
        if isinstance(event, TextDelta):
            return self._chunk({"content": event.text})
        if isinstance(event, ToolCallWritten):
            return self._arguments(event.index, event.id, event.name, event.text)
        if isinstance(event, ToolCallRequested):
            call = event.call
            return self._arguments(event.index, call.id, call.name, call.arguments[self._written.get(event.index, 0) :])
        if isinstance(event, RunEnded):
            return self._end(event)
        return self._beside_text(event) if isinstance(event, self._visible) else b""

    def _beside_text(self, event: RunEvent) -> bytes:
        if isinstance(event, ReasoningDelta):
            return self._chunk({"reasoning_content": event.text})
        if isinstance(event, ToolStarted):
            return self._extension(_to_progress("tool.started", event.call))
        if isinstance(event, ToolEnded):
            outcome = {"ok": not event.failed, "duration_ms": event.duration_ms}
            return self._extension(_to_progress("tool.ended", event.call) | outcome)
        return b""

    def _extension(self, members: object) -> bytes:
        return b'%bnull,"delta":{}}],"openclaw":%b}\n\n' % (self._head, orjson.dumps(members))

    def _arguments(self, index: int, call_id: str, name: str, text: str) -> bytes:
        """Encode the next piece of a call's arguments, behind the opening of the call if it is the first one."""
        opening = b""
        if index not in self._written:
            opening = self._chunk({"tool_calls": [{"index": index, **_to_tool_call(ToolCall(call_id, name, ""))}]})
        self._written[index] = self._written.get(index, 0) + len(text)
        return opening + self._chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    def _end(self, end: RunEnded) -> bytes:
        if end.error is not None:
            return b"data: " + orjson.dumps(end.error.to_envelope()) + b"\n\n" + _DONE
        finish = self._chunk({}, orjson.dumps(end.stop_reason))
        if self._usage_head is None:
            return finish + _DONE
        return finish + self._usage_head + orjson.dumps(to_usage(end.usage)) + b"}\n\n" + _DONE
