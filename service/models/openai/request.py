"""A request in the words of OpenAI's chat-completions API, as its host wants them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson

from service.config.models import ModelCompat
from service.core.messages import (
    Function,
    Image,
    Message,
    Part,
    ProviderData,
    Role,
    Sampling,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from service.models.adaptation import StyleCache
from service.models.openai.hosts import CALL_DATA, HostQuirks, RequestStyle, to_mistral_id
from service.models.openai.reasoning import REASONING
from service.models.provider import ModelRequest
from service.models.tool_calls import CallIds, wire_arguments_text, wire_name

_STREAM_OPTIONS = {"include_usage": True}
_NOTHING: Mapping[str, ModelCompat] = MappingProxyType({})
_PLAIN_SAMPLING = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "response_format",
)


class RequestWriter:
    """Writes the requests to one host, whose `models` may differ in what they want; `styles` are theirs."""

    def __init__(self, quirks: HostQuirks, models: Mapping[str, ModelCompat] = _NOTHING) -> None:
        self._quirks = quirks
        usual = RequestStyle(quirks.bound, asks_usage=quirks.asks_usage)
        bounds = {model: wants.max_tokens_field for model, wants in models.items() if wants.max_tokens_field}
        known = {model: replace(usual, bound=bound) for model, bound in bounds.items()}
        self.styles = StyleCache(usual, known, _corrected)
        self._call_ids = {
            model: to_mistral_id if wants.requires_mistral_tool_ids else str
            for model, wants in models.items()
            if wants.requires_mistral_tool_ids is not None
        }
        self._functions: tuple[Function, ...] = ()
        self._encoded_functions = orjson.Fragment(b"[]")

    def write(self, request: ModelRequest, style: RequestStyle) -> bytes:
        """The body of `POST /chat/completions`, in this `style`."""
        return orjson.dumps(self._to_wire(request, style), default=_to_plain)

    def _to_wire(self, request: ModelRequest, style: RequestStyle) -> dict[str, Any]:
        sampling = request.sampling
        system = [{"role": "system", "content": request.system}] if request.system else []
        wire = {
            **sampling.extra,
            "model": request.model,
            "messages": [*system, *self._to_messages(request, style.shows_data)],
            "stream": True,
        }
        if style.asks_usage:
            wire["stream_options"] = _STREAM_OPTIONS
        for name in _PLAIN_SAMPLING:
            if (value := getattr(sampling, name)) is not None:
                wire[name] = value
        if sampling.stop:
            wire["stop"] = sampling.stop
        if sampling.max_tokens is not None:
            wire[style.bound] = sampling.max_tokens
        if request.functions:
            wire["tools"] = self._encode(request.functions)
            wire |= _to_choice(request.tool_choice, sampling)
        return self._renamed(wire) if self._quirks.names else wire

    def _encode(self, functions: tuple[Function, ...]) -> orjson.Fragment:
        """The functions as they are sent; most calls offer what the one before offered."""
        if functions is not self._functions:
            tools = [{"type": "function", "function": _to_function(one)} for one in functions]
            self._encoded_functions = orjson.Fragment(orjson.dumps(tools, default=_to_plain))
            self._functions = functions
        return self._encoded_functions

    def _renamed(self, wire: dict[str, Any]) -> dict[str, Any]:
        return {self._quirks.names.get(field, field): value for field, value in wire.items()}

    def _to_messages(self, request: ModelRequest, shows_data: bool) -> Iterator[dict[str, Any]]:
        first_call = self._quirks.first_call_of(request.model)
        ids = CallIds(self._call_ids.get(request.model, self._quirks.to_call_id))
        for message in filter(_says_something, request.messages):
            wire: dict[str, Any] = {"role": message.role.value, "content": _to_content(message)}
            if message.name is not None:
                wire["name"] = message.name
            if message.role is Role.ASSISTANT:
                data = message.provider_data if shows_data else None
                wire |= self._to_assistant(message, data, first_call, ids)
            elif message.tool_call_id is not None:
                wire["tool_call_id"] = ids.of_result(message.tool_call_id)
            yield wire

    def _to_assistant(
        self, message: Message, data: ProviderData | None, first_call: Mapping[str, Any], ids: CallIds
    ) -> dict[str, Any]:
        """What is said of an assistant's message beside its content: its calls, and the data its model wants back."""
        thoughts = data.message if data is not None else {}
        wire = {**self._quirks.message, **{name: thoughts[name] for name in REASONING & thoughts.keys()}}
        if calls := message.tool_calls:
            extras = {} if data is None else {one: told for one, told in data.calls.items() if CALL_DATA in told}
            if all(call.id not in extras for call in calls):
                extras = {calls[0].id: first_call}
            wire["tool_calls"] = [
                {"id": call_id, **_to_call(call), **extras.get(call.id, {})}
                for call_id, call in zip(ids.of_calls(calls), calls, strict=True)
            ]
        return wire


def _corrected(request: ModelRequest, style: RequestStyle, refusal: str) -> RequestStyle:
    """The style that `refusal` asks for: only what is in the request can be what was wrong."""
    wanted = style.corrected(refusal)
    if request.sampling.max_tokens is None:
        wanted = replace(wanted, bound=style.bound)
    if all(message.provider_data is None for message in request.messages):
        wanted = replace(wanted, shows_data=style.shows_data)
    return wanted


def _says_something(message: Message) -> bool:
    """Whether there is anything in a message; an answer that was empty is refused by Mistral and others."""
    return message.role is not Role.ASSISTANT or bool(message.tool_calls or message.has_image or message.text)


def _to_call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": wire_name(call), "arguments": wire_arguments_text(call)}}


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
