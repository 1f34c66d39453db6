"""Write requests of Anthropic's Messages API; `service.models.anthropic.wire_messages` converts their messages."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.latest import Latest
from service.core.messages import (
    Function,
    Sampling,
    ToolChoice,
    ToolChoiceMode,
)
from service.models import json_chunks
from service.models.anthropic.content import THINKING
from service.models.anthropic.wire_messages import TurnHistories, to_json
from service.models.output_format import (
    JSON_OBJECT,
    JSON_SCHEMA,
    is_checked,
    refused_format,
    schema_of,
    with_instruction,
)
from service.models.provider import DEFAULT_ANSWER_TOKENS, ModelRequest
from service.models.request_styles import refused_fields
from service.models.tool_schemas import flatten
from service.models.tool_style import USUAL_TOOLS, ToolStyle, is_dispensable

logger = logging.getLogger("openclaw.models")

_MAX_TEMPERATURE = 1.0
_EFFORTS = {name: name for name in ("low", "medium", "high", "xhigh", "max")} | {"minimal": "low"}
_NO_PARAMETERS = {"type": "object", "properties": {}}
_KEPT = {"cache_control": {"type": "ephemeral"}}


# Optional fields that do not change the meaning of an answer, and how error messages name them.
_HINTS = {
    "effort": re.compile(r"\boutput_config\b(?!\W{1,3}format)|\beffort\b"),
    "strict": re.compile(r"\bstrict\b"),
    "disable_parallel_tool_use": re.compile(r"\bdisable_parallel_tool_use\b"),
    "temperature": re.compile(r"\btemperature\b"),
    "top_p": re.compile(r"\btop_p\b"),
}


@record
class RequestStyle:
    """The form of the requests to one model.

    `marks_cache` marks the part of the prompt that the next request will repeat, for prompt caching. `omitted` fields
    are left out, `skipped` ones of this request only, `tools` is the form of the tools.
    """

    marks_cache: bool = True
    omitted: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    tools: ToolStyle = USUAL_TOOLS

    @property
    def left_out(self) -> frozenset[str]:
        """The names of the optional fields that are left out of a request."""
        return self.omitted | self.skipped

    def for_later_requests(self) -> RequestStyle:
        """Return the style for later requests."""
        return replace(self, skipped=frozenset()) if self.skipped else self


def adapt_to_error(request: ModelRequest, style: RequestStyle, message: str) -> RequestStyle:
    """Return the style that an error message asks for, the same if it is about something else."""
    if style.marks_cache and "cache_control" in message:
        return replace(style, marks_cache=False)
    hints, is_lasting = refused_fields(message, _HINTS, _hints_in(request) - style.left_out)
    if hints and is_lasting:
        logger.warning("the model %s refuses %s, which is left out", request.model, ", ".join(sorted(hints)))
        return replace(style, omitted=style.omitted | hints)
    if hints:
        fields = ", ".join(sorted(hints))
        logger.info("the model %s refuses %s of a request, which is repeated without it", request.model, fields)
        return replace(style, skipped=style.skipped | hints)
    formats, is_lasting = refused_format(request, style.left_out, message)
    if formats and is_lasting:
        return replace(style, omitted=style.omitted | formats)
    if formats:
        return replace(style, skipped=style.skipped | formats)
    return replace(style, tools=style.tools.adapted(request, message))


def _hints_in(request: ModelRequest) -> frozenset[str]:
    sent = {
        "effort": request.sampling.extra.get("reasoning_effort", "") in _EFFORTS,
        "strict": any(function.strict is not None for function in request.functions),
        "disable_parallel_tool_use": request.sampling.parallel_tool_calls is False and bool(request.functions),
        "temperature": request.sampling.temperature is not None,
        "top_p": request.sampling.top_p is not None,
    }
    return frozenset(name for name, is_sent in sent.items() if is_sent)


class RequestWriter:
    """Writes the requests to one host, and logs each tool once that the API does not accept."""

    def __init__(self) -> None:
        self._reported: set[str] = set()
        self._histories = TurnHistories()
        self._find_unusable = Latest(_find_unusable)
        self._to_tools = Latest(_to_tools)

    def with_usable_tools(self, request: ModelRequest) -> ModelRequest:
        """Return `request` without functions whose schema is no object: the API would refuse every request.

        Raises `GatewayError` `provider_rejected_request` if the request makes no sense without one of them.
        """
        unusable = self._find_unusable(request.functions)
        if not unusable:
            return request
        kept = tuple(one for one in request.functions if one not in unusable)
        for function in unusable:
            if not is_dispensable(function, request, (*kept, function)):
                raise _unknown("tools", f"The schema of the function {function.name} is no object. Change it")
            if function.name not in self._reported:
                logger.warning("the tool %s is left out: its schema is no object", function.name)
            self._reported.add(function.name)
        return replace(request, functions=kept)

    def write(self, request: ModelRequest, style: RequestStyle) -> Sequence[bytes]:
        """Return the body of `POST /v1/messages` in this `style`, in pieces.

        Raises `GatewayError` `provider_rejected_request`, with the field, for what the API does not support.
        """
        request = style.tools.apply(request)
        turns = self._histories.turns_of(request)
        wire = _to_wire(request, style)
        if request.functions:
            wire["tools"] = self._to_tools(request.functions, style)
            wire |= _to_tool_choice(request.tool_choice, request.sampling, style)
        elif turns.called:
            # The API requires that tools are declared wherever the conversation shows calls of them.
            wire["tools"] = [{"name": name, "input_schema": _NO_PARAMETERS} for name in turns.called]
            wire["tool_choice"] = {"type": "none"}
        if style.marks_cache and not request.collected:  # a summary is asked for once
            _mark(wire, turns.open)
        return json_chunks.to_object(to_json(wire), "messages", b"", turns.encoded, to_json(turns.open)[1:-1])


def _to_wire(request: ModelRequest, style: RequestStyle) -> dict[str, Any]:
    """Return the body of a request besides its messages and tools; it always limits the answer."""
    sampling = request.sampling
    _check_sampling(sampling)
    wire: dict[str, Any] = {
        "model": request.model,
        "max_tokens": sampling.max_tokens or DEFAULT_ANSWER_TOKENS,
        "stream": True,
    }
    if system := _to_system(request, style):
        wire["system"] = system
    if sampling.temperature is not None and "temperature" not in style.left_out:
        wire["temperature"] = min(sampling.temperature, _MAX_TEMPERATURE)
    elif sampling.top_p is not None and "top_p" not in style.left_out:
        wire["top_p"] = sampling.top_p  # models since Claude Opus 4.1 refuse it beside a temperature
    if sampling.stop:
        wire["stop_sequences"] = sampling.stop
    if output := _to_output_config(sampling, style):
        wire["output_config"] = output
    return wire


def _to_system(request: ModelRequest, style: RequestStyle) -> str:
    wanted = request.sampling.response_format
    if wanted is not None and not _is_native(wanted, style):
        return with_instruction(request.system, wanted)
    return request.system if request.system.strip() else ""


def _is_native(wanted: Mapping[str, Any], style: RequestStyle) -> bool:
    """Return True if the API itself ensures a format: it has none for any object."""
    return wanted.get("type") != JSON_OBJECT and not (is_checked(wanted) and JSON_SCHEMA in style.left_out)


def _mark(wire: dict[str, Any], turns: list[dict[str, Any]]) -> None:
    """Mark a request for caching up to its system text, the last of its `turns` and the last of the request before.

    The API looks back only 20 blocks from a mark, and the calls of one turn may be more.
    https://docs.claude.com/en/docs/build-with-claude/prompt-caching
    """
    if "system" in wire:
        wire["system"] = [{"type": "text", "text": wire["system"], **_KEPT}]
    elif "tools" in wire:
        *before, tool = wire["tools"]
        wire["tools"] = [*before, tool | _KEPT]
    for turn in turns[-1:-4:-2]:
        *before, block = turn["content"]
        if block["type"] not in THINKING:
            turn["content"] = [*before, block | _KEPT]


def _check_sampling(sampling: Sampling) -> None:
    if sampling.extra.get("logit_bias"):  # an empty one asks for nothing
        raise _unknown("logit_bias", "`logit_bias` is not supported by the model's provider. Leave it out")


def _unknown(param: str, fault: str) -> GatewayError:
    return GatewayError("provider_rejected_request", f"{fault}, or choose a model of another provider.", param=param)


def _to_output_config(sampling: Sampling, style: RequestStyle) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    effort = _EFFORTS.get(sampling.extra.get("reasoning_effort", ""))
    if effort is not None and "effort" not in style.left_out:
        wire["effort"] = effort
    wanted = sampling.response_format or {}
    if wanted.get("type") == JSON_SCHEMA and _is_native(wanted, style):
        schema = schema_of(wanted)
        if schema is None:
            raise _unknown("response_format", "The model's provider needs the `schema` of the `json_schema`. Add it")
        wire["format"] = {"type": "json_schema", "schema": schema}
    return wire


def _find_unusable(functions: tuple[Function, ...]) -> tuple[Function, ...]:
    return tuple([one for one in functions if flatten(one.parameters or {}) is None])


def _to_tools(functions: tuple[Function, ...], style: RequestStyle) -> list[Any]:
    """Return the tools encoded, but for the last one, which may be marked."""
    *others, last = [_to_tool(function, style) for function in functions]
    return [*(orjson.Fragment(to_json(tool)) for tool in others), last]


def _to_tool(function: Function, style: RequestStyle) -> dict[str, Any]:
    wire: dict[str, Any] = {"name": function.name, "input_schema": flatten(function.parameters or {})}
    if function.description is not None:
        wire["description"] = function.description
    if function.strict is not None and "strict" not in style.left_out:
        wire["strict"] = function.strict
    return wire


def _to_tool_choice(choice: ToolChoice, sampling: Sampling, style: RequestStyle) -> dict[str, Any]:
    if choice.mode is ToolChoiceMode.NONE:
        return {"tool_choice": {"type": "none"}}
    one_call = sampling.parallel_tool_calls is False and "disable_parallel_tool_use" not in style.left_out
    one_at_a_time = {"disable_parallel_tool_use": True} if one_call else {}
    if choice.name is not None:
        return {"tool_choice": {"type": "tool", "name": choice.name, **one_at_a_time}}
    if choice.mode is ToolChoiceMode.REQUIRED:
        return {"tool_choice": {"type": "any", **one_at_a_time}}
    return {"tool_choice": {"type": "auto", **one_at_a_time}} if one_at_a_time else {}
