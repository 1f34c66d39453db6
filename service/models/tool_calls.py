"""Tool calls in every dialect: limits, ids, names and arguments.

The run gets calls as the model wrote them; providers get them back in a form that every host accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from service.core.errors import GatewayError
from service.core.messages import ToolCall

#: Limit of the calls in one answer.
MAX_CALLS = 128

_MAX_CALLS_CHARS = 4 * 1024 * 1024
_MAX_ID_CHARS = 256
_MAX_NAME_CHARS = 64
_NOTHING = ("", "null")
_NO_OBJECT = "not_an_object"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


def check_calls(count: int, characters: int) -> None:
    """Raise `GatewayError` (`provider_error`) if the calls of an answer exceed the limits."""
    if count > MAX_CALLS:
        raise GatewayError("provider_error", f"The model provider sent more than {MAX_CALLS} tool calls.")
    if characters > _MAX_CALLS_CHARS:
        raise GatewayError("provider_error", "The model provider sent tool calls of more than 4 MiB.")


def with_distinct_ids(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    """Return the calls of one answer with distinct ids that are short enough to store."""
    distinct: dict[str, ToolCall] = {}
    for call in calls:
        number, call_id = 1, call.id[:_MAX_ID_CHARS]
        while call_id in distinct:
            number += 1
            call_id = f"{call.id[:_MAX_ID_CHARS]}_{number}"
        distinct[call_id] = call if call.id == call_id else replace(call, id=call_id)
    return tuple(distinct.values())


class CallIds:
    """Assigns distinct ids to the calls of one request, in the form that `to_wire` gives them.

    Many models restart the numbering of calls in each answer. An id that occurs once is only rewritten.
    """

    def __init__(self, to_wire: Callable[[str], str]) -> None:
        self._to_wire = to_wire
        self._given: set[str] = set()
        self._numbers: dict[str, int] = {}  # latest suffix of each repeated id
        self._latest: dict[str, list[str]] = {}  # of calls in one message with the same id

    def of_calls(self, calls: Sequence[ToolCall]) -> list[str]:
        """Return the ids of one message's calls, in order."""
        self._latest |= {call.id: [] for call in calls}
        return [self._give(call.id) for call in calls]

    def of_result(self, call_id: str) -> str:
        """Return the id of the latest call `call_id`; for several in one message, each in turn."""
        first, *others = self._latest.get(call_id) or [self._to_wire(call_id)]
        if others:
            self._latest[call_id] = others
        return first

    def copy(self) -> CallIds:
        """Return a copy that assigns further ids on its own."""
        copied = CallIds(self._to_wire)
        copied._given, copied._numbers = set(self._given), dict(self._numbers)
        copied._latest = dict(self._latest)  # whose lists are complete once `of_calls` has returned
        return copied

    def _give(self, call_id: str) -> str:
        wanted = self._to_wire(call_id)
        while wanted in self._given:
            number = self._numbers[call_id] = self._numbers.get(call_id, 1) + 1
            wanted = self._to_wire(f"{call_id}_{number}")
        self._given.add(wanted)
        self._latest[call_id].append(wanted)
        return wanted


def is_object(arguments: str) -> bool:
    """True if `arguments` is a complete JSON object."""
    return arguments.rstrip().endswith("}") and _parse(arguments) is not None


def whole_arguments(arguments: str) -> str:
    """Return the arguments of a received call as the text of an object; nothing and `null` are an empty one.

    Raises `GatewayError` (`provider_error`) for arguments that are cut off or not an object.
    """
    arguments = _once(arguments)
    if not arguments or is_object(arguments):
        return arguments or "{}"
    try:
        parsed = orjson.loads(arguments.strip() or "{}")
    except ValueError:
        parsed = arguments
    if parsed is None or parsed == {}:
        return "{}"
    if isinstance(parsed, str) and parsed != arguments and is_object(parsed):  # encoded twice
        return parsed
    raise GatewayError("provider_error", "The model provider sent a tool call whose arguments are not a JSON object.")


def _once(arguments: str) -> str:
    """Return arguments that came twice once: after an empty object, or whole after their pieces."""
    text = arguments.strip()
    rest = text.removeprefix("{}").lstrip()
    if rest != text and is_object(rest) and rest:
        return rest
    middle = len(text) // 2
    half = text[:middle].rstrip()
    return half if half and half == text[middle:].lstrip() and is_object(half) else arguments


def wire_name(call: ToolCall) -> str:
    """Return the name of a call in the form that providers accept: 1 to 64 letters, digits, `_` and `-`."""
    return _NOT_IN_A_NAME.sub("_", call.name)[:_MAX_NAME_CHARS] or "_"


def wire_arguments(call: ToolCall) -> dict[str, Any]:
    """Return the arguments as an object; other text is kept readable in a field of its own."""
    arguments = _parse(call.arguments)
    return {_NO_OBJECT: call.arguments} if arguments is None else arguments


def wire_arguments_text(call: ToolCall) -> str:
    """Return the arguments as the text of a JSON object, unchanged if they are one."""
    if _parse(call.arguments) is not None:
        return call.arguments if call.arguments.strip() not in _NOTHING else "{}"
    return orjson.dumps({_NO_OBJECT: call.arguments}).decode()


def _parse(arguments: str) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(arguments.strip() or "{}")  # some models write nothing, or null, for no arguments
    except ValueError:
        return None
    return {} if parsed is None else parsed if isinstance(parsed, dict) else None
