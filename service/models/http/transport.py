"""Pooled HTTP client for model providers that streams response bodies as they arrive.

Every failure is a `GatewayError`. Leaving a response before its end, also by an exception, closes its connection, which
stops the provider.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from geventhttpclient.response import HTTPParseError

from service import __version__
from service.core.concurrency import Timeout
from service.core.errors import GatewayError
from service.core.work_context import current_work
from service.models.http.pool import open_pool, send_pieces
from service.models.http.proxies import DIRECT, ProxySettings
from service.models.http.response import UnansweredError, UpstreamResponse, read_error

_MIN_SECRET_CHARS = 8

_URL_CHARACTERS = "%/:?@!$&'()*+,;=-._~"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class Upstream:
    """A provider's address with its connection pool and the headers of every request.

    `headers` may contain secrets; they are sent to `base_url` only (`http://` or `https://`, optionally with a path, a
    query and `user:password@`), directly or through its proxy in `network`, which can read plain `http://` requests.
    `connect_timeout_seconds` limits connecting to each address, `read_timeout_seconds` the upload and the wait for the
    response head together, then each wait between bytes, not the whole response. Raises `ValueError` for an address, a
    proxy, a certificate file or a header that cannot be used, without repeating a secret.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        *,
        network: ProxySettings = DIRECT,
        connect_timeout_seconds: float = 10.0,
        read_timeout_seconds: float = 120.0,
        max_connections: int = 8192,
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("a provider's address must be http://host[:port][/path] or https://host[:port][/path]")
        proxy = network.proxy_for(base_url)
        userinfo, _, netloc = url.netloc.rpartition("@")
        headers = {**_basic_credentials(userinfo), **(headers or {})}
        self.host = url.hostname
        self.read_timeout_seconds = read_timeout_seconds
        self.address = f"{url.scheme}://{netloc}"
        path = quote(url.path.rstrip("/"), safe=_URL_CHARACTERS)
        self._prefix = f"{self.address}{path}" if proxy and url.scheme == "http" else path
        self._query = f"?{quote(url.query, safe=_URL_CHARACTERS)}" if url.query else ""
        if proxy and proxy.authorization and url.scheme == "http":
            headers["Proxy-Authorization"] = proxy.authorization
        self._secrets = _secrets(headers, userinfo, url.query)
        self._head = _header_lines(netloc, headers)
        self._has_own_trace = "traceparent" in (name.lower() for name in headers)
        self._route = f"{self.address} through the proxy {proxy.host}:{proxy.port}" if proxy else self.address
        port = url.port or (443 if url.scheme == "https" else 80)
        # Waits on a connection are limited in this module; the package's own limit costs more per wait.
        options = {"connection_timeout": connect_timeout_seconds, "network_timeout": None}
        self._pool = open_pool(url.scheme, (url.hostname, port), proxy, network, size=max_connections, **options)
        self._closed = False

    def post_stream(self, path: str, body: Sequence[bytes]) -> UpstreamResponse:
        """POST the JSON `body`, in pieces, to `path` below the base address; return when the response's head arrived.

        Raises `GatewayError`: `provider_unavailable` (no connection), `provider_timeout` (no head in time) or
        `provider_error` (the connection was dropped, or what came is not HTTP).
        """
        return self._request("POST", path, body)

    def get(self, path: str, query: str = "") -> UpstreamResponse:
        """GET `path` below the base address, with `query` besides the address's own; otherwise like `post_stream`."""
        return self._request("GET", path, (), query)

    def redact(self, text: str) -> str:
        """Replace the secrets sent to this provider in `text`, in case it echoed them."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def close(self) -> None:
        """Close the idle connections; responses that are still being read close theirs at their end."""
        self._closed = True
        self._pool.close()

    def _request(self, method: str, path: str, body: Sequence[bytes], query: str = "") -> UpstreamResponse:
        target = f"{self._prefix}{path}{self._query}"
        if query:
            target += f"{'&' if self._query else '?'}{query}"
        trace = "" if self._has_own_trace else current_work.get().trace_lines
        head = f"{method} {target} HTTP/1.1\r\n{self._head}{trace}Content-Length: {sum(map(len, body))}\r\n\r\n"
        message = (head.encode(), *body)
        sock, unused = self._connect(fresh=False)
        try:
            try:
                return self._exchange(sock, message)
            except UnansweredError:
                if unused:
                    raise
                # The provider closed the idle connection at the same moment.
                sock, _ = self._connect(fresh=True)
                return self._exchange(sock, message)
        except (OSError, HTTPParseError) as error:
            raise read_error(error) from error

    def _connect(self, *, fresh: bool) -> tuple[Any, bool]:
        if self._closed:
            raise GatewayError("provider_unavailable", "The connection to the model provider has been closed.")
        try:
            return self._pool.take(fresh=fresh)
        except (OSError, RuntimeError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            message = f"Cannot connect to the model provider at {self._route}: {reason}."
            raise GatewayError("provider_unavailable", message) from error

    def _exchange(self, sock: Any, message: Sequence[bytes]) -> UpstreamResponse:
        patience = Timeout(self.read_timeout_seconds)
        with patience:
            try:
                send_pieces(sock, message)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may have answered before it closed; the read finds out
            except BaseException:
                self._pool.release_socket(sock)
                raise
            return UpstreamResponse(sock, self._pool, patience)


def _header_lines(host: str, headers: Mapping[str, str]) -> str:
    lines = {
        "host": f"Host: {host}",
        "user-agent": f"User-Agent: openclaw-gateway/{__version__}",
        "accept-encoding": "Accept-Encoding: identity",
        "content-type": "Content-Type: application/json",
    }
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an HTTP header")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(
                f"the value of header {name!r} contains a character that HTTP cannot carry, such as a line break"
            )
        lines[name.lower()] = f"{name}: {value}"
    return "".join(f"{line}\r\n" for line in lines.values())


def _basic_credentials(userinfo: str) -> dict[str, str]:
    if not userinfo:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(unquote(userinfo).encode()).decode()}"}


def _secrets(headers: Mapping[str, str], userinfo: str, query: str) -> tuple[str, ...]:
    """Collect possible secrets of a minimum length, the longest first.

    Every word of the header values, and the address's user, password, query and query values, each as written, as sent
    and decoded.
    """
    found = [word for value in headers.values() for word in value.split()]
    values = (pair.partition("=")[2] or pair for pair in query.split("&"))
    for written in (userinfo, *userinfo.split(":", 1), query, *values):
        found += (written, quote(written, safe=_URL_CHARACTERS), unquote(written), unquote_plus(written))
    secrets = {word for word in found if len(word) >= _MIN_SECRET_CHARS}
    return tuple(sorted(secrets, key=len, reverse=True))
