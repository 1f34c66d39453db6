"""Translate OpenAI's chat-completion request, validated against the contract, to an `AgentRequest`."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import orjson

from service.agent.conversation import IncomingMessage
from service.agent.request import REASONING, TOOLS, AgentRequest
from service.api.http.connexion_app import environ_key
from service.api.http.webhook_request import parse_webhook
from service.config.gateway import HttpConfig
from service.core.concurrency import pause
from service.core.errors import GatewayError
from service.core.messages import (
    Function,
    Image,
    Message,
    Part,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from service.core.principal import Principal
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import Protocol, Webhook
from service.storage.sessions.keys import parse_chat_id, parse_session_key_header

_ON_DISCONNECT_HEADER = "x-openclaw-on-disconnect"
_ON_DISCONNECT = "HTTP_X_OPENCLAW_ON_DISCONNECT"  # its name in an environ

#: Fields that are passed to the provider under the same name.
_PASSED_ON = ("logit_bias", "reasoning_effort", "verbosity", "prompt_cache_key", "safety_identifier")
#: Fields about the delivery of the response; they are no part of the request's identity.
_DELIVERY = ("stream", "stream_options", "usage")
_IDENTITY_HEADERS = (
    "HTTP_X_OPENCLAW_AGENT_ID",
    "HTTP_X_OPENCLAW_SESSION_KEY",
    "HTTP_X_OPENCLAW_MODEL",
    "HTTP_X_OPENCLAW_MESSAGE_CHANNEL",
)
_KEPT_TOOLS_BYTES = 128 * 1024
_MESSAGES_AT_ONCE = 1000  # parsed without a pause
_URL_SAFE = str.maketrans("-_", "+/")
_INVALID_PADDING = 3  # of data with one character too many
_SYSTEM_ROLES = ("system", "developer")
_ANY_TOOL = ToolChoice()


def parse_chat_request(
    body: Mapping[str, Any],
    headers: Mapping[str, Any],
    http: HttpConfig,
    principal: Principal,
    identity: Mapping[str, Any] | None = None,
) -> AgentRequest:
    """Translate a request.

    `body` satisfies the contract's `ChatCompletionRequest`, `headers` has WSGI's names, as an environ does; an empty
    header counts as absent. `http` has the rules for its session, and for what the request does not say. `principal` is
    who sent it. `identity` is what a request with the same idempotency key must equal, `body` by default. Raises
    `GatewayError` (400) for errors across fields: two tools with one name, a `tool_choice` without its tool.
    """
    sessions, defaults = http.sessions, http.endpoints.chat_completions
    webhook = parse_webhook(body)
    tools, messages = body.get("tools"), body["messages"]
    functions = _to_functions(tools) if tools else ()
    session_key = headers.get("HTTP_X_OPENCLAW_SESSION_KEY")
    chat_key = None if session_key else _find_chat_key(headers, sessions.headers)
    return AgentRequest(
        principal=principal,
        protocol=Protocol.HTTP,
        messages=parse_messages(messages, "messages"),
        system_text=parse_system_text(messages),
        model=body.get("model") or None,
        agent_id=headers.get("HTTP_X_OPENCLAW_AGENT_ID") or None,
        provider_model=headers.get("HTTP_X_OPENCLAW_MODEL") or None,
        session_key=parse_session_key_header(session_key) if session_key else chat_key,
        user=body.get("user") if sessions.user == "session" else None,
        end_user=body.get("user") or None,
        resends=chat_key is not None,
        channel=headers.get("HTTP_X_OPENCLAW_MESSAGE_CHANNEL") or None,
        task=headers.get("HTTP_X_OPENCLAW_TASK") or None,
        functions=functions,
        tool_choice=_parse_tool_choice(body.get("tool_choice"), functions),
        sampling=_parse_sampling(body),
        idempotency_key=parse_idempotency_key(body if identity is None else identity, headers, chat_key),
        detached=_goes_on(headers.get(_ON_DISCONNECT), webhook, defaults.on_disconnect),
        webhook=webhook,
        streamed=bool(body.get("stream")),
        shows=parse_shown(headers, http),
    )


def includes_cost(body: Mapping[str, Any]) -> bool:
    """Return True if the answer to a request shows what it costs."""
    return bool((body.get("usage") or {}).get("include"))


def asks_to_go_on(headers: Mapping[str, Any]) -> bool:
    """Return True if the caller itself wants the run to go on when it disconnects."""
    return headers.get(_ON_DISCONNECT) == "continue"


def _find_chat_key(headers: Mapping[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        sent = headers.get(environ_key(name))
        chat_id = parse_chat_id(name, sent) if sent else None
        if chat_id is not None:
            return f"{name}:{chat_id}"
    return None


def _goes_on(said: str | None, webhook: Webhook | None, default: str) -> bool:
    """Return True if the run continues when its client disconnects; a run with a webhook does."""
    if webhook is None:
        return (said or default) == "continue"
    if said == "cancel":
        text = (
            f"A run with a `webhook` goes on when its client disconnects, so `{_ON_DISCONNECT_HEADER}` cannot be "
            '"cancel". Leave one of them out.'
        )
        raise GatewayError("invalid_value", text, param=_ON_DISCONNECT_HEADER)
    return True


def parse_shown(headers: Mapping[str, Any], http: HttpConfig) -> frozenset[str]:
    """Return the kinds of events that an answer shows beside its text; `none` names nothing."""
    text = headers.get("HTTP_X_OPENCLAW_EVENTS")
    if not text:
        return frozenset(http.endpoints.chat_completions.events)
    return frozenset(map(str.strip, text.split(","))) & {REASONING, TOOLS}


def parse_idempotency_key(
    body: Mapping[str, Any], headers: Mapping[str, Any], chat_key: str | None = None
) -> IdempotencyKey | None:
    """Return the key of a request that must equal `body`, but for how it is delivered; `None` if it has none."""
    key = headers.get("HTTP_IDEMPOTENCY_KEY")
    if not key:
        return None
    fields = {name: value for name, value in body.items() if value is not None and name not in _DELIVERY}
    identity = [headers.get(name) or None for name in _IDENTITY_HEADERS]
    # Only where they are sent, so that keys of requests without them stay known.
    identity += filter(None, (chat_key, headers.get("HTTP_X_OPENCLAW_TASK")))
    return IdempotencyKey.of(key, orjson.dumps([identity, fields], option=orjson.OPT_SORT_KEYS))


def parse_system_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Join the texts of the system and developer messages."""
    texts = [_plain_text(message["content"]) for message in messages if message["role"] in _SYSTEM_ROLES]
    return "\n\n".join(filter(str.strip, texts))


def _plain_text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def parse_messages(messages: Sequence[dict[str, Any]], place: str) -> tuple[IncomingMessage, ...]:
    """Translate messages other than those of the system; `place` is the name of their list in the request."""
    incoming: list[IncomingMessage] = []
    function_calls: dict[str, str] = {}  # deprecated protocol: function name -> id assigned to its last call
    for index, message in enumerate(messages):
        if index % _MESSAGES_AT_ONCE == _MESSAGES_AT_ONCE - 1:
            pause()
        role = message["role"]
        if role in _SYSTEM_ROLES:
            continue
        if role == "user":
            parsed = Message(Role.USER, _parse_parts(message.get("content")), message.get("name"))
        elif role == "assistant":
            parsed = _parse_assistant(message, index, function_calls)
        elif role == "function":
            call_id = function_calls.get(message["name"], "")
            parsed = Message(Role.TOOL, _parse_parts(message["content"]), tool_call_id=call_id)
        else:
            parts = _parse_parts(message.get("content"))
            parsed = Message(Role.TOOL, parts, tool_call_id=message.get("tool_call_id"))
        incoming.append(IncomingMessage(f"{place}[{index}]", parsed))
    return tuple(incoming)


def _parse_assistant(message: dict[str, Any], index: int, function_calls: dict[str, str]) -> Message:
    parts = _parse_parts(message.get("content"))
    if not parts and message.get("refusal"):
        parts = (Text(message["refusal"]),)
    calls = [_parse_call(call) for call in message.get("tool_calls") or ()]
    deprecated = message.get("function_call")
    if deprecated is not None:
        function_calls[deprecated["name"]] = f"function_call_{index}"
        calls.append(ToolCall(f"function_call_{index}", deprecated["name"], _arguments_of(deprecated)))
    return Message(Role.ASSISTANT, parts, name=message.get("name"), tool_calls=tuple(calls))


def _parse_call(call: dict[str, Any]) -> ToolCall:
    return ToolCall(call["id"], call["function"]["name"], _arguments_of(call["function"]))


def _arguments_of(function: dict[str, Any]) -> str:
    arguments: str = function.get("arguments") or ""
    return "{}" if arguments.strip() in ("", "null") else arguments


def _parse_parts(content: str | list[dict[str, Any]] | None) -> tuple[Part, ...]:
    if not content:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_parse_part(part) for part in content)


def _parse_part(part: dict[str, Any]) -> Part:
    if part["type"] == "image_url":
        image = part["image_url"] if isinstance(part["image_url"], dict) else {"url": part["image_url"]}
        return Image(_normalize_url(image["url"]), image.get("detail") or "auto")
    return Text(part.get("text") or part.get("refusal") or "")


def _normalize_url(url: str) -> str:
    """Return a `data:` URI in its usual spelling: a lower-case scheme, and padded base64 without white space.

    RFC 2397 does not allow white space; escapes, the URL-safe alphabet and missing padding are accepted as well.
    """
    if url[:5].lower() != "data:":
        return url
    if not url.isascii() or any(mark in url for mark in string.whitespace):  # much faster than to split in vain
        url = "".join(url.split())
    data_at = url.find(",") + 1
    if not url[:data_at].lower().endswith(";base64,"):
        return f"data:{url[5:]}"
    is_padded = (len(url) - data_at) % 4 == 0
    if is_padded and url.startswith("data:") and not any(mark in url for mark in "%-_"):
        return url
    head, data = url[5:data_at], url[data_at:]
    if "%" in data:
        data = unquote(data)
    if "-" in data or "_" in data:
        data = data.translate(_URL_SAFE)
    padding = "=" * (-len(data) % 4) if not data.endswith("=") else ""
    return f"data:{head}{data}{padding if len(padding) < _INVALID_PADDING else ''}"


def _to_functions(tools: list[dict[str, Any]]) -> tuple[Function, ...]:
    """Return the functions, the same objects for the same tools: programs send theirs with every request."""
    with suppress(orjson.JSONEncodeError):  # it is nested too deeply
        encoded = orjson.dumps(tools)
        if len(encoded) <= _KEPT_TOOLS_BYTES:
            return _decode_functions(encoded)
    return _parse_functions(tools)


@lru_cache(maxsize=16)
def _decode_functions(tools: bytes) -> tuple[Function, ...]:
    return _parse_functions(orjson.loads(tools))


def _parse_functions(tools: Iterable[dict[str, Any]]) -> tuple[Function, ...]:
    functions: dict[str, Function] = {}
    for index, tool in enumerate(tools):
        function = tool["function"]
        name = function["name"]
        if name in functions:
            text = f'Two tools have the name "{name}". Give each tool a unique name.'
            raise GatewayError("invalid_value", text, param=f"tools[{index}].function.name")
        _check_depth(function.get("parameters"), f"tools[{index}].function.parameters")
        functions[name] = Function(
            name,
            function.get("description"),
            function.get("parameters"),
            function.get("strict"),
            from_caller=True,
        )
    return tuple(functions.values())


def _check_depth(schema: Mapping[str, Any] | None, param: str) -> None:
    if schema is None:
        return
    # orjson reads up to 1,024 levels and writes up to 254; a request to a provider adds up to ten.
    try:
        orjson.dumps([[[[[[[[[[schema]]]]]]]]]])
    except orjson.JSONEncodeError:
        text = f"`{param}` is nested too deeply. Send a schema with fewer than 240 levels."
        raise GatewayError("invalid_value", text, param=param) from None


def _parse_tool_choice(choice: str | dict[str, Any] | None, functions: tuple[Function, ...]) -> ToolChoice:
    if choice is None:
        return _ANY_TOOL
    if isinstance(choice, str):
        if choice == "required" and not functions:
            text = '`tool_choice` is "required", but `tools` is empty. Send at least one tool.'
            raise GatewayError("invalid_value", text, param="tool_choice")
        return ToolChoice(ToolChoiceMode(choice))
    name = choice["function"]["name"]
    if all(function.name != name for function in functions):
        text = "`tool_choice` names a function that is not in `tools`. Name one of `tools`."
        raise GatewayError("invalid_value", text, param="tool_choice.function.name")
    return ToolChoice(ToolChoiceMode.REQUIRED, name)


def _parse_sampling(body: Mapping[str, Any]) -> Sampling:
    stop, seed = body.get("stop") or (), body.get("seed")
    limit = body.get("max_completion_tokens")
    if limit is None:
        limit = body.get("max_tokens")
    response_format = body.get("response_format")
    return Sampling(
        body.get("temperature"),
        body.get("top_p"),
        body.get("frequency_penalty"),
        body.get("presence_penalty"),
        None if seed is None else int(seed),
        tuple(filter(None, [stop] if isinstance(stop, str) else stop)),
        int(limit) if limit is not None and limit > 0 else None,  # 0 and -1 mean no limit
        None if response_format is None else _parse_response_format(response_format),
        body.get("parallel_tool_calls"),
        {name: body[name] for name in _PASSED_ON if body.get(name) is not None},
    )


def _parse_response_format(response_format: dict[str, Any]) -> dict[str, Any]:
    _check_depth(response_format, "response_format")
    if "json_schema" not in response_format:
        return response_format
    if response_format["json_schema"] is None:  # of another type
        return {name: value for name, value in response_format.items() if name != "json_schema"}
    schema = {name: value for name, value in response_format["json_schema"].items() if value is not None}
    return {**response_format, "json_schema": schema}
