"""A small web server on a loopback port; tests define its raw responses, valid or not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Self

#: Return the pieces of a raw response for a request head.
Page = Callable[[str], Iterable[bytes]]

ADDRESS = "127.0.0.1"


def page(
    body: bytes | str, content_type: str = "text/html; charset=utf-8", status: str = "200 OK", *headers: str
) -> Page:
    """Return a valid page."""
    data = body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *headers, "", "")
    return lambda _: ("\r\n".join(lines).encode() + data,)


def redirect(location: str, status: int = 302) -> Page:
    """Return a redirect."""
    return page("", "text/plain", f"{status} Elsewhere", f"Location: {location}")


def raw(*pieces: bytes) -> Page:
    """Return a raw response as given."""
    return lambda _: pieces


def endless(head: bytes, piece: bytes, pieces: int = 1 << 30) -> Page:
    """Return a response that is generated while it is read."""

    def answer(_: str) -> Iterator[bytes]:
        yield head
        for _number in range(pieces):
            yield piece

    return answer


class PageServer:
    """Serves `pages` by path; `requests` records request heads, `sent_bytes` counts what clients took."""

    def __init__(self, tls: ssl.SSLContext | None = None, address: str = ADDRESS) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[str] = []
        self.sent_bytes = 0
        self._tls = tls
        self._listener = socket.create_server((address, 0))
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._closed = False

    @property
    def exempt(self) -> frozenset[tuple[str, int]]:
        """The server's address, for `AddressPolicy.exempt`."""
        return frozenset({(self.address, self.port)})

    def url(self, path: str, host: str = "site.test") -> str:
        return f"http{'s' if self._tls else ''}://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for sock in (self._listener, *self._open):
            sock.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = connection.recv(65536)
                    if not data:
                        return
                    head += data
                self.requests.append(head.decode())
                path = head.split()[1].decode()
                for piece in self.pages.get(path, page("nothing here", "text/plain", "404 Not Found"))(path):
                    connection.sendall(piece)
                    self.sent_bytes += len(piece)
