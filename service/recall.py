"""What a caller that stands alone cannot send back: the steps an agent took by itself before it asked the caller.

A run that ends with a call of the caller's functions may have used its own tools before, and its provider may have
added data to the call. In a session the transcript has both. A stateless follow-up brings back only what the caller
saw; the rest is taken from the transcript of the run that asked, which is found by the id of the call, if the
conversation before it is the very same.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from service.conversation import IncomingMessage, unanswered_calls
from service.messages import Image, Message, ToolCall
from service.sessions.records import RunRecords
from service.sessions.store import SessionStore


def recall_steps(
    incoming: Sequence[IncomingMessage], agent_id: str, records: RunRecords, store: SessionStore
) -> tuple[IncomingMessage, ...]:
    """The conversation of a stateless request to an agent with that agent's own steps in their places.

    Raises `StoreError`.
    """
    asked = {item.message.tool_calls[0].id for item in incoming if item.message.tool_calls}
    turns = {
        call_id: (store.load_turn(record.session_key, record.id), record.reply_count)
        for call_id, record in (records.find_asking(asked, agent_id) if asked else {}).items()
    }
    if not turns:
        return tuple(incoming)
    recalled: list[IncomingMessage] = []
    for item in incoming:
        calls = item.message.tool_calls
        turn, reply_count = turns.get(calls[0].id, ((), 0)) if calls else ((), 0)
        asked_after, reply = turn[: len(turn) - reply_count], turn[len(turn) - reply_count :]
        if reply and _is_same(unanswered_calls(reply), calls) and _says_same(asked_after, recalled):
            recalled.extend(IncomingMessage(item.place, message) for message in reply)
        else:
            recalled.append(item)
    return tuple(recalled)


def _says_same(stored: Sequence[Message], sent: Sequence[IncomingMessage]) -> bool:
    return len(stored) == len(sent) and all(
        _shown(one) == _shown(other.message) and _is_same(one.tool_calls, other.message.tool_calls)
        for one, other in zip(stored, sent, strict=True)
    )


def _shown(message: Message) -> tuple[object, ...]:
    """What does not change on the way into a transcript: of a picture, labelled anew or fetched there, that it is."""
    parts = tuple("" if isinstance(part, Image) else part for part in message.parts)
    return message.role, message.name, message.tool_call_id, parts


def _is_same(stored: Sequence[ToolCall], sent: Sequence[ToolCall]) -> bool:
    """Whether the calls are the same; libraries read their arguments and write them anew, in a form of their own."""
    return len(stored) == len(sent) and all(
        (one.id, one.name) == (other.id, other.name)
        and (one.arguments == other.arguments or _parse(one.arguments) == _parse(other.arguments))
        for one, other in zip(stored, sent, strict=True)
    )


def _parse(arguments: str) -> object:
    try:
        return orjson.loads(arguments)
    except ValueError:
        return arguments
