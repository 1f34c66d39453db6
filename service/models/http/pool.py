"""Connection pools for model providers, built on geventhttpclient's."""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gevent.monkey import get_original
from gevent.ssl import SSLContext, create_default_context
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool

from service.core.concurrency import Timeout, pause
from service.models.http.proxies import Proxy, ProxySettings

# gevent's poll() is made for waiting, and select() fails for descriptors above 1023.
_poll = get_original("select", "poll")

#: Pieces of fewer bytes are copied into one message, which takes one call.
_JOINED_BYTES = 64 * 1024
_BYTES_AT_ONCE = 512 * 1024

#: Lifetime of resolved addresses.
_RESOLVED_SECONDS = 5.0


class _ConnectTimeoutError(TimeoutError):
    def __init__(self) -> None:
        super().__init__("timed out")


class ProviderPool(ConnectionPool):
    """Connection pool that tracks unused connections and checks idle ones without `select`.

    Resolved addresses are cached for a few seconds. The connect time-out covers everything that connecting to one
    address takes, including a proxy tunnel and TLS.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._fresh: set[Any] = set()  # until `take` returns them
        self._resolved: list[Any] = []
        self._resolved_at = -math.inf

    def _resolve(self) -> list[Any]:
        now = time.monotonic()
        if now - self._resolved_at > _RESOLVED_SECONDS:
            self._resolved, self._resolved_at = super()._resolve(), now
        return self._resolved

    def _connect_socket(self, sock: Any, address: Any) -> Any:
        # The package limits each wait, not their number: a proxy that drips its answer would never time out.
        with Timeout(self.connection_timeout, _ConnectTimeoutError):
            return super()._connect_socket(sock, address)

    def after_connect(self, sock: Any) -> None:
        """Disable Nagle's algorithm and mark the connection as unused."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fresh.add(sock)

    def take(self, *, fresh: bool) -> tuple[Any, bool]:
        """Return a connection and True if it has never been used; with `fresh`, idle ones are closed instead."""
        while True:
            sock = self.get_socket()
            if sock in self._fresh:
                self._fresh.discard(sock)
                return sock, True
            if not fresh:
                return sock, False
            self.release_socket(sock)

    def _is_socket_alive(self, sock: Any) -> bool:
        # An idle connection is readable only if it was closed. The package uses select(), see `_poll`.
        poll = _poll()
        try:
            poll.register(sock, select.POLLIN)
            return not poll.poll(0)
        except (OSError, ValueError):
            return False  # closed on this side


class TLSProviderPool(ProviderPool, SSLConnectionPool):
    """`ProviderPool` over TLS with certificate verification."""


def open_pool(
    scheme: str, origin: tuple[str, int], proxy: Proxy | None, network: ProxySettings, **options: Any
) -> ProviderPool:
    """Open a pool for `origin`, a host and a port; `options` are geventhttpclient's."""
    host, port = (proxy.host, proxy.port) if proxy else origin
    if scheme == "http":
        return ProviderPool(host, port, *origin, **options)
    if proxy:
        options |= {"use_proxy": True, "proxy_user": proxy.user, "proxy_password": proxy.password}
    if network.ca_path is not None:
        options["ssl_context_factory"] = partial(_private_tls, network.ca_path)
    return TLSProviderPool(host, port, *origin, **options)


def send_pieces(sock: Any, pieces: Sequence[bytes]) -> None:
    """Send `pieces` in order. Many bytes are not copied, and other greenlets run in between."""
    if sum(map(len, pieces)) < _JOINED_BYTES:
        message = b"".join(pieces)
        if (sent := sock.send(message)) < len(message):
            sock.sendall(memoryview(message)[sent:])
        return
    for piece in pieces:
        for start in range(0, len(piece), _BYTES_AT_ONCE):
            sock.sendall(memoryview(piece)[start : start + _BYTES_AT_ONCE])
            pause()


def _private_tls(ca_path: str, **_: object) -> SSLContext:
    """Create a context that trusts only the certificates at `ca_path`, a file or a directory."""
    try:
        if Path(ca_path).is_dir():
            return create_default_context(capath=ca_path)
        return create_default_context(cafile=ca_path)
    except OSError as error:  # SSLError is one
        message = f"the certificates at {ca_path} (SSL_CERT_FILE or REQUESTS_CA_BUNDLE) cannot be read"
        raise ValueError(message) from error
