"""Read the text of a response, an event stream or one JSON document, whatever its label says.

A part of an event or document has to arrive within the provider's time-out. Keep-alives hold the connection open, but
do not extend it.
Texts that arrive together are yielded together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from service.core.concurrency import Timeout
from service.core.errors import GatewayError
from service.models.drafts import Drafts
from service.models.errors.http_errors import check_no_page
from service.models.http.body import BodyDecoder
from service.models.http.response import UpstreamResponse

logger = logging.getLogger("openclaw.models")

#: The longest answer accepted; none meant for people comes near it.
MAX_ANSWER_CHARS = 16 * 1024 * 1024

_TAIL_SECONDS = 0.05
_GRACE_SECONDS = 1.5
_MOST_TOKENS = 2**53 - 1
_END_MARK = b"done"  # in brackets, and sometimes in quotes
_MAX_END_MARK_BYTES = 16
_PING = b'{"type":"ping"'


class AnswerReader(Protocol):
    """Reader of one dialect's events."""

    #: Set at the end mark: nothing follows.
    is_over: bool
    #: What it has found beside the text; `None` if that is dropped.
    drafts: Drafts | None

    def read(self, payload: bytes) -> str:
        """Process one event and return its text, which may be empty. Raises `GatewayError`."""
        ...

    def read_repeated(self, payloads: Sequence[bytes], first: int) -> Sequence[str]:
        """Process events from the index `first` on that differ in their text alone; return their texts."""
        ...

    def is_complete(self) -> bool:
        """Return True once only usage and the end mark may be missing."""
        ...

    def end_body(self, *, framed: bool, is_document: bool) -> None:
        """Note the end of the body, `framed` if its length proves that nothing is missing.

        With `is_document` it is one JSON document.
        """
        ...


def read_texts(
    response: UpstreamResponse,
    reader: AnswerReader,
    *,
    timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[str]:
    """Pass the events of `response` to `reader` and yield their texts, until it is over or the body ends.

    A text is empty if there are only drafts.

    Raises what `reader` raises, after the texts before it, and `GatewayError`: `provider_timeout` after about
    `timeout_seconds` (at most twice that) without a part of an event, `provider_error` for a dropped connection, an
    oversized event or answer, or a web page. Once `reader` is complete, errors are ignored, and what is missing (usage,
    the end mark) has 1.5 s to arrive.
    """
    body = BodyDecoder()
    patience = _Patience(body, timeout_seconds, clock)
    characters = 0
    while True:
        grace_seconds = patience.last_at + _GRACE_SECONDS - clock() if reader.is_complete() else None
        chunk = response.read_some() if grace_seconds is None else _read_rest(response, grace_seconds)
        payloads = body.feed(chunk) if chunk else body.finish()
        text, problem = _read_together(reader, payloads)
        characters += len(text)
        if characters > MAX_ANSWER_CHARS:
            raise GatewayError("provider_error", "The model provider sent an answer of more than 16 MiB.")
        if text or (reader.drafts is not None and reader.drafts.is_pending):
            yield text
        if problem is not None and grace_seconds is None:
            raise problem
        if not chunk:
            reader.end_body(framed=response.is_framed, is_document=body.is_document)
            break
        if reader.is_over:
            break
        patience.note(payloads)
        if patience.waits and grace_seconds is None:
            patience.check()
    if reader.is_over:
        response.finish(_TAIL_SECONDS)
    elif not (reader.is_complete() or characters):
        check_no_page(response)


class _Patience:
    """The wait for the next part of an event or document, decoded by `body`; `last_at` is the time of the last one.

    `waits` is set while only keep-alives arrive.
    """

    def __init__(self, body: BodyDecoder, seconds: float, clock: Callable[[], float]) -> None:
        self.last_at = clock()
        self._body = body
        self._seconds = seconds
        self._clock = clock
        self._unfinished_bytes = 0
        self.waits = False

    def note(self, payloads: list[bytes]) -> None:
        """Note what arrived: `payloads`, or part of one."""
        self.waits = not _has_progress(payloads)
        if self.waits:
            start, unfinished_bytes = self._body.unfinished()
            self.waits = unfinished_bytes == self._unfinished_bytes or _may_be_keep_alive(start)
            self._unfinished_bytes = unfinished_bytes
        if not self.waits:
            self.last_at = self._clock()

    def check(self) -> None:
        """Raise `GatewayError` `provider_timeout` if it has taken too long, while it `waits`."""
        if self._clock() - self.last_at > self._seconds:
            message = f"The model provider sent keep-alives, but no output for {self._seconds:g} seconds."
            raise GatewayError("provider_timeout", message)


def to_count(value: Any) -> int:
    """Convert a token count, 0 for anything that is not a number: a wrong count must not fail the answer."""
    try:
        count = int(value or 0)
    except (TypeError, ValueError, OverflowError):
        return 0
    if 0 <= count <= _MOST_TOKENS:
        return count
    return 0 if count < 0 else _MOST_TOKENS


def _has_progress(payloads: list[bytes]) -> bool:
    """True if the last payload that is not a keep-alive is no ping."""
    for payload in reversed(payloads):
        if payload.startswith(b"{") or not _is_keep_alive(payload):
            return not payload[:32].replace(b" ", b"").startswith(_PING)
    return False


def _is_end_mark(payload: bytes) -> bool:
    return len(payload) <= _MAX_END_MARK_BYTES and payload.strip(b" \t\r\n\"'[]").lower() == _END_MARK


def _is_keep_alive(payload: bytes) -> bool:
    """True for data that carries nothing: empty, a comment or `null`."""
    text = payload.strip()
    return text in (b"", b"null") or text.startswith(b":")


def _may_be_keep_alive(start: bytes) -> bool:
    """True if an event that starts so may carry nothing."""
    text = b"".join(start.split())
    return text.startswith((b":", _PING)) or _PING.startswith(text) or b"null".startswith(text)


def _read_rest(response: UpstreamResponse, grace_seconds: float) -> bytes:
    """Return the next bytes of an answer that is already complete; `b""` at the end, or after `grace_seconds`."""
    try:
        with Timeout(grace_seconds):
            return response.read_some()
    except (GatewayError, TimeoutError):
        pass  # only usage or the end mark was lost
    return b""


def _read_together(reader: AnswerReader, payloads: list[bytes]) -> tuple[str, GatewayError | None]:
    """Pass `payloads` to `reader`; return their text, and the error that ended it."""
    texts: list[str] = []
    try:
        place = 0
        while place < len(payloads):
            if repeated := reader.read_repeated(payloads, place):
                texts += repeated
                place += len(repeated)
                continue
            payload = payloads[place]
            place += 1
            if payload < b"{":  # no object; cheaper than a look at the first byte, for every event
                if _is_end_mark(payload):
                    reader.is_over = True
                    break
                if _is_keep_alive(payload):
                    continue
            texts.append(reader.read(payload))
            if reader.is_over:
                break
    except GatewayError as error:
        return "".join(texts), error
    except Exception:
        # Any content is the provider's fault, never the gateway's: another attempt or model may work.
        logger.exception("an event of a model provider could not be read")
        return "".join(texts), GatewayError("provider_error", "The model provider sent an event that cannot be read.")
    return "".join(texts), None
