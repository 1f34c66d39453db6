"""Split a response body into payloads: the events of a stream, or one JSON document.

Providers label them wrongly, so that the first byte decides: JSON starts with a brace or a bracket.
"""

from __future__ import annotations

import re

from service.core.errors import GatewayError
from service.models.http.sse import MAX_EVENT_BYTES, SSEDecoder

_BOM = b"\xef\xbb\xbf"
_JSON_START = re.compile(rb"(\[\s*)?\{")
_BLANKS = b" \t\r\n"
_END_MARK = b"[DONE]"
_MARKED_END = re.compile(rb"(\s*(data:)?\s*['\"]?\[done\]['\"]?)+\s*\Z", re.IGNORECASE)
_MARKED_END_BYTES = 128
_START_BYTES = 40


class BodyDecoder:
    """Incremental decoder of a body of either kind."""

    def __init__(self) -> None:
        self._events = SSEDecoder()
        self._document: bytearray | None = None
        self._document_bytes = 0  # without chunks of white space, which keep the connection alive
        self._is_undecided = True
        self._start = b""
        self.is_document = False  # set at the end

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that `chunk` completes; JSON documents are complete at the end only.

        Raises `GatewayError` with `provider_error` for an event or a document of more than 16 MiB.
        """
        if self._is_undecided:
            start = self._start + chunk if self._start else chunk.removeprefix(_BOM).lstrip()
            if not start:
                return []  # white space keeps the connection alive until a document is ready
            if start.rstrip(_BLANKS) == b"[":
                self._start = start
                return []
            self._is_undecided = False
            chunk = self._start + chunk
            if _JSON_START.match(start):
                self._document, chunk = bytearray(), start
        if self._document is None:
            return self._events.feed(chunk)
        self._document += chunk
        self._document_bytes += 0 if chunk.isspace() else len(chunk)
        if len(self._document) > MAX_EVENT_BYTES:
            raise GatewayError("provider_error", "The model provider sent an answer of more than 16 MiB.")
        return []

    def unfinished(self) -> tuple[bytes, int]:
        """Return the first bytes of the document or event that is still arriving, and the number of its bytes."""
        if self._document is None:
            return self._events.unfinished()
        return bytes(self._document[:_START_BYTES]), self._document_bytes

    def finish(self) -> list[bytes]:
        """Return the payloads that the end of the body completes: documents, or an event without its blank line."""
        if self._document is None:
            return self._events.finish()
        document, marks = bytes(self._document), []
        if found := _MARKED_END.search(document, max(len(document) - _MARKED_END_BYTES, 0)):
            document, marks = document[: found.start()], [_END_MARK]  # as after events
        lines = [line for line in document.splitlines() if line.strip()]
        if len(lines) > 1 and all(line.startswith(b"{") for line in lines):
            return [*lines, *marks]  # one document per line
        self.is_document = True
        return [document, *marks]
