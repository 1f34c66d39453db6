"""Boundaries at which a conversation can be split: a summary replaces the first part, the rest stays unchanged.

The messages of the current task stay; results too long for that are truncated as their tools would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from service.core.messages import Message, Role, Text
from service.models.tokens import BYTES_PER_TOKEN, estimate_message

_MIN_RESULT_TOKENS = 64
_NOTE_BYTES = 64


def safe_cuts(messages: Sequence[Message]) -> list[int]:
    """Return the ascending indexes at which a conversation can be split without separating a call from its result."""
    parted = [0] * (len(messages) + 1)  # number of calls that begin, less those that end, at each index
    called: dict[str, int] = {}
    for index, message in enumerate(messages):
        called |= {call.id: index for call in message.tool_calls}
        if message.tool_call_id in called:
            parted[called[message.tool_call_id] + 1] += 1
            parted[index + 1] -= 1
    cuts, open_calls = [], 0
    for index, change in enumerate(parted):
        open_calls += change
        if not open_calls:
            cuts.append(index)
    return cuts


def choose_cut(messages: Sequence[Message], tail_tokens: float) -> int:
    """Return the index of the first message kept verbatim, so that the tail fits `tail_tokens`.

    The tail includes the latest user message. If the messages after that are too long, the cut comes later, and the
    summary must repeat it.
    """
    sizes = [estimate_message(message) for message in messages]
    tails = [*accumulate(reversed(sizes), initial=0)][::-1]  # the size from each index to the end
    latest = latest_user(messages)
    cuts = safe_cuts(messages)
    for cut in cuts:
        repeated = sizes[latest] if latest is not None and cut > latest else 0
        if tails[cut] + repeated <= tail_tokens:
            return cut
    if latest is not None and latest == len(messages) - 1:
        return max(cut for cut in cuts if cut <= latest)
    return len(messages)


def choose_tail(messages: Sequence[Message], tail_tokens: float) -> tuple[int, tuple[Message, ...]]:
    """Return the index of the first message that is not summarised, and the tail from there, cut to `tail_tokens`.

    The messages are unchanged, or, if none fit, the last calls with shortened results.
    """
    cut = choose_cut(messages, tail_tokens)
    if cut < len(messages) or not messages:
        return cut, tuple(messages[cut:])
    start = max(place for place in safe_cuts(messages) if place < len(messages))
    latest = latest_user(messages)
    repeated = estimate_message(messages[latest]) if latest is not None and latest < start else 0
    step = _cut_results(messages[start:], tail_tokens - repeated)
    return (start, step) if step and start else (cut, ())


def _cut_results(step: Sequence[Message], tokens: float) -> tuple[Message, ...]:
    """Shorten the results to `tokens` together, in equal shares; return nothing if the shares would be too small."""
    results = [(index, estimate_message(message)) for index, message in enumerate(step) if message.tool_call_id]
    left = tokens - sum(estimate_message(message) for message in step if not message.tool_call_id)
    shown = list(step)
    for done, (index, size) in enumerate(sorted(results, key=lambda one: one[1])):
        share = left / (len(results) - done)
        if size > share and share < _MIN_RESULT_TOKENS:
            return ()
        left -= min(size, share)
        shown[index] = step[index] if size <= share else _cut_result(step[index], share)
    return tuple(shown) if results else ()


def _cut_result(message: Message, tokens: float) -> Message:
    data = message.text.encode(errors="replace")
    room = max(0, int((tokens - estimate_message(replace(message, parts=()))) * BYTES_PER_TOKEN) - _NOTE_BYTES)
    head, tail = data[: room * 2 // 3], data[len(data) - room // 3 :]
    note = f"\n[... {len(data) - len(head) - len(tail)} of {len(data)} bytes left out here ...]\n"
    return replace(message, parts=(Text(head.decode(errors="ignore") + note + tail.decode(errors="ignore")),))


def latest_user(messages: Sequence[Message]) -> int | None:
    """Return the index of the latest user message, `None` without one."""
    users = (index for index in reversed(range(len(messages))) if messages[index].role is Role.USER)
    return next(users, None)
