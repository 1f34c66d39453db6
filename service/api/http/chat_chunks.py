"""Encode the chunks of a chat completion's stream."""

from __future__ import annotations

from typing import Any

import orjson

from service.core.messages import ToolCall, Usage
from service.core.usage import to_dollars
from service.models.tool_calls import wire_arguments

_LABEL_CHARACTERS = 80

#: The end of every stream.
DONE = b"data: [DONE]\n\n"


def to_tool_call(call: ToolCall) -> dict[str, Any]:
    """Translate to the contract's `AnswerToolCall`."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def to_usage(usage: Usage, *, with_cost: bool = False) -> dict[str, Any]:
    """Translate token counts to the contract's `Usage`."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    if with_cost:
        counts["cost"] = to_dollars(usage.cost_nano)
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


class ChunkEncoder:
    """Encodes the chunks of one stream. The constant part of every chunk is encoded once.

    A chunk that begins with an event of the run has its `number`, if there is one: the client can resume behind it.
    With `include_cost` the usage has the cost.
    """

    def __init__(
        self, run_id: str, created_at: float, model: str, *, include_usage: bool, include_cost: bool = False
    ) -> None:
        self._include_cost = include_cost
        self._written: dict[int, int] = {}  # characters of the arguments of calls, by their indexes
        head = {"id": run_id, "object": "chat.completion.chunk", "created": int(created_at), "model": model}
        if include_usage:
            head["usage"] = None
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":[{"index":0,"logprobs":null,"finish_reason":'
        self._usage_head = None
        if include_usage:
            del head["usage"]
            self._usage_head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":[],"usage":'

    def opening(self) -> bytes:
        """Encode the first chunk, which has the role."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None)

    def text(self, text: str, number: int | None = None) -> bytes:
        """Encode a piece of the text."""
        return self._chunk({"content": text}, number)

    def reasoning(self, text: str, number: int | None = None) -> bytes:
        """Encode a piece of the reasoning."""
        return self._chunk({"reasoning_content": text}, number)

    def tool_start(self, call: ToolCall, number: int | None = None) -> bytes:
        """Encode the start of one of the agent's own tools."""
        return self._chunk({}, number, extension=_to_progress("tool.started", call))

    def tool_end(self, call: ToolCall, duration_ms: int, number: int | None = None, *, ok: bool) -> bytes:
        """Encode the end of one of the agent's own tools."""
        outcome = {"ok": ok, "duration_ms": duration_ms}
        return self._chunk({}, number, extension=_to_progress("tool.ended", call) | outcome)

    def arguments(self, index: int, call_id: str, name: str, text: str, number: int | None = None) -> bytes:
        """Encode the next piece of a call's arguments, behind the opening of the call if it is the first one."""
        opening = b""
        if index not in self._written:
            called = to_tool_call(ToolCall(call_id, name, ""))
            opening = self._chunk({"tool_calls": [{"index": index, **called}]}, None)
        self._written[index] = self._written.get(index, 0) + len(text)
        return opening + self._chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]}, number)

    def call(self, index: int, call: ToolCall, number: int | None = None) -> bytes:
        """Encode a complete call, or what is missing of it."""
        rest = call.arguments[self._written.get(index, 0) :]
        return self.arguments(index, call.id, call.name, rest, number)

    def end(self, finish_reason: str, usage: Usage, number: int | None = None) -> bytes:
        """Encode the end of a successful run."""
        finish = self._chunk({}, number, finish_reason=orjson.dumps(finish_reason))
        if self._usage_head is None:
            return finish + DONE
        return finish + self._usage_head + orjson.dumps(to_usage(usage, with_cost=self._include_cost)) + b"}\n\n" + DONE

    def failure(self, error: object) -> bytes:
        """Encode the end of a run with an `ErrorDetails`."""
        return b"data: " + orjson.dumps({"error": error}) + b"\n\n" + DONE

    def _chunk(
        self,
        delta: object,
        number: int | None,
        *,
        finish_reason: bytes = b"null",
        extension: dict[str, Any] | None = None,
    ) -> bytes:
        if number is not None:
            extension = {**(extension or {}), "sequence_number": number}
        tail = b"" if extension is None else b',"openclaw":' + orjson.dumps(extension)
        return b'%b%b,"delta":%b}]%b}\n\n' % (self._head, finish_reason, orjson.dumps(delta), tail)
