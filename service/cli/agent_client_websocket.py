"""The way to an agent through a running gateway: OpenClaw's protocol on its WebSocket."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from websockets.exceptions import WebSocketException

from service.cli.agent_client import (
    AgentDone,
    AgentEvent,
    AgentFailure,
    AgentInvocation,
    TextSaid,
    ToolUsed,
    timed_out,
)
from service.cli.gateway_address import Address
from service.cli.gateway_connection import OperatorConnection, UnreachableError, open_operator, payload_of
from service.core.ids import new_uuid

#: How long the gateway may take to end a run that is not wanted any more.
_ABORT_SECONDS = 5.0


#: For how long after a Ctrl-C others are taken for the same: long enough to have the run aborted.
_INTERRUPT_SECONDS = 2.0


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Have signals that follow the first within `_INTERRUPT_SECONDS` not keep the run from being aborted."""
    ends_at = -math.inf

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal ends_at
        if time.monotonic() > ends_at:
            ends_at = time.monotonic() + _INTERRUPT_SECONDS
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if ends_at == -math.inf:  # else this process ends now, with the status of the first
            signal.signal(signal.SIGINT, before)


class WebSocketAgentClient:
    """Asks with the method `agent`; a run that is left before its end is aborted."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def run(self, request: AgentInvocation) -> Iterator[AgentEvent]:
        """See `AgentClient.run`."""
        seconds, run_id = request.timeout_seconds, new_uuid()
        asked = False
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            with _one_interrupt(), open_operator(self._address, deadline) as connection:
                asked = True
                yield from _Following(connection, request, run_id).follow()
        except TimeoutError:
            raise timed_out(seconds) from None
        except UnreachableError as error:
            hint = f"{self._address.start_hint} --local does without."
            if asked:
                hint = f"The run {run_id} may go on without it; its session has what becomes of it."
            raise AgentFailure(f"{error.message} {hint}") from None
        except click.ClickException as error:
            raise AgentFailure(error.message) from None


class _Following:
    """One run from its beginning to its end; `said` is how much of it has been told."""

    def __init__(self, connection: OperatorConnection, request: AgentInvocation, run_id: str) -> None:
        self._connection = connection
        self._request = request
        self._run_id = run_id
        self._said = ""

    def follow(self) -> Iterator[AgentEvent]:
        """What is said as it is said, and the end; leaving earlier aborts the run."""
        over = False
        try:
            request_id = self._connection.send("agent", self._to_params())
            while not over:
                frame = self._connection.receive()
                if frame.get("type") == "event":
                    yield from self._tell(frame)
                elif frame.get("id") == request_id:
                    over = not (frame.get("ok") and frame["payload"].get("status") == "accepted")
            yield from self._end(payload_of(frame))
        finally:
            if not over:
                self._abort()

    def _to_params(self) -> dict[str, Any]:
        request = self._request
        seconds = request.timeout_seconds
        params = {
            **self._to_session(),
            "message": request.message,
            "idempotencyKey": self._run_id,
            "model": request.model,
            "timeout": None if seconds is None else math.ceil(seconds),  # should this process not live to abort it
        }
        return {name: value for name, value in params.items() if value is not None}

    def _to_session(self) -> dict[str, str]:
        session = {"sessionKey": self._request.session_key}
        return session if self._request.agent_id is None else {**session, "agentId": self._request.agent_id}

    def _tell(self, frame: dict[str, Any]) -> Iterator[AgentEvent]:
        payload = frame.get("payload")
        if frame.get("event") != "agent" or not isinstance(payload, dict) or payload.get("runId") != self._run_id:
            return  # operators are told of everybody's runs
        data = payload["data"]
        if payload["stream"] == "assistant" and data.get("delta"):
            self._said += data["delta"]
            yield TextSaid(data["delta"])
        elif payload["stream"] == "tool" and data.get("phase") == "start":
            yield ToolUsed(data["name"])

    def _end(self, payload: dict[str, Any]) -> Iterator[AgentEvent]:
        if payload.get("status") != "ok":
            raise AgentFailure("The run was aborted before its end.")
        text = "\n\n".join(one.get("text") or "" for one in payload["result"]["payloads"])
        if text.startswith(self._said) and text != self._said:
            yield TextSaid(text[len(self._said) :])
        yield AgentDone(text, payload)

    def _abort(self) -> None:
        # Nothing can be done about a gateway that is gone or does not listen; why the run is left is told already.
        with suppress(OSError, WebSocketException, click.ClickException):
            self._connection.deadline = time.monotonic() + _ABORT_SECONDS
            request = {**self._to_session(), "runId": self._run_id}
            self._connection.wait_for(self._connection.send("chat.abort", request))
