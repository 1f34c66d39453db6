"""Broadcast the runs of other gateways to the listeners of this one.

Their records have their begin and end. What happens in between comes from their stored events, which the executing
gateway stores because they are watched; of a run that ends before that, the transcript has the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import orjson

from service.agent.events import RunEvent, RunStarted, TextDelta, TextRetracted, ToolEnded, ToolStarted
from service.agent.run import Run
from service.api.websocket.broadcaster import Broadcaster
from service.api.websocket.hub import Hub
from service.core.concurrency import spawn
from service.core.errors import GatewayError
from service.core.messages import ToolCall
from service.gateway.gateway import Gateway
from service.storage.database.errors import StoreError
from service.storage.runs.events import LoggedEvent
from service.storage.runs.peer_runs import get_runs, list_active_peer_runs, list_peer_runs
from service.storage.runs.records import AcceptedRun, RunRecord, RunState

logger = logging.getLogger("openclaw.websocket")

#: A run may be recorded so much later than it was accepted.
_OVERLAP_MS = 60_000
_QUIET_SECONDS = 1.0


class PeerRunFeed:
    """Broadcasts the runs of other gateways through `broadcaster` while `hub` has connections."""

    def __init__(self, gateway: Gateway, hub: Hub, broadcaster: Broadcaster, clock: Callable[[], float]) -> None:
        self._gateway = gateway
        self._hub = hub
        self._broadcaster = broadcaster
        self._clock = clock
        self._listens = False
        self._idle_at_ms = int(clock() * 1000)  # when nobody listened to runs
        self._seen: dict[str, int] = {}  # when the runs that were seen were accepted
        self._active: dict[str, Run | None] = {}  # those that wait for their end, and `None` for their beginning

    def refresh(self) -> None:
        """Look at what other gateways have done since the last call. Raises `StoreError`."""
        storage = self._gateway.storage
        now_ms = int(self._clock() * 1000)
        if not len(self._hub) or not (storage.membership.has_peers or self._active):
            self._listens, self._idle_at_ms = False, now_ms
            self._seen.clear()
            self._active.clear()
            return
        since_ms = now_ms - _OVERLAP_MS
        found = list_peer_runs(storage.database, storage.membership.id, since_ms)
        if not self._listens:
            self._listens = True
            found += list_active_peer_runs(storage.database, storage.membership.id)
        for record in reversed(found):
            if record.id not in self._seen:
                self._seen[record.id] = record.accepted_at_ms
                if record.ended_at_ms is None or record.ended_at_ms >= self._idle_at_ms:
                    self._active[record.id] = None
        for record in get_runs(storage.database, self._active):
            self._advance(record)
        self._seen = {one: at for one, at in self._seen.items() if at >= since_ms - _OVERLAP_MS}

    def _advance(self, record: RunRecord) -> None:
        """Broadcast the beginning and the end of a run, if they are new."""
        run = self._active[record.id]
        if run is None and record.state is not RunState.QUEUED:
            run = self._active[record.id] = _to_run(record)
            self._broadcast(run, RunStarted())
            if not record.state.is_final or record.detached:
                del self._active[record.id]
                spawn(self._follow, run)
                return
        if run is not None and record.state.is_final:
            del self._active[record.id]
            spawn(self._broadcast_end, run)

    def _follow(self, run: Run) -> None:
        """Broadcast the text and the tools of a run as they come, then its end."""
        calls: dict[str, ToolCall] = {}
        try:
            watch = self._gateway.event_feeds.watch(run.id, 0, _QUIET_SECONDS)
            try:
                for batch in watch:
                    for event in batch:
                        for translated in _translate(event, calls):
                            run.append(translated)
                            self._broadcast(run, translated)
                    if not len(self._hub):
                        return
            finally:
                watch.close()
        except StoreError as error:
            logger.warning("run %s of another gateway can no longer be followed: %s", run.id, error)
        except GatewayError:
            pass  # it ended before its events were stored
        self._broadcast_end(run)

    def _broadcast_end(self, run: Run) -> None:
        """Broadcast what is missing of a run that has ended: its text and tools, unless they were, and its end."""
        try:
            replay = self._gateway.find(run.id)
        except StoreError as error:
            logger.warning("the end of run %s of another gateway could not be read: %s", run.id, error)
            return
        if replay is None or replay is run:
            return
        replay.wait_for_end(None)
        has_text, known = bool(run.text), {_tool_of(event) for event in run.log}
        for event in replay.log:
            tool = _tool_of(event)
            if not (has_text and isinstance(event, TextDelta)) and (tool is None or tool not in known):
                run.append(event)
                self._broadcast(run, event)

    def _broadcast(self, run: Run, event: RunStarted | RunEvent) -> None:
        try:
            self._broadcaster(run, event)
        except Exception:
            # The poll that looks for runs of others must go on.
            logger.exception("run %s of another gateway could not be broadcast", run.id)


def _to_run(record: RunRecord) -> Run:
    accepted = AcceptedRun(
        record.id, record.session_key, record.agent_id, record.protocol, record.accepted_at_ms, stateless=False
    )
    run = Run(accepted, is_replay=True)
    run.begin()
    return run


def _tool_of(event: RunEvent) -> tuple[type[RunEvent], str] | None:
    """Return the identity of the beginning or the end of a tool, `None` for other events."""
    return (type(event), event.call.id) if isinstance(event, ToolStarted | ToolEnded) else None


def _translate(event: LoggedEvent, calls: dict[str, ToolCall]) -> Iterator[RunEvent]:
    members = orjson.loads(event.data)
    match event.kind:
        case "text.delta":
            yield TextDelta(members["text"])
        case "text.retracted":
            yield TextRetracted(members["characters"])
        case "tool.started":
            call = calls[members["id"]] = ToolCall(members["id"], members["name"], members["arguments"])
            yield ToolStarted(call)
        case "tool.ended" if members["id"] in calls:
            yield ToolEnded(calls[members["id"]], members["summary"], not members["ok"], members["duration_ms"])
