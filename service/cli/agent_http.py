"""The way to an agent through a running gateway's OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from types import FrameType
from typing import Any
from urllib.parse import unquote

from service.cli.address import Address
from service.cli.agent_doors import AgentDone, AgentEvent, AgentFailure, AgentRequest, TextSaid, timed_out
from service.cli.http_client import Unreachable, bearer, decode, error_message, exchange
from service.errors import GatewayError
from service.providers.sse import SSEDecoder
from service.sessions.keys import SESSION_KEY_HEADER, encode_session_key

_BLOCK_BYTES = 64 * 1024
_MAX_ERROR_BYTES = 1024 * 1024
_CONNECT_SECONDS = 10.0
_OK = 200


class HttpDoor:
    """Asks `POST /v1/chat/completions`; hanging up stops the run."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def run(self, request: AgentRequest) -> Iterator[AgentEvent]:
        """See `AgentDoor.run`."""
        body = {
            "model": "openclaw" if request.agent_id is None else f"openclaw/{request.agent_id}",
            "messages": [{"role": "user", "content": request.message}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {SESSION_KEY_HEADER: encode_session_key(request.session_key), **bearer(self._address.secret)}
        if request.model is not None:
            headers["x-openclaw-model"] = request.model
        url = f"{self._address.url}/v1/chat/completions"
        try:
            with (
                _time_limit(request.timeout_seconds),
                exchange(url, body=body, headers=headers, connect_seconds=_CONNECT_SECONDS) as response,
            ):
                if response.status != _OK:
                    raise AgentFailure(error_message(decode(response.read(_MAX_ERROR_BYTES))))
                yield from _read(response)
        except Unreachable as error:
            hint = "Is the gateway running? `openclaw gateway` starts one, --local does without."
            raise AgentFailure(f"{error.message} {hint}") from None


def _read(response: HTTPResponse) -> Iterator[AgentEvent]:
    session_key = unquote(response.getheader(SESSION_KEY_HEADER, ""))
    run_id = ""
    usage: dict[str, Any] = {}
    for data in _data_of(response):
        if data == b"[DONE]":
            counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
            yield AgentDone(run_id, session_key, *counts)
            return
        chunk: Any = json.loads(data)
        if "error" in chunk:
            raise AgentFailure(error_message(chunk))
        run_id, usage = chunk["id"], chunk.get("usage") or usage
        for choice in chunk["choices"]:
            if text := choice["delta"].get("content"):
                yield TextSaid(text)
    raise AgentFailure("The gateway ended the answer before it was complete.")


def _data_of(response: HTTPResponse) -> Iterator[bytes]:
    decoder = SSEDecoder()
    try:
        while block := response.read1(_BLOCK_BYTES):
            yield from decoder.feed(block)
    except GatewayError as error:
        raise AgentFailure(error.message) from None


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Bound the whole of a block, whatever it waits for, in the process's main thread: raises `AgentFailure`."""
    if seconds is None:
        yield
        return

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        raise timed_out(seconds)

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
