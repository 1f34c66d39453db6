"""Decode Server-Sent Events: bytes in, the data of each complete event out.

Input may be split at any byte; the size of an unfinished event is limited.
"""

from __future__ import annotations

import orjson

from service.core.errors import GatewayError

#: One event may hold a whole answer, or a call with all its arguments.
MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_CR = b"\r"
_CR_BYTE, _LF_BYTE = 0x0D, 0x0A  # `in` finds a number faster than bytes, which it first takes for one
_START_BYTES, _START_LINES = 40, 4
_EVENT_STARTS = (b'{"', b"[DONE]")  # no line of one JSON document but the first starts so
_FIRST, _NEXT, _END = b"data: ", b"\n\ndata: ", b"\n\n"


class SSEDecoder:
    """An incremental decoder of one `text/event-stream`.

    Lines may end with LF, CRLF or CR; several data lines of one event are joined by LF. Comments and unknown fields are
    ignored, with exceptions beyond the standard: `event: error`, even without data, a field `error` and a line of bare
    JSON are returned, errors as JSON with the member `error`. An unterminated last event is returned by `finish`.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()  # the unfinished last line
        self._data: list[bytes] = []  # the data lines of the unfinished event
        self._data_bytes = 0
        self._after_cr = False
        self._begun = False
        self._is_error = False  # the unfinished event is named so

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that `chunk` completes, in order.

        Raises `GatewayError` with `provider_error` when an event grows beyond `max_event_bytes`.
        """
        if self._after_cr or _CR_BYTE in chunk:
            chunk = self._with_lf(chunk)
        if not self._line and not self._data and (whole := self._whole_events(chunk)):
            return whole
        *lines, rest = chunk.split(b"\n")
        if lines and self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line.clear()
        self._line += rest
        if not self._begun and lines:
            self._begun = True
            lines[0] = lines[0].removeprefix(_BOM)
        events = self._events(lines)
        if len(self._line) + self._data_bytes > self._max_event_bytes:
            raise self._too_large()
        return events

    def finish(self) -> list[bytes]:
        """Return the last event if it lacks its blank line, which the standard would drop."""
        return self.feed(b"\n\n")

    def unfinished(self) -> tuple[bytes, int]:
        """Return the first bytes of the unfinished event's data, and the number of its bytes; comments have none."""
        line = self._line if self._line.startswith((b"data:", b"{")) else b""
        parts = [*self._data[:_START_LINES], bytes(line[:_START_BYTES]).removeprefix(b"data:")]
        return b"".join(part[:_START_BYTES] for part in parts), self._data_bytes + len(line)

    def _whole_events(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events in `chunk` if it consists of whole events of one line each, the usual case."""
        if (
            self._is_error
            or not (chunk.startswith(_FIRST) and chunk.endswith(_END))
            or len(chunk) > self._max_event_bytes
        ):
            return []
        events = chunk[len(_FIRST) : -len(_END)].split(_NEXT)
        if _LF_BYTE in b"".join(events):  # a third of the cost of counting the line ends
            return []
        self._begun = True
        return events

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                data.append(value)
                self._data_bytes += len(value) + 1
            elif not line and (data or self._is_error):
                if self._data_bytes > self._max_event_bytes:
                    raise self._too_large()
                if len(data) > 1 and not self._is_error and all(line.startswith(_EVENT_STARTS) for line in data):
                    events += data  # events without blank lines between them
                else:
                    event = data[0] if len(data) == 1 else b"\n".join(data)
                    events.append(_error_event(event) if self._is_error else event)
                data.clear()
                self._data_bytes, self._is_error = 0, False
            elif line == b"data":
                data.append(b"")
                self._data_bytes += 1
            elif line.startswith(b"event:"):
                self._is_error = line[6:].strip().lower().endswith(b"error")
            elif line.startswith(b"error:"):
                events.append(_error_event(line[6:]))
            elif line.startswith(b'{"'):
                events.append(line)
        return events

    def _with_lf(self, chunk: bytes) -> bytes:
        """Return `chunk` with LF for every line end; a CR at its end counts at once, an LF after it does not."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if chunk.endswith(_CR):
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(_CR, b"\n")

    def _too_large(self) -> GatewayError:
        limit_kib = self._max_event_bytes // 1024
        return GatewayError("provider_error", f"The model provider sent an event of more than {limit_kib} KiB.")


def _error_event(data: bytes) -> bytes:
    """Return error data as JSON with the type and the member `error`, which distinguish it from other events."""
    try:
        error = orjson.loads(data)
    except ValueError:
        error = data.decode(errors="replace").strip()
    if isinstance(error, dict) and error.get("error"):
        return data if error.get("type") else orjson.dumps({"type": "error", **error})
    return orjson.dumps({"type": "error", "error": error})
