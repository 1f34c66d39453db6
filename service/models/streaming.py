"""The text of a streamed answer, each piece waited for no longer than the provider's time-out.

A sign of life that says nothing (a comment, a ping) keeps the connection, but does not put the time-out off: it bounds
the wait for the first word and between words. What arrived together is told together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import gevent

from service.core.errors import GatewayError
from service.models.errors.http_errors import check_no_page
from service.models.http.sse import SSEDecoder
from service.models.http.transport import UpstreamResponse

logger = logging.getLogger("openclaw.models")

#: The longest answer that is taken; none that is meant for people comes near it.
MAX_ANSWER_CHARS = 16 * 1024 * 1024

_TAIL_SECONDS = 0.05
_GRACE_SECONDS = 1.5
_MOST_TOKENS = 2**53 - 1


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
    connection, an event or an answer too large, a web page. Once `answer` is complete nothing is an error any more, and
    what still belongs to it (the usage, the end mark) has 1.5 s to come.
    """
    decoder = SSEDecoder()
    waiting_since = clock()
    characters = 0
    while chunk := _read_some(response, answer):
        payloads = decoder.feed(chunk)
        if is_keep_alive is not None:
            payloads = [payload for payload in payloads if not is_keep_alive(payload)]
        if payloads:
            for text in _read_together(answer, payloads):
                characters += len(text)
                if characters > MAX_ANSWER_CHARS:
                    raise GatewayError("provider_error", "The model provider sent an answer of more than 16 MiB.")
                yield text
            waiting_since = clock()
        elif clock() - waiting_since > timeout_seconds:
            message = f"The model provider kept the connection open but said nothing for {timeout_seconds:g} seconds."
            raise GatewayError("provider_timeout", message)
        if answer.is_complete():
            yield from _finish(response, answer, decoder)
            return
    if not answer.is_complete():
        yield from _read_together(answer, decoder.finish())
        if not (answer.is_complete() or characters):
            check_no_page(response)


def to_count(told: Any) -> int:
    """How many tokens `told` says, 0 for what is no number: a wrong count is no reason to lose an answer."""
    try:
        count = int(told or 0)
    except (TypeError, ValueError, OverflowError):
        return 0
    return min(max(count, 0), _MOST_TOKENS)


def _finish(response: UpstreamResponse, answer: Answer, decoder: SSEDecoder) -> Iterator[str]:
    if not answer.is_over:
        yield from _read_tail(response, answer, decoder)
    if answer.is_over:
        response.finish(_TAIL_SECONDS)


def _read_tail(response: UpstreamResponse, answer: Answer, decoder: SSEDecoder) -> Iterator[str]:
    texts: list[str] = []
    with suppress(GatewayError), gevent.Timeout(_GRACE_SECONDS, exception=False):
        while not answer.is_over and (chunk := response.read_some()):
            for payload in decoder.feed(chunk):
                texts.extend(_read_together(answer, [payload]))
    if text := "".join(texts)[:MAX_ANSWER_CHARS]:
        yield text


def _read_together(answer: Answer, payloads: list[bytes]) -> Iterator[str]:
    texts: list[str] = []
    try:
        for payload in payloads:
            texts.append(answer.read(payload))
            if answer.is_over:
                break
    except Exception as error:
        if text := "".join(texts):
            yield text
        if isinstance(error, GatewayError):
            raise
        # Whatever a provider sends is its fault, never the gateway's: another attempt or model may do.
        logger.exception("an event of a model provider could not be read")
        message = "The model provider sent something that cannot be read."
        raise GatewayError("provider_error", message) from None
    if text := "".join(texts):
        yield text


def _read_some(response: UpstreamResponse, answer: Answer) -> bytes:
    try:
        return response.read_some()
    except GatewayError:
        if answer.is_complete():
            return b""  # all that was lost is the usage or the end mark
        raise
