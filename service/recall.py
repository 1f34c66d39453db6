"""What a caller that stands alone cannot send back: the steps an agent took by itself before it asked the caller.

A run that ends with a call of the caller's functions may have used its own tools before, and its provider may have
added data to the call. In a session the transcript has both. A stateless follow-up brings back only what the caller
saw; the rest is taken from the transcript of the run that asked, if the conversation before it is the very same.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.conversation import IncomingMessage, unanswered_calls
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
        call_id: (store.load_conversation(record.session_key), record.reply_count)
        for call_id, record in (records.find_asking(asked, agent_id) if asked else {}).items()
    }
    recalled: list[IncomingMessage] = []
    for item in incoming:
        calls = item.message.tool_calls
        turn, reply_count = turns.get(calls[0].id, ((), 0)) if calls else ((), 0)
        asked_after, reply = turn[: len(turn) - reply_count], turn[len(turn) - reply_count :]
        if reply and unanswered_calls(reply) == calls and asked_after == tuple(one.message for one in recalled):
            recalled.extend(IncomingMessage(item.place, message) for message in reply)
        else:
            recalled.append(item)
    return tuple(recalled)
