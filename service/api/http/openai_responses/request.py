"""Translate a request of the Responses API, validated against the contract, to an `AgentRequest`.

It becomes a chat completion first, which means the same in other words, so that both are understood in one place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from service.agent.conversation import IncomingMessage
from service.agent.request import REASONING, TOOLS, AgentRequest
from service.api.http.chat_request import parse_chat_request
from service.api.http.file_parts import has_files
from service.api.http.openai_responses.echo import OWN_CALLS, conversation_of, summary_of, to_echo
from service.api.http.openai_responses.input_messages import SHOWN, PlacedMessage, to_messages
from service.api.http.openai_responses.output import in_own_words
from service.api.http.openai_responses.tools import PlacedFunction, flat_name, parse_tools
from service.config.gateway import HttpConfig
from service.core.dataclass import replace
from service.core.errors import GatewayError
from service.core.messages import Sampling
from service.core.principal import Principal
from service.storage.runs.records import RunRecord
from service.storage.sessions.keys import SESSION_KEY_HEADER, is_unnamed, owner_of, session_key_for

#: Fields that a chat completion has, too.
_SAME = (
    *("model", "stream", "user", "parallel_tool_calls", "temperature", "top_p"),
    *("frequency_penalty", "presence_penalty", "prompt_cache_key", "safety_identifier"),
)
_SYSTEM_ROLES = ("system", "developer")
_MESSAGE = re.compile(r"messages\[([0-9]+)\]")
_TOOL = re.compile(r"tools\[([0-9]+)\]")

_FileReader = Callable[[Sequence[dict[str, Any]]], Sequence[dict[str, Any]]]


def parse_response_request(
    body: Mapping[str, Any],
    headers: Mapping[str, Any],
    http: HttpConfig,
    principal: Principal,
    *,
    find_previous: Callable[[str], RunRecord | None],
    find_item: Callable[[str], Mapping[str, Any] | None],
    read_files: _FileReader,
) -> AgentRequest:
    """Translate a request; `body` satisfies the contract's `ResponseRequest`, the rest is as in `parse_chat_request`.

    `find_previous` returns the run of a stored response by its id, `find_item` an item of a stored response by its id,
    `read_files` the messages of a chat completion with texts in place of files.
    Raises `GatewayError` for errors across fields (400), and if there is no previous response with the id (404).
    """
    placed = list(to_messages(_resolve(body.get("input") or (), find_item)))
    completion = _to_completion(body, placed, read_files)
    try:
        request = parse_chat_request(completion, headers, http, principal, {"operation": "response", **body})
    except GatewayError as error:
        raise in_response_terms(error, body) from None
    places = [place for place, message in placed if message["role"] not in _SYSTEM_ROLES]
    messages = (IncomingMessage(place, item.message) for place, item in zip(places, request.messages, strict=True))
    detached = _is_detached(body) or request.detached
    request = replace(
        request,
        messages=tuple(messages),
        shows=frozenset(_shown(body)),
        max_tool_calls=body.get("max_tool_calls"),
        detached=detached,
        streamed=request.streamed or detached,  # its events can be read as they come
        response=None if body.get("store") is False else partial(_encode_echo, body),
    )
    if conversation_of(body) is not None:
        return _in_conversation(request, body, headers)
    previous_id = body.get("previous_response_id")
    return _continue(request, find_previous(previous_id), previous_id) if previous_id else request


def _to_completion(body: Mapping[str, Any], placed: Sequence[PlacedMessage], read_files: _FileReader) -> dict[str, Any]:
    """Return the chat completion that means the same."""
    choice, tools = _to_choice(body.get("tool_choice"), parse_tools(body.get("tools") or ()))
    messages = list(_with_file_texts(placed, read_files, body))
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    options = {**{name: body[name] for name in _SAME if name in body}, **_to_options(body)}
    return {**options, "messages": messages, "tools": tools, "tool_choice": choice}


def _shown(body: Mapping[str, Any]) -> Iterator[str]:
    if summary_of(body):
        yield REASONING
    if OWN_CALLS in (body.get("include") or ()):
        yield TOOLS


def _in_conversation(request: AgentRequest, body: Mapping[str, Any], headers: Mapping[str, Any]) -> AgentRequest:
    """Return the request as one in the session that its conversation is."""
    other = "previous_response_id" if body.get("previous_response_id") else SESSION_KEY_HEADER
    if other != SESSION_KEY_HEADER or headers.get("HTTP_X_OPENCLAW_SESSION_KEY"):
        text = f"`conversation` and {other} both say what the response continues. Send one of them."
        raise GatewayError("invalid_value", text, param="conversation")
    key = (conversation_of(body) or "").strip()
    if not key:
        raise GatewayError("invalid_value", "The id in `conversation` must not be blank.", param="conversation")
    return replace(request, session_key=key, resends=False)


def _is_detached(body: Mapping[str, Any]) -> bool:
    if body.get("background") and body.get("store") is False:
        text = "A response in the background is read later, and has to be stored. Omit `store`, or send true."
        raise GatewayError("invalid_value", text, param="store")
    return bool(body.get("background"))


def _continue(request: AgentRequest, previous: RunRecord | None, previous_id: str) -> AgentRequest:
    """Return the request as one that continues after the run of a response, in its session and with its agent."""
    if previous is None:
        text = f'Previous response "{previous_id}" not found: it was never given, was not stored, or has been deleted.'
        raise GatewayError("previous_response_not_found", text, param="previous_response_id")
    if _is_beginning(previous):
        text = "The previous response is in progress. Continue it when it has ended."
        raise GatewayError("session_busy", text, param="previous_response_id")
    if request.session_key is not None:
        owner = owner_of(previous.session_key)
        named = session_key_for(previous.agent_id, request.session_key, None, str, owner).key
        if named != previous.session_key:
            text = "The previous response belongs to another session. Omit the session, or `previous_response_id`."
            raise GatewayError("invalid_value", text, param="previous_response_id")
    agent_id = request.agent_id
    if agent_id is None and request.model is None:
        agent_id = previous.agent_id
    return replace(
        request,
        agent_id=agent_id,
        session_key=previous.session_key,
        user=None,
        resends=False,
        previous_run_id=previous.id,
    )


def _is_beginning(previous: RunRecord) -> bool:
    """Return True if a run that goes on is the first one of a session without a name, in which nothing waits."""
    is_first = orjson.loads(previous.response or "{}").get("previous_response_id") is None
    return not previous.state.is_final and is_first and is_unnamed(previous.session_key, previous.agent_id)


def _resolve(
    given: str | Sequence[dict[str, Any]], find_item: Callable[[str], Mapping[str, Any] | None]
) -> str | list[Mapping[str, Any]]:
    """Return an input with the items that it refers to."""
    if isinstance(given, str):
        return given
    items: list[Mapping[str, Any]] = []
    for index, item in enumerate(given):
        if not _is_reference(item):
            items.append(item)
            continue
        found = find_item(item["id"])
        if found is None:
            text = f"`input[{index}]` refers to an item of no stored response. Send the item itself."
            raise GatewayError("invalid_value", text, param=f"input[{index}].id")
        items.append(found)
    return items


def _encode_echo(body: Mapping[str, Any], agent_id: str, sampling: Sampling) -> str:
    return orjson.dumps(to_echo(body, agent_id, sampling)).decode()


def _is_reference(item: Mapping[str, Any]) -> bool:
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and item.get("role") is None)


def in_response_terms(error: GatewayError, body: Mapping[str, Any]) -> GatewayError:
    """Return `error` with the parameter names of this API in place of those of chat completions."""
    if error.param == SESSION_KEY_HEADER and body.get("previous_response_id"):
        error.message = (
            "The previous response is of another agent, and agents share no conversations. "
            "Name its agent in `model`, or omit `model` or `previous_response_id`."
        )
        error.param = "previous_response_id"
    elif error.param == SESSION_KEY_HEADER and conversation_of(body) is not None:
        error.param = "conversation"
    given = error.param
    if given is not None:
        item, shown, _ = given.partition(f"{SHOWN}.content")
        error.param = f"{item}{SHOWN}" if shown else item
        if (named := _TOOL.match(error.param)) and ".function" in error.param:
            error.param = parse_tools(body["tools"])[int(named[1])].place + error.param[named.end() :]
        renamed = error.param.replace(".function.", ".").replace(".file.", ".")
        renamed = in_own_words(f"`{renamed}`").strip("`")
        error.param = "input" if renamed == "messages" else renamed
        error.message = error.message.replace(f"`{given}`", f"`{error.param}`")
    error.message = in_own_words(error.message)
    return error


def _with_file_texts(
    placed: Sequence[PlacedMessage],
    read_files: _FileReader,
    body: Mapping[str, Any],
) -> Sequence[dict[str, Any]]:
    messages = [message for _, message in placed]
    if not has_files(messages):
        return messages
    try:
        return read_files(messages)
    except GatewayError as error:
        if named := _MESSAGE.match(error.param or ""):
            error.param = placed[int(named[1])][0] + (error.param or "")[named.end() :]
        raise in_response_terms(error, body) from None


def _to_options(body: Mapping[str, Any]) -> dict[str, Any]:
    reasoning, text = body.get("reasoning") or {}, body.get("text") or {}
    return {
        "max_completion_tokens": body.get("max_output_tokens"),
        "reasoning_effort": reasoning.get("effort"),
        "verbosity": text.get("verbosity"),
        "response_format": _to_format(text.get("format")),
    }


def _to_format(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None or given["type"] == "text":
        return None
    if given["type"] == "json_object":
        return {"type": "json_object"}
    schema = {name: given[name] for name in ("name", "description", "schema", "strict") if name in given}
    return {"type": "json_schema", "json_schema": schema}


def _to_choice(
    choice: str | dict[str, Any] | None, tools: Sequence[PlacedFunction]
) -> tuple[str | dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the tool choice, and the tools it allows, as a chat completion has them."""
    wrapped: list[dict[str, Any]] = [{"type": "function", "function": tool.function} for tool in tools]
    if choice is None or isinstance(choice, str):
        return choice, wrapped
    if choice["type"] == "function":
        return {"type": "function", "function": {"name": _chosen_name(choice)}}, wrapped
    known = {tool.function["name"] for tool in tools}
    names = list(map(_chosen_name, choice["tools"]))
    for index, name in enumerate(names):
        if name not in known:
            text = "`tool_choice` allows a function that is not in `tools`. Name some of `tools`."
            raise GatewayError("invalid_value", text, param=f"tool_choice.tools[{index}].name")
    return choice["mode"], [tool for tool in wrapped if tool["function"]["name"] in names]


def _chosen_name(choice: Mapping[str, Any]) -> str:
    return flat_name(choice.get("namespace"), choice["name"])
