"""What every run says, whatever its door, told to the operators who are connected: `agent` and `chat` events.

Text is told some times a second, not piece by piece: each event repeats all of it, so the longer, the more seldom;
very long texts are not repeated.
Nothing is done while nobody listens, and nothing here waits.
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

#: How long pieces of text are gathered at least; what each listener, and the repeated text, adds to it. Telling one
#: listener takes a tenth of a millisecond: so it never takes more than a small part of the processor.
_GATHER_SECONDS = 0.05
_SECONDS_A_LISTENER = 0.001
_CHARACTERS_A_SECOND = 1_000_000

#: Longer texts are not repeated with each piece.
_REPEATED_CHARACTERS = 256 * 1024

_TOOL_TEXT_CHARACTERS = 100_000


@dataclass(slots=True)
class RunProgress:
    """How far a run has been told: `text` is told, `pieces` are not; `seq` numbers the run's events."""

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
        self._told: dict[str, RunProgress] = {}

    def __call__(self, run: Run, event: RunStarted | RunEvent) -> None:
        """Tell what happened. The first time somebody listens to a run, all it has said is told at once."""
        if not len(self._hub):
            self._told.pop(run.id, None)
            return
        told = self._told.get(run.id)
        if told is None:
            told = self._told[run.id] = RunProgress()
            before = run.text  # said before anybody listened; `event` may be part of it
            told.pieces.append(before.removesuffix(event.text) if isinstance(event, TextDelta) else before)
        if isinstance(event, TextDelta):
            told.pieces.append(event.text)
            self._gather(run, told)
            return
        if isinstance(event, TextRetracted):  # the next text that is told says all that holds
            told.pieces.clear()
            told.text = run.text
            return
        self._flush(run, told)
        self._tell(run, told, event)
        if isinstance(event, RunEnded):
            del self._told[run.id]

    def _gather(self, run: Run, told: RunProgress) -> None:
        wait = told.next_at - self._clock()
        if not told.waits and wait <= 0:
            self._flush(run, told)
        elif not told.waits:
            told.waits = True
            spawn(self._flush_later, run, told, min(wait, 60.0))

    def _flush_later(self, run: Run, told: RunProgress, seconds: float) -> None:
        sleep(seconds)
        told.waits = False
        if run.end is None:
            self._flush(run, told)

    def _flush(self, run: Run, told: RunProgress) -> None:
        delta = "".join(told.pieces)
        if not delta:
            return
        told.pieces.clear()
        told.text += delta
        repeated = min(len(told.text), _REPEATED_CHARACTERS) / _CHARACTERS_A_SECOND
        told.next_at = self._clock() + _GATHER_SECONDS + len(self._hub) * _SECONDS_A_LISTENER + repeated
        agent: dict[str, Any] = {"delta": delta}
        chat: dict[str, Any] = {"state": "delta", "deltaText": delta}
        if len(told.text) <= _REPEATED_CHARACTERS:
            agent["text"], chat["message"] = told.text, self._message(told.text)
        self._send_agent(run, told, "assistant", agent)
        self._send_chat(run, told, chat)

    def _tell(self, run: Run, told: RunProgress, event: RunStarted | RunEvent) -> None:
        if isinstance(event, RunStarted):
            self._send_agent(run, told, "lifecycle", {"phase": "start", "startedAt": run.accepted.accepted_at_ms})
            self._send_session(run, "run-started")
        elif isinstance(event, ToolStarted):
            call = event.call
            data = {"phase": "start", "name": call.name, "toolCallId": call.id}
            self._send_tool(run, told, {**data, "args": parse_arguments(call.arguments)})
        elif isinstance(event, ToolEnded):
            data = {"phase": "result", "name": event.call.name, "toolCallId": event.call.id}
            result = {"content": [{"type": "text", "text": event.text[:_TOOL_TEXT_CHARACTERS]}]}
            self._send_tool(run, told, {**data, "isError": event.failed, "result": result})
        elif isinstance(event, RunEnded):
            self._end(run, told, event)

    def _end(self, run: Run, told: RunProgress, end: RunEnded) -> None:
        data: dict[str, Any] = {"phase": "end", "endedAt": int(self._clock() * 1000)}
        chat: dict[str, Any] = {"state": "final", "stopReason": str(end.stop_reason), "usage": to_usage(end.usage)}
        if end.state is RunState.ABORTED:
            data |= {"aborted": True, "stopReason": ABORTED}
            chat = {"state": "aborted", "stopReason": ABORTED}
        elif end.error is not None:
            data |= {"phase": "error", "error": end.error.message}
            chat = {"state": "error", "errorMessage": end.error.message}
        if told.text:
            chat["message"] = self._message(told.text)
        self._send_agent(run, told, "lifecycle", data)
        self._send_chat(run, told, chat)
        self._send_session(run, "run-ended")

    def _message(self, text: str) -> dict[str, Any]:
        return to_chat_message(text, int(self._clock() * 1000))

    def _send_agent(self, run: Run, told: RunProgress, stream: str, data: dict[str, Any]) -> None:
        _send("agent", self._agent_event(run, told, stream, data), self._readers())

    def _send_tool(self, run: Run, told: RunProgress, data: dict[str, Any]) -> None:
        wanting = (peer for peer in self._readers() if TOOL_EVENTS in peer.caps)
        _send("agent", self._agent_event(run, told, "tool", data), wanting)

    def _agent_event(self, run: Run, told: RunProgress, stream: str, data: dict[str, Any]) -> dict[str, Any]:
        told.seq += 1
        about = {"runId": run.id, "sessionKey": run.session_key, "agentId": run.agent_id, "stream": stream}
        return {**about, "data": data, "seq": told.seq, "ts": int(self._clock() * 1000)}

    def _send_chat(self, run: Run, told: RunProgress, data: dict[str, Any]) -> None:
        about = {"runId": run.id, "sessionKey": run.session_key, "agentId": run.agent_id, "seq": told.seq}
        _send("chat", {**about, **data}, self._readers())

    def _send_session(self, run: Run, reason: str) -> None:
        self.tell_session(run.session_key, run.agent_id, reason)

    def tell_session(self, session_key: str, agent_id: str, reason: str) -> None:
        """Tell those who follow the list of sessions that one of them changed."""
        payload = {"sessionKey": session_key, "agentId": agent_id, "reason": reason, "ts": int(self._clock() * 1000)}
        _send("sessions.changed", payload, (peer for peer in self._readers() if peer.follows_sessions))

    def tell_injected(self, run_id: str, session_key: str, agent_id: str, message: dict[str, Any]) -> None:
        """Tell of a message that was put into a session without a run."""
        about = {"runId": run_id, "sessionKey": session_key, "agentId": agent_id, "seq": 0}
        _send("chat", {**about, "state": "final", "message": message}, self._readers())
        self.tell_session(session_key, agent_id, "message-injected")

    def _readers(self) -> Iterable[ConnectedClient]:
        return (peer for peer in self._hub if peer.may_read)


def _send(event: str, payload: dict[str, Any], peers: Iterable[ConnectedClient]) -> None:
    encoded = b""
    for peer in peers:
        encoded = encoded or orjson.dumps(payload)
        peer.tell(event, encoded)
