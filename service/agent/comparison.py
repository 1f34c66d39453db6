"""Compare messages that a client sends back with stored ones, by digests of the conversations they end.

Clients change messages on the way. What counts and what does not:

* Text: without white space at its ends, line ends as LF, the parts of a message joined. In an assistant message without
  reasoning: `<think>...</think>` and the like at the beginning of a paragraph, since elsewhere they are part of an
  answer about XML, or a `<details type=...>` block of Open WebUI.
* Images: their number, because the stored copy is fetched or re-encoded. `loose_parts` distinguishes conversations with
  the same number.
* Tool calls: id, name and the JSON value of the arguments. Results: the id of the call alone, because clients shorten
  and mark them.
* A run's answer is one message: its texts, joined by blank lines, and its calls of the caller's functions. The agent's
  own steps do not count, since no client sees them, nor do messages without content, nor system messages,
  which only the databases of earlier versions have.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import orjson

from service.agent.conversation import canonical_json, unanswered_calls
from service.agent.events import PARAGRAPH
from service.core.concurrency import pause
from service.core.messages import NO_USER_MESSAGE, Image, Message, Role, ToolCall
from service.storage.sessions.transcripts import StoredEntry
from service.storage.sessions.tree import ROOT, SessionTree

_LARGE_BYTES = 1024 * 1024  # takes a millisecond to encode, and another one to hash

#: The digest of a conversation without messages.
EMPTY = ""

_REASONING = ("think", "thinking", "reason", "reasoning", "thought")
_OPENING = re.compile(rf"<({'|'.join(_REASONING)})>|<(details) type=[^<>]*>", re.IGNORECASE | re.ASCII)
_CLOSING = {name: re.compile(f"</{name}>", re.IGNORECASE | re.ASCII) for name in (*_REASONING, "details")}
_GAP_CHARACTERS = 64


def extend_digest(digest: str, message: Message) -> str:
    """Return the digest of a conversation with `digest` and then `message`, as its client sent it."""
    if message.role is Role.ASSISTANT:
        return _with_answer(digest, message.text, message.tool_calls)
    if message.role is Role.SYSTEM:
        return digest
    if message.role is Role.TOOL:
        return _add(digest, [Role.TOOL, message.tool_call_id])
    text, images = _trim(message.text), sum(isinstance(part, Image) for part in message.parts)
    is_empty = (not text and not images) or text == NO_USER_MESSAGE
    return digest if is_empty else _add(digest, [message.role, message.name, text, images])


def extend_digest_with_answer(digest: str, output: Sequence[Message]) -> str:
    """Return the digest of a conversation with `digest` and then the `output` of a run, as its client sees it."""
    text = PARAGRAPH.join(message.text for message in output if message.role is Role.ASSISTANT and message.text)
    return _with_answer(digest, text, unanswered_calls(output))


def digest_turn(digest: str, new: Sequence[Message], output: Sequence[Message]) -> tuple[str | None, ...]:
    """Return the digest that each message of a turn ends, `None` for those that the client does not see."""
    digests: list[str | None] = []
    for message in new:
        digest = extend_digest(digest, message)
        digests.append(digest)
    if output:
        digests += [*(None for _ in output[1:]), extend_digest_with_answer(digest, output)]
    return tuple(digests)


def digest_entries(entries: Iterator[StoredEntry], tree: SessionTree) -> dict[int, str]:
    """Return the digests of messages that are stored without, imported ones and those of earlier versions, by numbers.

    The output of a run is recognized by its place: after the last message of the user and the results of the caller's
    functions.
    """
    parents = {branch.first: branch.parent for branch in tree.branches}
    firsts = sorted(parents)
    found: dict[int, str] = {}
    ends: dict[int, str] = {ROOT: EMPTY}
    for _, group in groupby(entries, lambda entry: (entry.run_id, bisect(firsts, entry.seq))):
        turn = list(group)
        if any(entry.digest is not None for entry in turn):
            break
        first = turn[0].seq
        digest = ends[parents.get(first, first - 1)]
        messages = [entry.message for entry in turn]
        start = _output_start(messages)
        for entry, made in zip(turn, digest_turn(digest, messages[:start], messages[start:]), strict=True):
            if made is not None:
                found[entry.seq] = digest = made
            ends[entry.seq] = digest
    return found


def _output_start(messages: Sequence[Message]) -> int:
    start = max((index + 1 for index, message in enumerate(messages) if message.role is Role.USER), default=0)
    while start < len(messages) and messages[start].role is Role.TOOL:
        start += 1
    return start


def is_same(stored: Message, sent: Message) -> bool:
    """Return True if a message was sent again as it is stored. Messages with images never are."""
    alike = (stored.role, stored.name, stored.tool_call_id) == (sent.role, sent.name, sent.tool_call_id)
    has_image = stored.has_image or sent.has_image
    return alike and not has_image and _trim(stored.text) == _trim(sent.text)


def loose_parts(messages: Sequence[Message]) -> frozenset[tuple[str | None, str]]:
    """Return what digests leave out of `messages`: the images, and the texts of results with the ids of their calls."""
    images = ((None, part.url) for message in messages for part in message.parts if isinstance(part, Image))
    results = ((message.tool_call_id, _trim(message.text)) for message in messages if message.role is Role.TOOL)
    return frozenset(chain(images, results))


def _with_answer(digest: str, text: str, calls: Sequence[ToolCall]) -> str:
    text = _trim(_without_reasoning(text) if "<" in text else text)
    called = [[call.id, call.name, canonical_json(call.arguments).decode(errors="replace")] for call in calls]
    return _add(digest, [Role.ASSISTANT, text, called]) if text or called else digest


def _without_reasoning(text: str) -> str:
    """Return `text` without reasoning, in one pass, however many tags are not closed."""
    kept, end, unclosed = [], 0, set()
    for opening in _OPENING.finditer(text):
        start, name = opening.start(), (opening[1] or opening[2]).lower()
        if start < end or name in unclosed or not (opening[2] or _begins_paragraph(text, end, start)):
            continue
        closing = _CLOSING[name].search(text, opening.end())
        if closing is None:
            unclosed.add(name)
            continue
        kept.append(text[end:start])
        end = closing.end()
    return "".join((*kept, text[end:]))


def _begins_paragraph(text: str, after: int, start: int) -> bool:
    """Return True if a paragraph begins at `start`, or only white space is between there and `after`."""
    before = max(after, start - _GAP_CHARACTERS)
    gap = text[before:start]
    said = gap.rstrip()
    return gap.count("\n", len(said)) > 1 or (not said and before == after)


def _trim(text: str) -> str:
    return (text.replace("\r\n", "\n") if "\r" in text else text).strip()  # a search for one character is much faster


def _add(digest: str, fields: list[object]) -> str:
    added = orjson.dumps(fields)
    if len(added) > _LARGE_BYTES:
        pause()
    state = hashlib.blake2b(digest.encode(), digest_size=16)
    state.update(added)
    return state.hexdigest()
