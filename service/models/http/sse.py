"""Server-Sent Events as a provider sends them: bytes in, the data of each complete event out.

Input may be cut at any byte; what is held of an unfinished event is bounded.
"""

from __future__ import annotations

from service.core.errors import GatewayError

#: A whole answer, or a call with all its arguments, may come in one event.
MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_CR = b"\r"
_FIRST, _NEXT, _END = b"data: ", b"\n\ndata: ", b"\n\n"


class SSEDecoder:
    """An incremental decoder of one `text/event-stream`.

    Lines may end with LF, CRLF or CR. Comments and the fields `event`, `id` and `retry` are ignored; several data lines
    of one event are joined by LF, as the standard says; one that the stream's end cuts off is told by `finish`.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()  # the unfinished last line
        self._data: list[bytes] = []  # the data lines of the unfinished event
        self._data_bytes = 0
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes, in order.

        Raises `GatewayError` with `provider_error` when an event grows beyond `max_event_bytes`.
        """
        if self._after_cr or _CR in chunk:
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
        """The event, if any, that lacked its blank line when the stream ended, which the standard would drop."""
        return self.feed(b"\n\n")

    def _whole_events(self, chunk: bytes) -> list[bytes]:
        """The data of the events in `chunk` if it is nothing but whole ones of one line each, as it mostly is."""
        if not (chunk.startswith(_FIRST) and chunk.endswith(_END)) or len(chunk) > self._max_event_bytes:
            return []
        events = chunk[len(_FIRST) : -len(_END)].split(_NEXT)
        if chunk.count(b"\n") != len(events) * len(_END):
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
            elif not line and data:
                if self._data_bytes > self._max_event_bytes:
                    raise self._too_large()
                events.append(data[0] if len(data) == 1 else b"\n".join(data))
                data.clear()
                self._data_bytes = 0
            elif line == b"data":
                data.append(b"")
                self._data_bytes += 1
        return events

    def _with_lf(self, chunk: bytes) -> bytes:
        """`chunk` with LF for every line end; a CR that ends it counts at once, and the LF that may follow does not."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if chunk.endswith(_CR):
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(_CR, b"\n")

    def _too_large(self) -> GatewayError:
        limit_kib = self._max_event_bytes // 1024
        return GatewayError("provider_error", f"The model provider sent an event of more than {limit_kib} KiB.")
