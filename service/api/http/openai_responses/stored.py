"""Responses that are read back: their state is the run's record, their items are the messages of its turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import orjson

from service.agent.events import (
    ReasoningDelta,
    ReasoningRetracted,
    RunEnded,
    RunEvent,
    TextDelta,
    TextRetracted,
    ToolCallRequested,
    ToolEnded,
    ToolStarted,
)
from service.agent.output_events import reply_events, settled_events
from service.api.http.openai_responses.output import RESPONSE_ID_PREFIX, ResponseFold, StreamedEvent
from service.api.http.openai_responses.tools import parse_tools
from service.core.errors import GatewayError
from service.core.messages import Message, StopReason, ToolCall
from service.core.principal import ADMINISTRATOR, Principal
from service.gateway.gateway import Gateway
from service.gateway.run_outcome import failure_of
from service.storage.runs.events import LoggedEvent
from service.storage.runs.records import RUN_ID_PREFIX, RunRecord, RunState
from service.storage.storage import Storage

_ITEM_ID = re.compile(r"(?:msg|fc|rs|mcp)_([0-9a-f-]{36})_([0-9]{1,4})")
_MOST_MESSAGES = 20_000  # of one turn
_LOOK_SECONDS = 0.5


def to_run_id(response_id: str) -> str:
    """Return the id of the run that gives a response."""
    return RUN_ID_PREFIX + response_id.removeprefix(RESPONSE_ID_PREFIX)


def find_response(gateway: Gateway, response_id: str, principal: Principal) -> RunRecord | None:
    """Return the run of a stored response, if there is one that `principal` may see. Raises `StoreError`."""
    if not response_id.startswith(RESPONSE_ID_PREFIX):
        return None
    try:
        found = gateway.get_run(to_run_id(response_id), principal)
    except GatewayError:
        return None
    return None if found.response is None else found


def get_record(gateway: Gateway, response_id: str, principal: Principal) -> RunRecord:
    """Return the run of a stored response; raises `GatewayError` (`response_not_found`), and `StoreError`."""
    found = find_response(gateway, response_id, principal)
    if found is None:
        text = f'Response "{response_id}" not found: it was never given, was not stored, or has been deleted.'
        raise GatewayError("response_not_found", text, param="response_id")
    return found


def wait_for_end(gateway: Gateway, run_id: str, seconds: float) -> None:
    """Wait until a run has ended, in whatever process, at most `seconds`. Raises `StoreError`."""
    run = gateway.runs.find(run_id)
    if run is not None:
        run.wait_for_end(seconds)
        return
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0 and not gateway.get_run(run_id, ADMINISTRATOR).state.is_final:
        gateway.storage.run_events.wait_elsewhere(run_id, min(left, _LOOK_SECONDS))


def open_fold(record: RunRecord) -> ResponseFold:
    """Return the response of a run without its events."""
    return ResponseFold(record.id, record.accepted_at_ms / 1000, orjson.loads(record.response or "{}"))


def to_stored_response(storage: Storage, record: RunRecord) -> dict[str, Any]:
    """Return a stored response as it is: with its output once its run has ended. Raises `StoreError`."""
    if not record.state.is_final:
        status = "queued" if record.state is RunState.QUEUED else "in_progress"
        return {**open_fold(record).response, "status": status}
    ended_at = None if record.ended_at_ms is None else record.ended_at_ms / 1000
    fold = open_fold(record)
    is_logged = record.detached or fold.shows_reasoning
    events = _logged_output(storage, record) if is_logged else _kept_output(storage, record)
    return fold.add_all([*settled_events(tuple(events)), _end_of(record)], ended_at)


def find_item(gateway: Gateway, item_id: str, principal: Principal) -> dict[str, Any] | None:
    """Return the item with this id of the output of a stored response. Raises `StoreError`."""
    named = _ITEM_ID.fullmatch(item_id)
    record = None if named is None else find_response(gateway, RESPONSE_ID_PREFIX + named[1], principal)
    if record is None:
        return None
    output = to_stored_response(gateway.storage, record)["output"]
    return next((item for item in output if item["id"] == item_id), None)


class StoredEvents:
    """The events of a stream that is read again, translated from the numbered events of its run."""

    def __init__(self, gateway: Gateway, record: RunRecord, after: int) -> None:
        self._gateway = gateway
        self._record = record
        self._fold = open_fold(record)
        self._after = after

    def begin(self) -> list[StreamedEvent]:
        """Return the first events, as far as they are behind the number."""
        return self._behind(self._fold.begin())

    def translate(self, batch: Iterable[LoggedEvent]) -> list[StreamedEvent]:
        """Return the next events, as far as they are behind the number. Raises `StoreError`."""
        return [one for event in batch for one in self._behind(self._add(event))]

    def _add(self, logged: LoggedEvent) -> list[StreamedEvent]:
        if logged.kind == "run.ended":
            record = self._gateway.get_run(self._record.id, ADMINISTRATOR)
            return self._fold.add(_end_of(record), None if record.ended_at_ms is None else record.ended_at_ms / 1000)
        event = _to_event(logged)
        return [] if event is None else self._fold.add(event, None)

    def _behind(self, events: Sequence[StreamedEvent]) -> list[StreamedEvent]:
        return [event.after(self._after) for event in events if event.number > self._after]


def _logged_output(storage: Storage, record: RunRecord) -> Iterator[RunEvent]:
    """Yield the output of a run whose events are stored."""
    after = 0
    while batch := storage.run_events.read_after(record.id, after):
        after = batch[-1].number
        yield from filter(None, map(_to_event, batch))


def _kept_output(storage: Storage, record: RunRecord) -> Iterator[RunEvent]:
    """Yield the output of a run that its turn has: of a failed one what was kept."""
    reply = storage.transcripts.load_reply(record.session_key, record.id, record.reply_count)
    tools = orjson.loads(record.response or "{}").get("tools", ())
    return reply_events(reply, {tool.function["name"] for tool in parse_tools(tools)})


def load_input(storage: Storage, record: RunRecord) -> tuple[Message, ...]:
    """Return the messages that the request of a response added to its session. Raises `StoreError`."""
    turn = storage.transcripts.load_reply(record.session_key, record.id, _MOST_MESSAGES)
    return turn[: len(turn) - record.reply_count]


def _to_event(logged: LoggedEvent) -> RunEvent | None:
    make = _EVENTS.get(logged.kind)
    return None if make is None else make(orjson.loads(logged.data))


def _to_call(members: Mapping[str, Any]) -> ToolCall:
    return ToolCall(members["id"], members["name"], members["arguments"])


#: The events of a run that its response is made of, by the kinds that they are stored as.
_EVENTS: Mapping[str, Callable[[Mapping[str, Any]], RunEvent]] = {
    "text.delta": lambda it: TextDelta(it["text"]),
    "text.retracted": lambda it: TextRetracted(it["characters"]),
    "reasoning.delta": lambda it: ReasoningDelta(it["text"]),
    "reasoning.retracted": lambda it: ReasoningRetracted(it["characters"]),
    "tool.started": lambda it: ToolStarted(_to_call(it)),
    "tool.ended": lambda it: ToolEnded(ToolCall(it["id"], "", ""), it["summary"], failed=not it["ok"]),
    "tool.requested": lambda it: ToolCallRequested(it["index"], _to_call(it)),
}


def _end_of(record: RunRecord) -> RunEnded:
    if record.state is RunState.OK:
        return RunEnded(StopReason(record.stop_reason or StopReason.STOP), record.usage)
    return RunEnded(usage=record.usage, error=failure_of(record))
