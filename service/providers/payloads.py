"""The events of a streamed answer, each waited for no longer than the provider's time-out.

A sign of life that says nothing (a comment, a ping) keeps the connection, but does not put the time-out off: it bounds
the wait for the first word and between words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from service.errors import GatewayError
from service.providers.sse import SSEDecoder
from service.providers.transport import UpstreamResponse


def read_payloads(
    response: UpstreamResponse,
    *,
    timeout_seconds: float,
    is_complete: Callable[[], bool],
    is_keep_alive: Callable[[bytes], object] = lambda _: False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Yield the data of every event of `response` until its body ends.

    Raises `GatewayError`: `provider_timeout` after about `timeout_seconds` (twice that at most) without an event that
    says something, `provider_error` for a dropped connection or an event too large. Once `is_complete()` says that
    nothing is missing any more, a connection that breaks is an end like any other.
    """
    decoder = SSEDecoder()
    waiting_since = clock()
    while chunk := _read_some(response, is_complete):
        said_something = False
        for payload in decoder.feed(chunk):
            if not is_keep_alive(payload):
                said_something = True
                yield payload
        if said_something:
            waiting_since = clock()
        elif clock() - waiting_since > timeout_seconds:
            message = f"The model provider kept the connection open but said nothing for {timeout_seconds:g} seconds."
            raise GatewayError("provider_timeout", message)


def _read_some(response: UpstreamResponse, is_complete: Callable[[], bool]) -> bytes:
    try:
        return response.read_some()
    except GatewayError:
        if is_complete():
            return b""  # all that was lost is the usage or the end mark
        raise
