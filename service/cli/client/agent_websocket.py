"""Agent client for a running gateway: OpenClaw's protocol over WebSocket."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from websockets.exceptions import WebSocketException

from service.cli.client.address import GatewayAddress
from service.cli.client.agent import (
    AgentEvent,
    AgentFailure,
    AgentInvocation,
    AgentResult,
    TextOutput,
    ToolCallStarted,
    timed_out,
)
from service.cli.client.connection import (
    OperatorConnection,
    RefusedRequestError,
    UnreachableError,
    open_operator,
    payload_of,
)
from service.core.ids import new_uuid

#: How long to wait for the gateway to abort a run.
_ABORT_SECONDS = 5.0

#: Further Ctrl-C are ignored for this long: enough time to abort the run.
_INTERRUPT_SECONDS = 2.0


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Ignore further interrupts for `_INTERRUPT_SECONDS`, so that the run can be aborted."""
    ends_at = -math.inf

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal ends_at
        if time.monotonic() > ends_at:
            ends_at = time.monotonic() + _INTERRUPT_SECONDS
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # unless it is ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if ends_at == -math.inf:  # otherwise the process exits with the status of the first
            signal.signal(signal.SIGINT, before)


class WebSocketAgentClient:
    """Calls the method `agent`; a run that is left before its end is aborted."""

    def __init__(self, address: GatewayAddress) -> None:
        self._address = address

    def run(self, request: AgentInvocation) -> Iterator[AgentEvent]:
        """See `AgentClient.run`."""
        seconds, run_id = request.timeout_seconds, new_uuid()
        asked = False
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            with _one_interrupt(), open_operator(self._address, deadline) as connection:
                asked = True
                yield from _RunFollower(connection, request, run_id).follow()
        except TimeoutError:
            raise timed_out(seconds) from None
        except UnreachableError as error:
            hint = f"{self._address.start_hint} Or use --local, which needs no gateway."
            if asked:
                hint = f"The run {run_id} may continue; its result will be in the session."
            raise AgentFailure(f"{error.message} {hint}", error.code) from None
        except RefusedRequestError as error:
            raise AgentFailure(error.message, error.code) from None
        except click.ClickException as error:
            raise AgentFailure(error.message) from None

    def close(self) -> None:
        """Do nothing: each run has a connection of its own."""


class _RunFollower:
    """Follows one run to its end."""

    def __init__(self, connection: OperatorConnection, request: AgentInvocation, run_id: str) -> None:
        self._connection = connection
        self._request = request
        self._run_id = run_id
        self._text = ""

    def follow(self) -> Iterator[AgentEvent]:
        """Iterate over the output and the result; leaving earlier aborts the run."""
        over = False
        try:
            request_id = self._connection.send("agent", self._to_params())
            while not over:
                frame = self._connection.receive()
                if frame.get("type") == "event":
                    yield from self._to_events(frame)
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
            "jsonSchema": request.json_schema,
            "timeout": None
            if seconds is None
            else math.ceil(seconds),  # in case this process dies before it can abort the run
        }
        return {name: value for name, value in params.items() if value is not None}

    def _to_session(self) -> dict[str, str]:
        session = {"sessionKey": self._request.session_key}
        return session if self._request.agent_id is None else {**session, "agentId": self._request.agent_id}

    def _to_events(self, frame: dict[str, Any]) -> Iterator[AgentEvent]:
        payload = frame.get("payload")
        if frame.get("event") != "agent" or not isinstance(payload, dict) or payload.get("runId") != self._run_id:
            return  # operators receive the events of all runs
        data = payload["data"]
        if payload["stream"] == "assistant" and data.get("delta"):
            self._text += data["delta"]
            yield TextOutput(data["delta"])
        elif payload["stream"] == "tool" and data.get("phase") == "start":
            yield ToolCallStarted(data["name"])

    def _end(self, payload: dict[str, Any]) -> Iterator[AgentEvent]:
        if payload.get("status") != "ok":
            raise AgentFailure("The run was aborted before its end.")
        text = "\n\n".join(one.get("text") or "" for one in payload["result"]["payloads"])
        if text.startswith(self._text) and text != self._text:
            yield TextOutput(text[len(self._text) :])
        yield AgentResult(text, payload)

    def _abort(self) -> None:
        # Nothing can be done about a gateway that is gone or does not respond; the error is reported already.
        with suppress(OSError, WebSocketException, click.ClickException):
            self._connection.deadline = time.monotonic() + _ABORT_SECONDS
            request = {**self._to_session(), "runId": self._run_id}
            self._connection.wait_for(self._connection.send("chat.abort", request))
