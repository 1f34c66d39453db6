"""A small web server on a loopback port; a test writes its answers, which may be wrong in any way."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Self

#: What answers a request's head: pieces of a raw answer, sent one after the other.
Page = Callable[[str], Iterable[bytes]]

ADDRESS = "127.0.0.1"


def page(
    body: bytes | str, content_type: str = "text/html; charset=utf-8", status: str = "200 OK", *headers: str
) -> Page:
    """A page that is well made."""
    data = body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *headers, "", "")
    return lambda _: ("\r\n".join(lines).encode() + data,)


def redirect(location: str, status: int = 302) -> Page:
    """A page that sends its reader elsewhere."""
    return page("", "text/plain", f"{status} Elsewhere", f"Location: {location}")


def raw(*pieces: bytes) -> Page:
    """An answer given as it is."""
    return lambda _: pieces


def endless(head: bytes, piece: bytes, pieces: int = 1 << 30) -> Page:
    """An answer that is made as it is read and never held."""

    def answer(_: str) -> Iterator[bytes]:
        yield head
        for _number in range(pieces):
            yield piece

    return answer


class PageServer:
    """Serves `pages` by path; `requests` are the heads of what it was asked, `sent_bytes` what it could send."""

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
        """Its address, to be let through by name."""
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
