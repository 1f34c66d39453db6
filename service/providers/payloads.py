"""The text of a streamed answer, each piece waited for no longer than the provider's time-out.

A sign of life that says nothing (a comment, a ping) keeps the connection, but does not put the time-out off: it bounds
the wait for the first word and between words. What arrived together is told together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from service.errors import GatewayError
from service.providers.sse import SSEDecoder
from service.providers.transport import UpstreamResponse

_TAIL_SECONDS = 0.05


class Answer(Protocol):
    """What reads a dialect's events."""

    #: The provider said that nothing follows.
    is_over: bool

    def read(self, payload: bytes) -> str:
        """Take in one event and return its text, perhaps empty. Raises `GatewayError`."""
        ...

    def is_complete(self) -> bool:
        """Whether nothing is missing any more that has to be known."""
        ...


def read_texts(
    response: UpstreamResponse,
    answer: Answer,
    *,
    timeout_seconds: float,
    is_keep_alive: Callable[[bytes], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[str]:
    """Let `answer` read every event of `response` and yield the texts it finds, until it is over or the body ends.

    Raises what `answer` raises, after what was said before, and `GatewayError`: `provider_timeout` after about
    `timeout_seconds` (twice that at most) without an event that says something, `provider_error` for a dropped
    connection or an event too large. A connection that breaks once `answer` is complete is an end like any other.
    """
    decoder = SSEDecoder()
    waiting_since = clock()
    while chunk := _read_some(response, answer):
        payloads = decoder.feed(chunk)
        if is_keep_alive is not None:
            payloads = [payload for payload in payloads if not is_keep_alive(payload)]
        if payloads:
            yield from _read_together(answer, payloads)
            waiting_since = clock()
        elif clock() - waiting_since > timeout_seconds:
            message = f"The model provider kept the connection open but said nothing for {timeout_seconds:g} seconds."
            raise GatewayError("provider_timeout", message)
        if answer.is_over:
            response.finish(_TAIL_SECONDS)
            return


def _read_together(answer: Answer, payloads: list[bytes]) -> Iterator[str]:
    texts: list[str] = []
    failure: GatewayError | None = None
    for payload in payloads:
        try:
            texts.append(answer.read(payload))
        except GatewayError as error:
            failure = error
            break
        if answer.is_over:
            break
    if text := "".join(texts):
        yield text
    if failure is not None:
        raise failure


def _read_some(response: UpstreamResponse, answer: Answer) -> bytes:
    try:
        return response.read_some()
    except GatewayError:
        if answer.is_complete():
            return b""  # all that was lost is the usage or the end mark
        raise
