"""Proxies and trusted certificates from the environment.

HTTPS_PROXY, HTTP_PROXY and NO_PROXY in upper or lower case (lower wins), SSL_CERT_FILE or else REQUESTS_CA_BUNDLE.
Loopback addresses never go through a proxy.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import field
from ipaddress import ip_address, ip_network
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from service.core.dataclass import record

_LOCAL_NAMES = ("localhost", "localhost.localdomain")
_DEFAULT_PROXY_PORT = 80


@record
class Proxy:
    """A plain HTTP proxy with its credentials, `None` if it needs none."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def authorization(self) -> str | None:
        """Value of the `Proxy-Authorization` header."""
        if self.user is None:
            return None
        credentials = f"{self.user}:{self.password or ''}"
        return f"Basic {base64.b64encode(credentials.encode()).decode()}"


@record
class ProxySettings:
    """The proxy of each scheme (as written, may be empty), the hosts without a proxy, and the trusted authorities.

    `ca_path` is a PEM file or a directory of them that replaces the system's certificates, `None` for those.
    """

    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_path: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from environment variables."""

        def value_of(name: str) -> str:
            return (environ.get(name.lower()) or environ.get(name) or "").strip()

        return cls(
            http_proxy=value_of("HTTP_PROXY"),
            https_proxy=value_of("HTTPS_PROXY"),
            no_proxy=tuple(entry.strip().lower() for entry in value_of("NO_PROXY").split(",") if entry.strip()),
            ca_path=environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE") or None,
        )

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for `url`, `None` for a direct connection. Raises `ValueError` for an unsupported proxy."""
        parts = urlsplit(url)
        name, address = (
            ("HTTPS_PROXY", self.https_proxy) if parts.scheme == "https" else ("HTTP_PROXY", self.http_proxy)
        )
        if not address or self._is_direct(parts):
            return None
        return _parse_proxy(name, address)

    def _is_direct(self, parts: SplitResult) -> bool:
        host = (parts.hostname or "").rstrip(".")
        if host in _LOCAL_NAMES or host.endswith(".localhost") or _is_loopback(host):
            return True
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return any(_names(entry, host, port) for entry in self.no_proxy)


#: No proxy, and the system's certificates.
DIRECT = ProxySettings()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _names(entry: str, host: str, port: int) -> bool:
    """Match an entry of NO_PROXY: a host, its domain or its network, optionally with a port."""
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass  # one of the two is a name
    entry, colon, entry_port = entry.rpartition(":") if entry.rpartition(":")[2].isdigit() else (entry, "", "")
    entry = entry.strip("[]").removeprefix("*").lstrip(".")
    return bool(entry) and (not colon or int(entry_port) == port) and (host == entry or host.endswith(f".{entry}"))


def _parse_proxy(name: str, address: str) -> Proxy:
    problem = f"{name} must be the address of an HTTP proxy, such as http://proxy.example.com:3128"
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(problem) from None
    if parts.scheme != "http" or not host:
        raise ValueError(problem)
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(host, port or _DEFAULT_PROXY_PORT, user, unquote(parts.password or "") or None)
