"""Assemble tool calls of the OpenAI dialect from their pieces, whose ids and indexes hosts fill in many ways."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from typing import Any

import orjson

from service.core.errors import GatewayError
from service.core.ids import new_call_id
from service.core.messages import Function, ToolCall
from service.models.openai.hosts import CALL_DATA
from service.models.openai.surrogates import joined
from service.models.tool_calls import check_calls, is_object, whole_arguments, with_distinct_ids


class PartialCall:
    """A tool call whose pieces are still arriving; `extra` is what has to be sent back with it."""

    __slots__ = ("extra", "id", "name", "pieces")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.extra: dict[str, Any] = {}

    def is_whole(self) -> bool:
        """True if the arguments are a complete object."""
        return is_object(self.text())

    def is_empty(self) -> bool:
        """True without any arguments."""
        return not any(self.pieces)

    def text(self) -> str:
        """Return the arguments; some hosts repeat in each piece all that came before it."""
        text = joined(self.pieces)
        pieces = [piece for piece in self.pieces if piece]
        if len(pieces) > 1 and pieces[1].startswith(pieces[0]) and not is_object(text):
            is_growing = all(later.startswith(piece) for piece, later in pairwise(pieces))
            return joined(pieces[-1:]) if is_growing and is_object(pieces[-1]) else text
        return text


class CallAssembler:
    """The tool calls of one answer to a request with `functions`: `calls` as far as they are there."""

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        self._functions = functions
        self.calls: list[PartialCall] = []
        self._by_index: dict[Any, PartialCall] = {}
        self._characters = 0

    @cached_property
    def _names(self) -> frozenset[str]:
        """The names of the functions, for an answer with calls."""
        return frozenset(function.name for function in self._functions)

    def add(self, pieces: list[dict[str, Any]]) -> None:
        """Process the pieces of one event. Raises `GatewayError` (`provider_error`) beyond the limits of an answer."""
        for piece in pieces:
            arguments = _arguments_of(piece)
            self._extend(self._call_of(piece, arguments), piece, arguments)

    def add_message(self, calls: list[dict[str, Any]]) -> None:
        """Process the calls of a whole message, which may repeat or continue those of the messages before it."""
        known = len(self.calls)
        for place, whole in enumerate(calls[:known]):
            if _is_repeated(call := self.calls[place], whole):
                call.name, call.pieces = _name_of(whole), []
                self._by_index[place] = call
                self._extend(call, whole, _arguments_of(whole))
            else:
                self.add([whole])
        self.add_whole(calls[known:])

    def add_whole(self, calls: list[dict[str, Any]]) -> None:
        """Process calls of one message, each of which is a call by itself, whatever its id and index."""
        for whole in calls:
            self._extend(self._begin(whole.get("index")), whole, _arguments_of(whole))

    def are_whole(self, *, is_ended: bool) -> bool:
        """True if no arguments are cut off; whether none at all are, shows at the end only."""
        return all(call.is_whole() or (is_ended and call.is_empty()) for call in self.calls)

    def ends_empty(self) -> bool:
        """True if the last call, which no other one ends, has no arguments."""
        return bool(self.calls) and self.calls[-1].is_empty()

    def to_calls(self) -> tuple[ToolCall, ...]:
        """Return the calls. Raises `GatewayError` (`provider_error`) for one without a name or with half arguments."""
        return with_distinct_ids(map(_to_call, self.calls))

    def extras_of(self, calls: tuple[ToolCall, ...]) -> dict[str, dict[str, Any]]:
        """Return the extra data of `calls`, the result of `to_calls`, by their ids."""
        return {call.id: piece.extra for call, piece in zip(calls, self.calls, strict=True) if piece.extra}

    def _begin(self, index: Any) -> PartialCall:
        call = self._by_index[index or 0] = PartialCall()
        self.calls.append(call)
        return call

    def _extend(self, call: PartialCall, piece: dict[str, Any], arguments: str) -> None:
        call.id = call.id or str(piece.get("id") or "")
        call.name = self._longer_name(call, _name_of(piece))
        call.pieces.append(arguments)
        if extra := piece.get(CALL_DATA):
            call.extra[CALL_DATA] = extra
            self._characters += len(orjson.dumps(extra))
        self._characters += len(arguments) + len(call.name) + len(call.id)
        check_calls(len(self.calls), self._characters)

    def _call_of(self, piece: dict[str, Any], arguments: str) -> PartialCall:
        index = piece.get("index")
        call = self.calls[-1] if index is None and self.calls else self._by_index.get(index or 0)
        if call is None:
            call = self._continued(piece)
        is_split = call is not None and self._is_split(call, _name_of(piece))
        if call is None or (not is_split and self._begins_another(call, piece, arguments)):
            return self._begin(index)
        self._by_index[index or 0] = call
        return call

    def _continued(self, piece: dict[str, Any]) -> PartialCall | None:
        """Return the call that a piece at a new index continues: the latest one, if it lacks arguments."""
        latest = self.calls[-1] if self.calls else None
        if latest is None or latest.is_whole():
            return None
        call_id, name = piece.get("id"), _name_of(piece)
        if self._is_split(latest, name):
            return latest
        if call_id and call_id == latest.id:
            return None if name and latest.is_empty() else latest
        return None if name or call_id else latest

    def _is_split(self, call: PartialCall, name: str) -> bool:
        """True if `name` continues the name of `call` to that of a function, and is none by itself."""
        if not (name and call.name and call.is_empty()):
            return False
        return name not in self._names and any(known.startswith(call.name + name) for known in self._names)

    def _is_longer(self, call: PartialCall, name: str) -> bool:
        """True if `name` repeats that of `call` and more of it."""
        return name.startswith(call.name) and (name == call.name or call.name not in self._names)

    def _longer_name(self, call: PartialCall, name: str) -> str:
        """Return the name of `call` after a piece with `name`: some hosts split it or repeat it, longer each time."""
        if not call.is_empty():
            return call.name
        if not call.name:
            return name
        if self._is_split(call, name):
            return call.name + name
        return name if self._is_longer(call, name) else call.name

    def _begins_another(self, call: PartialCall, piece: dict[str, Any], arguments: str) -> bool:
        """True if `piece` starts the call after `call` instead of continuing it.

        Some hosts repeat the name, or invent an id, in every piece: until the arguments of `call` are whole, a piece
        with the same name continues it.
        """
        call_id, name = piece.get("id"), _name_of(piece)
        if not name or not call.name:
            return False
        if call_id and call.id and call_id != call.id:
            return name != call.name or call.is_whole() or (call.is_empty() and not arguments)
        if not self._is_longer(call, name):
            return call.is_empty() or call.is_whole()
        if call_id and call_id == call.id:
            before = call.text()
            return is_object(before) and is_object(arguments) and before.strip() not in ("{}", arguments.strip())
        if piece.get("index") is None:
            return True
        is_start = not isinstance(_raw_arguments(piece), str) or name != call.name or arguments.lstrip().startswith("{")
        return is_start and call.is_whole()


def _is_repeated(call: PartialCall, whole: dict[str, Any]) -> bool:
    """True if `whole` has all that is known of `call`, and perhaps more."""
    if (whole.get("id") or call.id) != call.id or not _name_of(whole).startswith(call.name):
        return False
    return _arguments_of(whole).startswith("".join(call.pieces))


def _to_call(call: PartialCall) -> ToolCall:
    if not call.name:
        raise GatewayError("provider_error", "The model provider sent a tool call without the name of a function.")
    return ToolCall(call.id or new_call_id(), call.name, whole_arguments(call.text()))


def _raw_arguments(piece: dict[str, Any]) -> Any:
    return (piece.get("function") or {}).get("arguments")


def _arguments_of(piece: dict[str, Any]) -> str:
    arguments = _raw_arguments(piece) or ""
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


def _name_of(piece: dict[str, Any]) -> str:
    name = (piece.get("function") or {}).get("name") or ""
    if not isinstance(name, str):
        raise TypeError("a function's name is a text")
    return name.strip()
