"""Restore internal tool steps for stateless follow-ups.

A run that ends with a call of the caller's functions may have used its own tools before, and its provider may have
added data to the call. In a session, the transcript has both. A stateless follow-up has only the messages that the
caller received; the rest comes from the transcript of the earlier run, which is found by the call's id and used only
if the conversation before the call is identical.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.agent.conversation import ConversationDigest, IncomingMessage, unanswered_calls
from service.core.messages import Message, ToolCall
from service.storage.runs.records import RunRecords
from service.storage.sessions.transcripts import TranscriptStore


def recall_steps(
    incoming: Sequence[IncomingMessage], agent_id: str, owner: str | None, records: RunRecords, store: TranscriptStore
) -> tuple[IncomingMessage, ...]:
    """Return the conversation of a stateless request of `owner` with the agent's own tool steps restored.

    Raises `StoreError`.
    """
    asked = {item.message.tool_calls[0].id for item in incoming if item.message.tool_calls}
    asking = records.find_asking(asked, agent_id, owner) if asked else {}
    if not asking:
        return tuple(incoming)
    before = ConversationDigest()
    recalled: list[IncomingMessage] = []
    for item in incoming:
        calls = item.message.tool_calls
        record = asking.get(calls[0].id) if calls else None
        own: tuple[Message, ...] = ()
        if record is not None and record.asked_after == str(before):
            own = store.load_reply(record.session_key, record.id, record.reply_count)
        shown = own if own and _is_same(unanswered_calls(own), calls) else (item.message,)
        for message in shown:
            before.add(message)
            recalled.append(item if message is item.message else IncomingMessage(item.param, message))
    return tuple(recalled)


def _is_same(stored: Sequence[ToolCall], sent: Sequence[ToolCall]) -> bool:
    return [(one.id, one.name) for one in stored] == [(one.id, one.name) for one in sent]
