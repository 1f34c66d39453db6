"""Broadcast the events of every run to the connected operators, as `agent` and `chat` events.

Text is batched and sent a few times a second: each event repeats the whole text, so longer texts are sent less often,
and very long ones are not repeated. Nothing is built without listeners, and nothing blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.agent.events import RunEnded, RunEvent, RunStarted, TextDelta, TextRetracted, ToolEnded, ToolStarted
from service.agent.run import Run
from service.api.websocket.client import TOOL_EVENTS, ConnectedClient
from service.api.websocket.hub import Hub
from service.api.websocket.payloads import parse_arguments, to_chat_message, to_usage
from service.api.websocket.run_result import ABORTED
from service.core.concurrency import sleep, spawn
from service.storage.runs.records import RunState
from service.storage.sessions.keys import shown_run_id

#: Minimum batching interval, and its extension per listener and per repeated character. Sending to one listener takes
#: 0.1 ms, so broadcasts use only a small share of the CPU.
_GATHER_SECONDS = 0.05
_SECONDS_A_LISTENER = 0.001
_CHARACTERS_A_SECOND = 1_000_000

#: Longer texts are not repeated with each piece.
_REPEATED_CHARACTERS = 256 * 1024

_TOOL_TEXT_CHARACTERS = 100_000


@dataclass(slots=True)
class BroadcastState:
    """Broadcast state of one run: `text` is sent, `pieces` are not; `seq` numbers the run's events."""

    text: str = ""
    pieces: list[str] = field(default_factory=list)
    seq: int = 0
    next_at: float = 0.0
    waits: bool = False


class Broadcaster:
    """An observer of runs. `clock` gives seconds since 1970."""

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock
        self._progress: dict[str, BroadcastState] = {}

    def __call__(self, run: Run, event: RunStarted | RunEvent) -> None:
        """Broadcast an event. The first broadcast of a run includes all its earlier text."""
        if not self._hub.clients:
            self._progress.pop(run.id, None)
            return
        progress = self._progress.get(run.id)
        if progress is None:
            progress = self._progress[run.id] = BroadcastState()
            before = run.text  # from before the first listener; may include `event`
            progress.pieces.append(before.removesuffix(event.text) if isinstance(event, TextDelta) else before)
        if isinstance(event, TextDelta):
            progress.pieces.append(event.text)
            self._gather(run, progress)
            return
        if isinstance(event, TextRetracted):  # the next event repeats the remaining text
            progress.pieces.clear()
            progress.text = run.text
            return
        self._flush(run, progress)
        self._send_event(run, progress, event)
        if isinstance(event, RunEnded):
            del self._progress[run.id]

    def _gather(self, run: Run, progress: BroadcastState) -> None:
        wait = progress.next_at - self._clock()
        if not progress.waits and wait <= 0:
            self._flush(run, progress)
        elif not progress.waits:
            progress.waits = True
            spawn(self._flush_later, run, progress, min(wait, 60.0))

    def _flush_later(self, run: Run, progress: BroadcastState, seconds: float) -> None:
        sleep(seconds)
        progress.waits = False
        if run.end is None:
            self._flush(run, progress)

    def _flush(self, run: Run, progress: BroadcastState) -> None:
        delta = "".join(progress.pieces)
        if not delta:
            return
        progress.pieces.clear()
        progress.text += delta
        repeated = min(len(progress.text), _REPEATED_CHARACTERS) / _CHARACTERS_A_SECOND
        progress.next_at = self._clock() + _GATHER_SECONDS + len(self._hub) * _SECONDS_A_LISTENER + repeated
        agent: dict[str, Any] = {"delta": delta}
        chat: dict[str, Any] = {"state": "delta", "deltaText": delta}
        if len(progress.text) <= _REPEATED_CHARACTERS:
            agent["text"], chat["message"] = progress.text, self._message(progress.text)
        self._send_agent(run, progress, "assistant", agent)
        self._send_chat(run, progress, chat)

    def _send_event(self, run: Run, progress: BroadcastState, event: RunStarted | RunEvent) -> None:
        if isinstance(event, RunStarted):
            self._send_agent(run, progress, "lifecycle", {"phase": "start", "startedAt": run.accepted.accepted_at_ms})
            self._send_session_of(run, "run-started")
        elif isinstance(event, ToolStarted):
            call = event.call
            data = {"phase": "start", "name": call.name, "toolCallId": call.id}
            self._send_tool(run, progress, {**data, "args": parse_arguments(call.arguments)})
        elif isinstance(event, ToolEnded):
            data = {"phase": "result", "name": event.call.name, "toolCallId": event.call.id}
            result = {"content": [{"type": "text", "text": event.text[:_TOOL_TEXT_CHARACTERS]}]}
            self._send_tool(run, progress, {**data, "isError": event.failed, "result": result})
        elif isinstance(event, RunEnded):
            self._end(run, progress, event)

    def _end(self, run: Run, progress: BroadcastState, end: RunEnded) -> None:
        data: dict[str, Any] = {"phase": "end", "endedAt": int(self._clock() * 1000)}
        chat: dict[str, Any] = {"state": "final", "stopReason": str(end.stop_reason), "usage": to_usage(end.usage)}
        if end.state is RunState.ABORTED:
            data |= {"aborted": True, "stopReason": ABORTED}
            chat = {"state": "aborted", "stopReason": ABORTED}
        elif end.error is not None:
            data |= {"phase": "error", "error": end.error.message}
            chat = {"state": "error", "errorMessage": end.error.message}
        if progress.text:
            chat["message"] = self._message(progress.text)
        self._send_agent(run, progress, "lifecycle", data)
        self._send_chat(run, progress, chat)
        self._send_session_of(run, "run-ended")

    def _message(self, text: str) -> dict[str, Any]:
        return to_chat_message(text, int(self._clock() * 1000))

    def _send_agent(self, run: Run, progress: BroadcastState, stream: str, data: dict[str, Any]) -> None:
        _send("agent", self._agent_event(run, progress, stream, data), self._readers(run.session_key))

    def _send_tool(self, run: Run, progress: BroadcastState, data: dict[str, Any]) -> None:
        wanting = (client for client in self._readers(run.session_key) if TOOL_EVENTS in client.caps)
        _send("agent", self._agent_event(run, progress, "tool", data), wanting)

    def _agent_event(self, run: Run, progress: BroadcastState, stream: str, data: dict[str, Any]) -> dict[str, Any]:
        progress.seq += 1
        about = {"runId": run.id, "sessionKey": run.session_key, "agentId": run.agent_id, "stream": stream}
        return {**about, "data": data, "seq": progress.seq, "ts": int(self._clock() * 1000)}

    def _send_chat(self, run: Run, progress: BroadcastState, data: dict[str, Any]) -> None:
        about = {"runId": run.id, "sessionKey": run.session_key, "agentId": run.agent_id, "seq": progress.seq}
        _send("chat", {**about, **data}, self._readers(run.session_key))

    def _send_session_of(self, run: Run, reason: str) -> None:
        self.send_session(run.session_key, run.agent_id, reason)

    def send_session(self, session_key: str, agent_id: str, reason: str) -> None:
        """Send `sessions.changed` to the clients that subscribed to sessions."""
        payload = {"sessionKey": session_key, "agentId": agent_id, "reason": reason, "ts": int(self._clock() * 1000)}
        readers = self._readers(session_key)
        _send("sessions.changed", payload, (client for client in readers if client.follows_sessions))

    def send_injected(self, run_id: str, session_key: str, agent_id: str, message: dict[str, Any]) -> None:
        """Broadcast a message that was put into a session without a run."""
        about = {"runId": run_id, "sessionKey": session_key, "agentId": agent_id, "seq": 0}
        _send("chat", {**about, "state": "final", "message": message}, self._readers(session_key))
        self.send_session(session_key, agent_id, "message-injected")

    def _readers(self, session_key: str) -> Iterable[ConnectedClient]:
        return (client for client in self._hub if client.may_see(session_key))


def _send(event: str, payload: dict[str, Any], clients: Iterable[ConnectedClient]) -> None:
    encoded: dict[str | None, bytes] = {}
    for client in clients:
        owner = client.principal.owner
        if owner not in encoded:
            run_id = payload.get("runId")
            seen = payload if owner is None or run_id is None else {**payload, "runId": shown_run_id(run_id, owner)}
            encoded[owner] = orjson.dumps(seen)
        client.send_event(event, encoded[owner])
