"""Fold the events of a run into a response: its output items, and the numbered events of its stream.

The same fold makes the whole response, the stream, and what is read back later. Numbers do not depend on how a text was
divided: a delta has the number of its last character.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from service.agent.events import (
    PARAGRAPH,
    ReasoningDelta,
    RunEnded,
    RunEvent,
    TextDelta,
    ToolCallRequested,
    ToolCallWritten,
    ToolEnded,
    ToolStarted,
)
from service.api.http.openai_responses.items import (
    CALL,
    MESSAGE,
    REASONING_ITEM,
    ItemKind,
    OpenItem,
    OpenOwnCall,
)
from service.api.http.openai_responses.tools import split_names
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import StopReason, ToolCall, Usage
from service.core.usage import to_dollars
from service.storage.runs.records import RUN_ID_PREFIX, RunState

RESPONSE_ID_PREFIX = "resp_"

_ANSWERS = (MESSAGE.type, CALL.type)
_INCOMPLETE = {StopReason.LENGTH: "max_output_tokens", StopReason.CONTENT_FILTER: "content_filter"}


@record
class StreamedEvent:
    """An event of a stream; `delta` is set if each character of that member has a number, the last one `number`."""

    number: int
    kind: str
    members: Mapping[str, Any]

    def after(self, number: int) -> StreamedEvent:
        """Return the part of a delta that is behind `number`; any other event unchanged."""
        delta = self.members.get("delta")
        if delta is None or self.number - len(delta) >= number:
            return self
        return StreamedEvent(self.number, self.kind, {**self.members, "delta": delta[-(self.number - number) :]})


def to_response_id(run_id: str) -> str:
    """Return the id of the response that a run gives."""
    return RESPONSE_ID_PREFIX + run_id.removeprefix(RUN_ID_PREFIX)


class ResponseFold:
    """A response as it grows: call `begin`, then `add` for each event of the run; each returns the events of a stream.

    `echo` is what `to_echo` returned, `accepted_at` is in seconds since 1970. With `shows_reasoning` the request asks
    for summaries of the reasoning, with `include_cost` for what the response costs.
    """

    def __init__(self, run_id: str, accepted_at: float, echo: Mapping[str, Any], *, include_cost: bool = False) -> None:
        self._include_cost = include_cost
        self._name = run_id.removeprefix(RUN_ID_PREFIX)
        self._head = {
            "id": to_response_id(run_id),
            "object": "response",
            "created_at": int(accepted_at),
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "usage": None,
            "conversation": None,
            **echo,
        }
        self._shows_own = bool(self._head.pop("include", ()))
        self._own: dict[str, OpenOwnCall] = {}  # by the ids of the calls
        self.shows_reasoning = shows_reasoning(echo)
        self._split_names = split_names(echo["tools"])
        self._items: list[dict[str, Any] | None] = []  # none of calls that go on
        self._open: OpenItem | None = None
        self._calls = 0
        self._late_text = ""  # that came while a call was written
        self._number = -1

    @property
    def response(self) -> dict[str, Any]:
        """The response so far; an item that is being written is part of it only once it is complete."""
        return {**self._head, "output": self._output}

    @property
    def _output(self) -> list[dict[str, Any]]:
        return [item for item in self._items if item is not None]

    def begin(self) -> list[StreamedEvent]:
        """Return the first events."""
        return [self._state("response.created"), self._state("response.in_progress")]

    def add(self, event: RunEvent, ended_at: float | None) -> list[StreamedEvent]:
        """Add an event of a run that ended at `ended_at`, if it has; events that callers do not see add nothing."""
        match event:
            case TextDelta():
                return self._add_text(event.text)
            case ReasoningDelta() if self.shows_reasoning:
                return self._write(REASONING_ITEM, event.text)
            case ToolCallWritten() if event.index == self._calls:  # further ones are shown when they are complete
                return self._write(CALL, event.text, **self._name_call(event.id, event.name))
            case ToolCallRequested():
                return self._add_call(event.call)
            case RunEnded():
                return self._end(event, ended_at)
            case _:
                return self._add_own(event) if self._shows_own else []

    def add_all(self, events: Iterable[RunEvent], ended_at: float | None) -> dict[str, Any]:
        """Add the events of a whole run, and return the response."""
        for event in events:
            self.add(event, ended_at)
        return self.response

    def _event(self, kind: str, members: Mapping[str, Any], units: int = 1) -> StreamedEvent:
        self._number += units
        return StreamedEvent(self._number, kind, members)

    def _state(self, kind: str) -> StreamedEvent:
        return self._event(kind, {"response": self.response})

    def _write(self, kind: ItemKind, text: str, **members: Any) -> list[StreamedEvent]:
        """Write to the open item, or to a new one if that is of another kind."""
        events: list[StreamedEvent] = []
        if self._open is None or self._open.kind is not kind:
            events += self._close("completed")
            if any(item["type"] == kind.type for item in self._output):
                text = text.removeprefix(PARAGRAPH)  # which parts it from the item before
            self._open = OpenItem(kind, self._name, len(self._items), **members)
            events += [self._event(*event) for event in self._open.begin()]
        return events + [self._event(*event) for event in self._open.write(text)]

    def _close(self, status: str) -> list[StreamedEvent]:
        if self._open is None:
            return []
        item, events = self._open.end(status)
        self._items.append(item)
        self._open = None
        return [self._event(*event) for event in events]

    def _add_text(self, text: str) -> list[StreamedEvent]:
        if self._open is not None and self._open.kind is CALL:
            self._late_text += text
            return []
        return self._write(MESSAGE, text)

    def _add_call(self, call: ToolCall) -> list[StreamedEvent]:
        written = len(self._open.text) if self._open is not None and self._open.kind is CALL else 0
        events = self._write(CALL, call.arguments[written:], **self._name_call(call.id, call.name))
        self._calls += 1
        events += self._close("completed")
        late, self._late_text = self._late_text, ""
        return events + (self._write(MESSAGE, late) if late else [])

    def _add_own(self, event: RunEvent) -> list[StreamedEvent]:
        if isinstance(event, ToolStarted):
            return self._begin_own(event.call)
        if isinstance(event, ToolEnded):
            return self._end_own(event.call.id, "failed" if event.failed else "completed", event.text)
        return []

    def _begin_own(self, call: ToolCall) -> list[StreamedEvent]:
        events = self._close("completed")
        self._own[call.id] = opened = OpenOwnCall(call, self._name, len(self._items))
        self._items.append(None)
        return events + [self._event(*event) for event in opened.begin()]

    def _end_own(self, call_id: str, status: str, text: str | None) -> list[StreamedEvent]:
        opened = self._own.pop(call_id, None)
        if opened is None:
            return []
        self._items[opened.index], events = opened.end(status, text)
        return [self._event(*event) for event in events]

    def _name_call(self, call_id: str, name: str) -> dict[str, str]:
        return {"call_id": call_id, **self._split_names.get(name, {"name": name})}

    def _end(self, end: RunEnded, ended_at: float | None) -> list[StreamedEvent]:
        reason = None if end.error is not None else _INCOMPLETE.get(end.stop_reason)
        is_whole = end.error is None and reason is None
        says_nothing = self._open is None and not any(item["type"] in _ANSWERS for item in self._output)
        events = self._write(MESSAGE, "") if is_whole and says_nothing else []
        events += self._close("completed" if is_whole else "incomplete")
        for call_id in tuple(self._own):
            events += self._end_own(call_id, "incomplete", None)
        status = "completed" if is_whole else "incomplete" if reason else _to_failed_status(end)
        self._head |= {
            "status": status,
            "completed_at": int(ended_at) if is_whole and ended_at is not None else None,
            "error": None if end.error is None else _to_failure(end.error),
            "incomplete_details": None if reason is None else {"reason": reason},
            "usage": self._to_usage(end),
        }
        return [*events, self._state("response.failed" if end.error is not None else f"response.{status}")]

    def _to_usage(self, end: RunEnded) -> dict[str, Any] | None:
        if end.error is not None and end.usage == Usage():
            return None
        usage = to_response_usage(end.usage)
        return usage | {"cost": to_dollars(end.usage.cost_nano)} if self._include_cost else usage


def shows_reasoning(echo: Mapping[str, Any]) -> bool:
    """Return True if the request of a response, which `echo` repeats, asks for a summary of the reasoning."""
    return echo["reasoning"]["summary"] is not None


def in_own_words(message: str) -> str:
    """Return the message of an error with this API's name of the format."""
    return message.replace("`response_format.json_schema", "`text.format").replace("`response_format", "`text.format")


def _to_failure(error: GatewayError) -> dict[str, str]:
    return {"code": error.code, "message": in_own_words(error.message)}


def _to_failed_status(end: RunEnded) -> str:
    return "cancelled" if end.state is RunState.ABORTED else "failed"


def to_response_usage(usage: Usage) -> dict[str, Any]:
    """Translate token counts to the contract's `ResponseUsage`."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
