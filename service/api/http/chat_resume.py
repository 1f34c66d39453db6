"""The rest of a chat completion's stream, from the numbered events of its run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import orjson

from service.agent.request import REASONING, TOOLS
from service.api.http.chat_chunks import DONE, ChunkEncoder
from service.core.disconnect import ProbedConnection, watch_disconnect
from service.core.errors import GatewayError
from service.core.messages import ToolCall, Usage
from service.gateway.event_feeds import Watch
from service.storage.runs.events import LoggedEvent

_COMMENT = b": still working\n\n"


class ResumedChunks:
    """The body of a stream with the chunks behind number `after` of a run that `watch` shows from its first event on.

    It ends with the run, or without `[DONE]` if the gateway stops. `shows` are the kinds of events that the caller
    asks for beside the text.
    """

    def __init__(
        self,
        watch: Watch,
        encoder: ChunkEncoder,
        after: int,
        shows: Collection[str],
        connection: ProbedConnection | None,
    ) -> None:
        self._watch = watch
        self._encoder = encoder
        self._after = after
        self._shows = shows
        self._connection = connection
        self._calls: dict[str, ToolCall] = {}  # of the agent's own tools
        self._usage = Usage()
        self._is_over = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the role, then chunks as they come, and a comment line after each quiet time."""
        yield self._encoder.opening()
        with watch_disconnect(self._connection, self._watch.close):
            for batch in self._watch:
                chunks = b"".join(map(self._encode, batch))
                if chunks or not batch:
                    yield chunks or _COMMENT
                if self._is_over:
                    return

    def close(self) -> None:
        """Stop watching; called by the server."""
        self._watch.close()

    def _encode(self, event: LoggedEvent) -> bytes:
        if self._is_over:
            return b""
        members = orjson.loads(event.data)
        self._note(event.kind, members)
        if event.kind == "run.ended":
            return self._end(event.number, members)
        if event.number <= self._after:
            return b""
        if event.kind in ("text.retracted", "reasoning.retracted"):
            return self._retract(event.kind)
        return self._encode_new(event, members)

    def _note(self, kind: str, members: dict[str, Any]) -> None:
        if kind == "tool.started":
            self._calls[members["id"]] = ToolCall(members["id"], members["name"], members["arguments"])
        elif kind == "usage":
            counts = members["input_tokens"], members["output_tokens"], members["cached_tokens"]
            self._usage = Usage(*counts, members.get("reasoning_tokens"))

    def _encode_new(self, event: LoggedEvent, members: dict[str, Any]) -> bytes:
        number, encoder = event.number, self._encoder
        if event.kind in ("text.delta", "reasoning.delta"):
            text = members["text"][-(number - self._after) :]
            if event.kind == "text.delta":
                return encoder.text(text, number)
            return encoder.reasoning(text, number) if REASONING in self._shows else b""
        if event.kind == "tool.requested":
            return encoder.call(
                members["index"], ToolCall(members["id"], members["name"], members["arguments"]), number
            )
        if TOOLS in self._shows and event.kind == "tool.started":
            return encoder.tool_start(self._calls[members["id"]], number)
        if TOOLS in self._shows and event.kind == "tool.ended":
            call = self._calls.get(members["id"]) or ToolCall(members["id"], "", "{}")
            return encoder.tool_end(call, members["duration_ms"], number, ok=members["ok"])
        return b""

    def _retract(self, kind: str) -> bytes:
        """End the stream if it has shown what is void now, or the client may have it."""
        if kind == "reasoning.retracted" and REASONING not in self._shows:
            return b""
        self._is_over = True
        text = "The model failed and is retried: the output so far is invalid. Read the stream from its start."
        return self._encoder.failure(GatewayError("provider_error", text).to_envelope()["error"])

    def _end(self, number: int, members: dict[str, Any]) -> bytes:
        self._is_over = True
        if members["error"] is not None:
            return self._encoder.failure(members["error"])
        if number <= self._after:
            return DONE
        return self._encoder.end(members["finish_reason"], self._usage, number)
