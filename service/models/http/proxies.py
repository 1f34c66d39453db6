"""How this machine reaches others: through which proxy, and whose certificates it trusts.

The environment decides, as for other programs: HTTPS_PROXY, HTTP_PROXY and NO_PROXY in upper or lower case (lower
wins), SSL_CERT_FILE or else REQUESTS_CA_BUNDLE. This machine itself is never reached through a proxy.
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
    """A plain HTTP proxy and what it is told of who asks, `None` where it asks for nothing."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def authorization(self) -> str | None:
        """The value of the `Proxy-Authorization` header."""
        if self.user is None:
            return None
        credentials = f"{self.user}:{self.password or ''}"
        return f"Basic {base64.b64encode(credentials.encode()).decode()}"


@record
class ProxySettings:
    """The proxies of each scheme (addresses as written, perhaps empty), the hosts reached without, trusted authorities.

    `ca_path` is a PEM file or a directory of them that replaces the system's certificates, `None` for those.
    """

    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_path: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """What the environment says."""

        def told(name: str) -> str:
            return (environ.get(name.lower()) or environ.get(name) or "").strip()

        return cls(
            http_proxy=told("HTTP_PROXY"),
            https_proxy=told("HTTPS_PROXY"),
            no_proxy=tuple(entry.strip().lower() for entry in told("NO_PROXY").split(",") if entry.strip()),
            ca_path=environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE") or None,
        )

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy that requests for `url` go through. Raises `ValueError` when it is not one this gateway can use."""
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


#: No proxy, and the certificates of the system.
DIRECT = ProxySettings()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _names(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means `host`: itself, a domain it is in, a network it is in, perhaps with a port."""
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
