"""The OpenAI chat-completions dialect: our words to its wire and back.

The upstream request always streams and asks for usage; an answer counts as complete only when the provider said so, by
a finish reason or `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import orjson

from service.config.models import ProviderConfig
from service.errors import GatewayError
from service.identifiers import new_call_id
from service.messages import (
    Function,
    Image,
    Message,
    Part,
    Role,
    Sampling,
    StopReason,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)
from service.providers import ModelEnded, ModelEvent, ModelRequest, ModelText
from service.providers.network import DIRECT, Network
from service.providers.payloads import MAX_ANSWER_CHARS, read_texts, to_count
from service.providers.refusals import error_text, refusal
from service.providers.tool_calls import check_calls, wire_arguments_text, wire_name, with_distinct_ids
from service.providers.transport import Upstream

_STREAM_OPTIONS = {"include_usage": True}
#: What some hosts call a field of the API, `None` for one they refuse; the many that copied it know the common names.
_OWN_NAMES: Mapping[str, Mapping[str, str | None]] = {
    "api.openai.com": {"max_tokens": "max_completion_tokens"},  # its reasoning models refuse the old name
    "api.mistral.ai": {"seed": "random_seed", "stream_options": None},  # it counts usage unasked
}
_PLAIN_SAMPLING = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "response_format",
)
_STOP_REASONS = {
    "length": StopReason.LENGTH,
    "tool_calls": StopReason.TOOL_CALLS,
    "function_call": StopReason.TOOL_CALLS,
    "content_filter": StopReason.CONTENT_FILTER,
}


class OpenAIProvider:
    """A place that speaks OpenAI's `POST /chat/completions`, below the base address of `upstream`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._own_names = _OWN_NAMES.get(upstream.host, {})
        self._functions: tuple[Function, ...] = ()
        self._encoded_functions = orjson.Fragment(b"[]")

    @classmethod
    def from_config(cls, config: ProviderConfig, network: Network = DIRECT) -> Self:
        """The provider a `models.providers` entry describes; its own headers win over the API key's."""
        headers = dict(config.headers)
        if config.api_key is not None and "authorization" not in (name.lower() for name in headers):
            headers["Authorization"] = f"Bearer {config.api_key.get_secret_value()}"
        return cls(
            Upstream(config.base_url or "", headers, network=network, read_timeout_seconds=config.timeout_seconds)
        )

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Ask the model; see `Provider.stream` for the contract."""
        body = orjson.dumps(self._to_wire(request), default=_to_plain)
        with self._upstream.post_stream("/chat/completions", body) as response:
            if not 200 <= response.status < 300:  # noqa: PLR2004 - the family of statuses that mean success
                raise refusal(self._upstream, response)
            answer = _Answer(self._upstream, f"call_{new_call_id()}")
            if (response.header("content-type") or "").startswith("application/json"):
                if text := answer.read(response.read_all(MAX_ANSWER_CHARS, self._upstream.read_timeout_seconds)):
                    yield ModelText(text)
            else:
                timeout_seconds = self._upstream.read_timeout_seconds
                yield from map(ModelText, read_texts(response, answer, timeout_seconds=timeout_seconds))
            yield answer.to_end()

    def close(self) -> None:
        """Let go of the connections."""
        self._upstream.close()

    def _to_wire(self, request: ModelRequest) -> dict[str, Any]:
        sampling = request.sampling
        system = [{"role": "system", "content": request.system}] if request.system else []
        wire = {
            **sampling.extra,
            "model": request.model,
            "messages": system + [_to_message(message) for message in request.messages],
            "stream": True,
            "stream_options": _STREAM_OPTIONS,
        }
        for name in _PLAIN_SAMPLING:
            if (value := getattr(sampling, name)) is not None:
                wire[name] = value
        if sampling.stop:
            wire["stop"] = sampling.stop
        if sampling.max_tokens is not None:
            wire["max_tokens"] = sampling.max_tokens
        if request.functions:
            wire["tools"] = self._encode(request.functions)
            wire |= _to_choice(request.tool_choice, sampling)
        return self._renamed(wire) if self._own_names else wire

    def _encode(self, functions: tuple[Function, ...]) -> orjson.Fragment:
        """The functions as they are sent; most calls offer what the one before offered."""
        if functions is not self._functions:
            tools = [{"type": "function", "function": _to_function(one)} for one in functions]
            self._encoded_functions = orjson.Fragment(orjson.dumps(tools, default=_to_plain))
            self._functions = functions
        return self._encoded_functions

    def _renamed(self, wire: dict[str, Any]) -> dict[str, Any]:
        names = ((self._own_names.get(field, field), value) for field, value in wire.items())
        return {name: value for name, value in names if name is not None}


class _PartialCall:
    """A tool call whose pieces are still coming."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class _Answer:
    """What an answer has said so far beside its text."""

    def __init__(self, upstream: Upstream, call_prefix: str) -> None:
        self._upstream = upstream
        self._call_prefix = call_prefix
        self._calls: list[_PartialCall] = []
        self._call_by_index: dict[int, _PartialCall] = {}
        self._calls_chars = 0
        self._usage = Usage()
        self._finish_reason: str | None = None
        self.is_over = False

    def is_complete(self) -> bool:
        """Whether the provider said that this is all."""
        return self.is_over or self._finish_reason is not None

    def read(self, payload: bytes) -> str:
        """Take in one chunk, the end mark or a whole completion, and return its text, perhaps empty."""
        if payload == b"[DONE]":
            self.is_over = True
            return ""
        try:
            event = orjson.loads(payload)
            choices = event.get("choices")
            text = self._read_choice(choices[0]) if choices else ""
            if usage := event.get("usage"):
                self._usage = _from_usage(usage)
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
            message = "The model provider sent something that is not a chat completion."
            raise GatewayError("provider_error", message) from error
        if event.get("error") or event.get("object") == "error":
            detail = error_text(self._upstream, payload) or "it did not say why."
            raise GatewayError("provider_error", f"The model provider failed in the middle of its answer: {detail}")
        return text

    def to_end(self) -> ModelEnded:
        """The end of the turn; raises `provider_error` when the provider never said that it was one."""
        if not self.is_complete():
            raise GatewayError("provider_error", "The model provider's answer stopped before its end.")
        reason = _STOP_REASONS.get(self._finish_reason or "", StopReason.STOP)
        if self._calls and reason is StopReason.STOP:
            reason = StopReason.TOOL_CALLS  # some say "stop" whatever they asked for
        if reason is StopReason.TOOL_CALLS and not self._calls:
            reason = StopReason.STOP
        if reason is not StopReason.TOOL_CALLS:
            return ModelEnded(reason, (), self._usage)  # a call that was cut off is not a call
        calls = (self._to_call(index, call) for index, call in enumerate(self._calls))
        return ModelEnded(reason, with_distinct_ids(calls), self._usage)

    def _read_choice(self, choice: dict[str, Any]) -> str:
        if reason := choice.get("finish_reason"):
            self._finish_reason = str(reason)
        delta = choice.get("delta") or choice.get("message")
        if not delta:
            return ""
        if calls := delta.get("tool_calls"):
            self._add_calls(calls)
        text = delta.get("content") or delta.get("refusal") or ""
        if isinstance(text, str):
            return text
        return "".join(part["text"] for part in text if part.get("type") == "text")

    def _to_call(self, index: int, call: _PartialCall) -> ToolCall:
        if not call.name:
            raise GatewayError("provider_error", "The model provider asked for a function without naming it.")
        return ToolCall(call.id or f"{self._call_prefix}_{index}", call.name, "".join(call.arguments) or "{}")

    def _add_calls(self, pieces: list[dict[str, Any]]) -> None:
        for piece in pieces:
            call = self._call_of(piece)
            function = piece.get("function") or {}
            arguments = function.get("arguments") or ""
            if not isinstance(arguments, str):
                arguments = orjson.dumps(arguments).decode()
            call.id = call.id or str(piece.get("id") or "")
            call.name = call.name or _name_of(piece)
            call.arguments.append(arguments)
            self._calls_chars += len(arguments) + len(call.name) + len(call.id)
            check_calls(len(self._calls), self._calls_chars)

    def _call_of(self, piece: dict[str, Any]) -> _PartialCall:
        """The call a piece belongs to: its index says so, or else a new id or another name begins a new one."""
        index, call_id = piece.get("index"), piece.get("id")
        call = self._calls[-1] if index is None and self._calls else self._call_by_index.get(index or 0)
        names_another = index is None and not call_id and call is not None and call.name and _name_of(piece)
        if call is None or names_another or (call_id and call.id and call_id != call.id):
            call = _PartialCall()
            self._calls.append(call)
            self._call_by_index[index or 0] = call
        return call


def _to_message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role.value, "content": _to_content(message)}
    if message.name is not None:
        wire["name"] = message.name
    if message.tool_calls:
        wire["tool_calls"] = [_to_call(call) for call in message.tool_calls]
    if message.role is Role.TOOL:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _to_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": wire_name(call), "arguments": wire_arguments_text(call)}
    return {"id": call.id, "type": "function", "function": function}


def _to_content(message: Message) -> Any:
    if message.has_image:
        return [_to_part(part) for part in message.parts]
    return message.text or (None if message.tool_calls else "")


def _to_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail}}
    return {"type": "text", "text": part.text}


def _to_choice(choice: ToolChoice, sampling: Sampling) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    if choice.name is not None:
        wire["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode is not ToolChoiceMode.AUTO:
        wire["tool_choice"] = choice.mode.value
    if sampling.parallel_tool_calls is not None:
        wire["parallel_tool_calls"] = sampling.parallel_tool_calls
    return wire


def _to_function(function: Function) -> dict[str, Any]:
    fields = ("name", "description", "parameters", "strict")
    return {field: value for field in fields if (value := getattr(function, field)) is not None}


def _to_plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _name_of(piece: dict[str, Any]) -> str:
    name = (piece.get("function") or {}).get("name") or ""
    if not isinstance(name, str):
        raise TypeError("a function's name is a text")
    return name


def _from_usage(usage: Any) -> Usage:
    # A wrong count is no reason to lose an answer.
    counts = usage if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    return Usage(
        input_tokens=to_count(counts.get("prompt_tokens")),
        output_tokens=to_count(counts.get("completion_tokens")),
        cached_tokens=to_count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )
