"""Merge a request's messages into the session history.

Clients differ: some resend the whole history with each request, others send only new messages. Both are supported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import orjson

from service.core.dataclass import record, replace
from service.core.errors import GatewayError
from service.core.messages import NO_USER_MESSAGE, Image, Message, Role, Text, ToolCall, text_message
from service.models.prefix_cache import Prefix, PrefixCache
from service.models.provider import ModelRequest

_MAX_SETTLED_BYTES = 8 * 1024 * 1024
_BYTES_A_MESSAGE = 16

_EXACT = 2**53  # up to here an integral float equals its integer


@record
class IncomingMessage:
    """A message of the request and its path in there (`messages[2]`), for errors."""

    param: str
    message: Message


@record
class Conversation:
    """Messages for the model: `history` is stored, `new` will be stored with the answer."""

    history: tuple[Message, ...]
    new: tuple[Message, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, in order."""
        return self.history + self.new


def select_new(
    history: tuple[Message, ...], incoming: Sequence[IncomingMessage], *, has_instructions: bool = False
) -> tuple[IncomingMessage, ...]:
    """Return the messages of a request that are new to a session with this history.

    With a history, those after the request's last assistant message; without one, all: the request's own history seeds
    the session. A request that `has_instructions` (system or developer messages) needs no user message; in a session
    with a history, a note takes its place, because the last message there is an answer. Raises `GatewayError` (400) if
    nothing is new, or if a tool result has no call before it.
    """
    new = list(incoming)
    if history:
        last = max((index for index, item in enumerate(new) if item.message.role is Role.ASSISTANT), default=-1)
        new = new[last + 1 :]
    if has_instructions and not any(item.message.role in (Role.USER, Role.TOOL) for item in incoming):
        return (IncomingMessage("messages", text_message(Role.USER, NO_USER_MESSAGE)),) if history else tuple(new)
    check_new(history, new)
    return tuple(new)


def check_new(history: Sequence[Message], new: Sequence[IncomingMessage]) -> None:
    """Raise `GatewayError` (400) if `new` messages have nothing to answer, or if a tool result has no call before."""
    has_input = has_results = False
    for item in new:
        has_input = has_input or _has_input(item)
        has_results = has_results or item.message.tool_call_id is not None
    if not has_input:
        text = "There is no user message to answer. Add a message with the role user that has text or an image."
        raise GatewayError("missing_required_parameter", text, param="messages")
    if has_results:
        _check_tool_results(history, new)


def _has_input(item: IncomingMessage) -> bool:
    message = item.message
    if message.role is Role.USER:
        return bool(message.text.strip()) or message.has_image
    return message.role is Role.TOOL


def _check_tool_results(history: Sequence[Message], new: Sequence[IncomingMessage]) -> None:
    waiting = {call.id for call in unanswered_calls(history)}
    for item in new:
        waiting.update(call.id for call in item.message.tool_calls)
        wanted = item.message.tool_call_id
        if wanted is None or wanted in waiting:
            continue
        if any(message.tool_call_id == wanted for message in history):
            text = f"`{item.param}` repeats the result of a call that already has one. Send only new messages."
        else:
            text = (
                f"`{item.param}` is the result of a tool call, but no message before it has a call with that id. "
                "Send the call first, as it was in the answer."
            )
        raise GatewayError("invalid_value", text, param=item.param)


class ConversationDigest:
    """Digest of a conversation's content, as `str()`; equal content gives an equal digest.

    Images count only by presence, because the stored copy is fetched or relabelled. Arguments of calls count by their
    JSON value, because libraries reformat them.
    """

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> None:
        """Add `message` to the digest."""
        parts = [None if isinstance(part, Image) else part.text for part in message.parts]
        fields = [message.role, message.name, message.tool_call_id, parts, len(message.tool_calls)]
        self._hash.update(orjson.dumps(fields))
        for call in message.tool_calls:
            self._hash.update(orjson.dumps([call.id, call.name]) + canonical_json(call.arguments))

    def __str__(self) -> str:
        return self._hash.hexdigest()


def canonical_json(arguments: str) -> bytes:
    """Return the arguments of a call in one form for each JSON value; text that is not JSON as it is."""
    try:
        return orjson.dumps(_plain(orjson.loads(arguments)), option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError, RecursionError):  # not JSON, or nested deeper than the encoder accepts
        return arguments.encode()


def _plain(value: object) -> object:
    """Return `value` with integral floats as integers, as JavaScript writes them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT else value


def unanswered_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """Return the tool calls in `messages` without a result, which the caller of a run has to answer."""
    waiting: list[ToolCall] = []
    for message in messages:
        waiting += message.tool_calls
        answered = next((call for call in waiting if call.id == message.tool_call_id), None)
        if answered is not None:
            waiting.remove(answered)
    return tuple(waiting)


def annotate_truncated(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Append a note to each message that was cut off."""
    return tuple(message if message.cut_off is None else _with_note(message) for message in messages)


def _with_note(message: Message) -> Message:
    note = Text(f"\n\n(cut off here: {message.cut_off})")
    return replace(message, parts=(*message.parts, note), cut_off=None)


class SettledHistories:
    """`settle_tool_calls` for continued conversations, whose first messages are settled once."""

    def __init__(self, max_bytes: int = _MAX_SETTLED_BYTES) -> None:
        self._known: PrefixCache[tuple[Message, ...]] = PrefixCache(max_bytes)

    def settle(self, request: ModelRequest) -> ModelRequest:
        """Return `request` with its messages as `settle_tool_calls` returns them."""
        messages = request.messages
        settled = self._settled(messages) if request.continued else settle_tool_calls(messages)
        return request if settled == messages else replace(request, messages=settled)

    def _settled(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        known = self._known.find(None, messages)
        before, count = ((), 0) if known is None else (known.value, len(known.messages))
        added = messages[count:]
        settled = before + settle_tool_calls(added)
        # A later result goes to an unanswered call, and stays where it is without one.
        if added and not unanswered_calls(added):
            settled = messages if settled == messages else settled
            self._known.put(Prefix(None, messages, settled, _BYTES_A_MESSAGE * len(settled)))
        return settled


def settle_tool_calls(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Order the conversation as every provider accepts it: each tool call directly followed by its result.

    Results are moved behind their call, missing results are filled in, and a second result for a call is dropped.
    """
    steps = [message for message in messages if message.tool_calls or message.tool_call_id is not None]
    if not steps:
        return tuple(messages)
    settled: list[Message | ToolCall] = []  # a call, where its result has not come yet
    unanswered: dict[str, list[int]] = {}  # a call's id -> where its result goes, several if one message repeats it
    for message in messages:
        if message.tool_call_id is not None:
            if places := unanswered.get(message.tool_call_id):
                settled[places.pop(0)] = message
            continue
        settled.append(message)
        unanswered |= {call.id: [] for call in message.tool_calls}
        for call in message.tool_calls:
            unanswered[call.id].append(len(settled))
            settled.append(call)
    return tuple([one if isinstance(one, Message) else _without_result(one) for one in settled])


def _without_result(call: ToolCall) -> Message:
    return Message(Role.TOOL, (Text("(no result)"),), tool_call_id=call.id)
