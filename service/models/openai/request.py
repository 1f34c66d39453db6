"""Write requests of OpenAI's chat-completions API in the form that a host accepts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson

from service.config.models import ModelCompat
from service.core.latest import Latest
from service.core.messages import (
    NO_USER_MESSAGE,
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
from service.models import json_chunks
from service.models.openai.hosts import (
    CALL_DATA,
    SAMPLING_HINTS,
    WANTS_USER,
    HostQuirks,
    RequestStyle,
    to_mistral_id,
    to_short_id,
)
from service.models.openai.reasoning import REASONING
from service.models.output_format import checked_format, refused_format, with_instruction
from service.models.prefix_cache import Prefix, PrefixCache
from service.models.provider import ModelRequest
from service.models.request_styles import StyleCache
from service.models.tool_calls import CallIds, wire_arguments_text, wire_name
from service.models.tool_schemas import with_properties

logger = logging.getLogger("openclaw.models")

#: Bytes of encoded histories of one provider.
MAX_HISTORY_BYTES = 32 * 1024 * 1024

_AUTO = "auto"  # the default of `detail`
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
    """Writes the requests to one host; `models` holds the deviations of its models, `styles` the learned ones."""

    def __init__(self, quirks: HostQuirks, models: Mapping[str, ModelCompat] = _NOTHING) -> None:
        self._quirks = quirks
        usual = RequestStyle(quirks.max_tokens_field, asks_usage=quirks.asks_usage)
        bounds = {model: one.max_tokens_field for model, one in models.items() if one.max_tokens_field}
        known = {model: replace(usual, max_tokens_field=bound) for model, bound in bounds.items()}
        self.styles = StyleCache(usual, known, _adapt_to_error)
        self._call_ids = {
            model: to_mistral_id if one.requires_mistral_tool_ids else to_short_id
            for model, one in models.items()
            if one.requires_mistral_tool_ids is not None
        }
        self._histories: PrefixCache[tuple[CallIds, json_chunks.Chunks]] = PrefixCache(MAX_HISTORY_BYTES)
        self._encode_functions = Latest(_encode_functions)

    def write(self, request: ModelRequest, style: RequestStyle) -> Sequence[bytes]:
        """Return the body of `POST /chat/completions` in this `style`, which the request's tools have, in pieces.

        The messages of a continued conversation are encoded once.
        """
        wire, system = self._to_wire(request, style), self._to_system(request, style)
        if request.continued and request.messages:
            before = _to_elements(system)
            return json_chunks.to_object(_dump(wire), "messages", before, self._encode_messages(request, style))
        ids = self._new_ids(request.model)
        wire["messages"] = [*system, *self._to_messages(request.messages, request.model, style, ids)]
        return (_dump(wire),)

    def _to_wire(self, request: ModelRequest, style: RequestStyle) -> dict[str, Any]:
        sampling = request.sampling
        wire = {
            **sampling.extra,
            "model": request.model,
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
            wire[style.max_tokens_field] = sampling.max_tokens
        if request.functions:
            wire["tools"] = self._encode_functions(request.functions, style)
            wire |= _to_choice(request.tool_choice, sampling)
        left_out = style.left_out
        for name in left_out:
            wire.pop(name, None)
        if left_out and checked_format(sampling) in left_out:
            wire.pop("response_format")
        if style.drops_top_p and "temperature" in wire:
            wire.pop("top_p", None)
        return self._renamed(wire) if self._quirks.names else wire

    def _renamed(self, wire: dict[str, Any]) -> dict[str, Any]:
        return {self._quirks.names.get(field, field): value for field, value in wire.items()}

    def _new_ids(self, model: str) -> CallIds:
        return CallIds(self._call_ids.get(model, self._quirks.to_call_id))

    def _to_system(self, request: ModelRequest, style: RequestStyle) -> list[dict[str, Any]]:
        """Return the messages before those of the conversation."""
        text, wanted = request.system, request.sampling.response_format
        if wanted is not None and checked_format(request.sampling) in style.left_out:
            text = with_instruction(text, wanted)
        system = [{"role": "system", "content": text}] if text else []
        if style.adds_user and not any(message.role is Role.USER for message in request.messages):
            system.append({"role": "user", "content": NO_USER_MESSAGE})
        return system

    def _encode_messages(self, request: ModelRequest, style: RequestStyle) -> json_chunks.Chunks:
        messages, model = request.messages, request.model
        variant = model, style
        known = self._histories.find(variant, messages)
        ids, chunks = (self._new_ids(model), ()) if known is None else known.value
        added = messages if known is None else messages[len(known.messages) :]
        if added:
            elements = _to_elements(list(self._to_messages(added, model, style, ids)))
            chunks = json_chunks.extend(chunks, elements)
            self._histories.put(Prefix(variant, messages, (ids, chunks), sum(map(len, chunks))))
        return chunks

    def _to_messages(
        self, messages: Sequence[Message], model: str, style: RequestStyle, ids: CallIds
    ) -> Iterator[dict[str, Any]]:
        for message in messages:
            if message.role is Role.ASSISTANT and not (message.tool_calls or message.has_image or message.text):
                continue  # Mistral and others refuse it
            wire: dict[str, Any] = {"role": str(message.role), "content": _to_content(message, style)}
            if message.name is not None and "name" not in style.left_out:
                wire["name"] = message.name
            if message.role is Role.ASSISTANT:
                data = message.provider_data if style.sends_provider_data else None
                wire |= self._to_assistant(message, data, model, ids)
            elif message.tool_call_id is not None:
                wire["tool_call_id"] = ids.of_result(message.tool_call_id)
            yield wire

    def _to_assistant(self, message: Message, data: ProviderData | None, model: str, ids: CallIds) -> dict[str, Any]:
        """Return the members of an assistant message besides its content: its calls and its provider data."""
        thoughts = data.message if data is not None else {}
        wire = {**self._quirks.message, **{name: thoughts[name] for name in REASONING & thoughts.keys()}}
        if calls := message.tool_calls:
            extras = {} if data is None else {one: extra for one, extra in data.calls.items() if CALL_DATA in extra}
            if all(call.id not in extras for call in calls):
                extras = {calls[0].id: self._quirks.first_call_of(model)}
            wire["tool_calls"] = [
                {"id": call_id, **_to_call(call), **extras.get(call.id, {})}
                for call_id, call in zip(ids.of_calls(calls), calls, strict=True)
            ]
        return wire


def _adapt_to_error(request: ModelRequest, style: RequestStyle, message: str) -> RequestStyle:
    """Return the style that an error message asks for, limited to what is in the request."""
    wanted = _limited(style.adapted(message, _hints_in(request)), request, style)
    if wanted == style:
        wanted = replace(style, tools=style.tools.adapted(request, message))
    if wanted == style and WANTS_USER.search(message) and not any(one.role is Role.USER for one in request.messages):
        wanted = replace(style, adds_user=True)
    if wanted == style:
        formats, is_lasting = refused_format(request, style.left_out, message)
        wanted = replace(style, omitted=style.omitted | formats) if is_lasting else style
        wanted = wanted if is_lasting else replace(style, skipped=style.skipped | formats)
    return wanted


def _limited(wanted: RequestStyle, request: ModelRequest, style: RequestStyle) -> RequestStyle:
    """Return `wanted` with the differences to `style` that concern `request`."""
    if wanted.fills_content and not any(one.tool_calls and not one.text for one in request.messages):
        wanted = replace(wanted, fills_content=style.fills_content)
    refused = wanted.omitted - style.omitted or (("top_p",) if wanted.drops_top_p > style.drops_top_p else ())
    if refused:
        logger.warning("the model %s refuses %s, which is left out", request.model, ", ".join(sorted(refused)))
    if refused := wanted.skipped - style.skipped:
        fields = ", ".join(sorted(refused))
        logger.info("the model %s refuses %s of a request, which is repeated without it", request.model, fields)
    if request.sampling.max_tokens is None:
        wanted = replace(wanted, max_tokens_field=style.max_tokens_field)
    if all(message.provider_data is None for message in request.messages):
        wanted = replace(wanted, sends_provider_data=style.sends_provider_data)
    return wanted


def _hints_in(request: ModelRequest) -> dict[str, Any]:
    """Return the optional fields that are in the request, with their values."""
    sampling = request.sampling
    found: dict[str, Any] = {"parallel_tool_calls": sampling.parallel_tool_calls if request.functions else None}
    found |= {name: getattr(sampling, name) for name in ("seed", *SAMPLING_HINTS)}
    found |= {
        "strict": next((one.strict for one in request.functions if one.strict is not None), None),
        "name": next((one.name for one in request.messages if one.name is not None), None),
        "detail": next((one.detail for one in _images(request) if one.detail != _AUTO), None),
    }
    return {**sampling.extra, **{name: value for name, value in found.items() if value is not None}}


def _images(request: ModelRequest) -> Iterator[Image]:
    return (part for message in request.messages for part in message.parts if isinstance(part, Image))


def _to_call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": wire_name(call), "arguments": wire_arguments_text(call)}}


def _to_content(message: Message, style: RequestStyle) -> Any:
    if message.has_image:
        return [_to_part(part, style) for part in message.parts]
    return message.text or (None if message.tool_calls and not style.fills_content else "")


def _to_part(part: Part, style: RequestStyle) -> dict[str, Any]:
    if isinstance(part, Image):
        detail = {} if part.detail == _AUTO or "detail" in style.left_out else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.url, **detail}}
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


def _encode_functions(functions: tuple[Function, ...], style: RequestStyle) -> orjson.Fragment:
    return orjson.Fragment(_dump([{"type": "function", "function": _to_function(one, style)} for one in functions]))


def _to_function(function: Function, style: RequestStyle) -> dict[str, Any]:
    fields = ("name", "description", "strict")
    wire = {field: value for field in fields if (value := getattr(function, field)) is not None}
    if "strict" in style.left_out:
        wire.pop("strict", None)
    if function.parameters is not None:
        wire["parameters"] = with_properties(function.parameters)
    return wire


def _dump(value: object) -> bytes:
    return orjson.dumps(value, default=_to_plain)


def _to_elements(values: list[Any]) -> bytes:
    """Encode a list without its brackets."""
    return _dump(values)[1:-1]


def _to_plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")
