"""Resolve client addresses behind trusted proxies, and check the Host of unauthenticated gateways."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Literal

from service.core.errors import GatewayError

ProxyHeader = Literal["x-forwarded-for", "forwarded", "x-real-ip"]

_HOST = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]{1,5})?")
_FORWARDED_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?(?P<node>[^";]*)', re.IGNORECASE)
_PROXY_HEADERS: tuple[ProxyHeader, ...] = ("x-forwarded-for", "forwarded", "x-real-ip")
_FORWARDING_KEYS = ("\nHTTP_X_FORWARDED_", "\nHTTP_FORWARDED", "\nHTTP_X_REAL_IP")


class ClientAddresses:
    """Resolves the client address of a request; only trusted proxies may set forwarding headers.

    With `proxy_header`, only that one counts.
    """

    def __init__(
        self, trusted_proxies: Iterable[IPv4Network | IPv6Network], proxy_header: ProxyHeader | None = None
    ) -> None:
        self._trusted_proxies = tuple(trusted_proxies)
        self._proxy_header = proxy_header

    def check(self, peer: str, headers: Mapping[str, Any]) -> str:
        """Return the client's address; `headers` has WSGI's names (`HTTP_X_FORWARDED_FOR`), as an environ does.

        Behind a trusted proxy it is the rightmost address in X-Forwarded-For, Forwarded or X-Real-IP that is not itself
        a trusted proxy, else the peer. Raises `GatewayError` `untrusted_proxy_headers` if any other peer sends such a
        header, or if several headers disagree: one of them may be the caller's, passed on by the proxy.
        """
        names = "\n" + "\n".join(headers)
        is_forwarded = any(map(names.__contains__, _FORWARDING_KEYS))
        return self._forwarded_client(peer, headers) if is_forwarded else peer

    def _forwarded_client(self, peer: str, headers: Mapping[str, Any]) -> str:
        if not self._is_trusted(_parse_address(peer)):
            raise GatewayError(
                "untrusted_proxy_headers",
                "The request has forwarding headers, but its sender is not a trusted proxy. "
                "Trusted proxies are listed in gateway.trustedProxies.",
            )
        if self._proxy_header is not None:
            return self._resolve(peer, _forwarded_nodes(headers, self._proxy_header))
        present = [name for name in _PROXY_HEADERS if environ_name(name) in headers]
        clients = {self._resolve(peer, _forwarded_nodes(headers, name)) for name in present}
        if len(clients) > 1:
            raise GatewayError(
                "untrusted_proxy_headers",
                f"The headers {' and '.join(present)} disagree about the client's address. "
                "The operator names the header that the proxy sets in gateway.trustedProxyHeader.",
            )
        return clients.pop() if clients else peer

    def is_trusted(self, peer: str) -> bool:
        """Return True if `peer`, the address of a connection, is a trusted proxy."""
        return self._is_trusted(_parse_address(peer))

    def _resolve(self, peer: str, nodes: Sequence[str]) -> str:
        client = peer
        for node in reversed(nodes):
            address = _parse_address(node)
            if address is None:  # the proxy did not name its client
                break
            client = str(address)
            if not self._is_trusted(address):
                break
        return client

    def _is_trusted(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted_proxies)


def environ_name(header: str) -> str:
    """Return WSGI's name of a header."""
    return "HTTP_" + header.upper().replace("-", "_")


def _forwarded_nodes(headers: Mapping[str, Any], name: ProxyHeader) -> list[str]:
    value = headers.get(environ_name(name))
    if value is None:
        return []
    if name == "forwarded":
        found = (_FORWARDED_FOR.search(element) for element in str(value).split(","))
        return [match["node"] if match else "" for match in found]
    return str(value).split(",")


def _parse_address(node: str) -> IPv4Address | IPv6Address | None:
    # Formats of proxies: 192.0.2.1, 192.0.2.1:4711, 2001:db8::1, [2001:db8::1] or [2001:db8::1]:4711.
    text = node.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(address: str) -> bool:
    """Return True if `address` is a loopback address; IPv4-mapped IPv6 is included."""
    parsed = _parse_address(address)
    return parsed is not None and parsed.is_loopback


def network_of(address: str) -> str:
    """Return what one client has for certain: its IPv4 address, or the /64 network of its IPv6 address."""
    if ":" not in address:
        return address
    parsed = _parse_address(address)
    if not isinstance(parsed, IPv6Address) or parsed.is_loopback:
        return address
    return str(IPv6Network((parsed.packed, 64), strict=False))


def check_origin(headers: Mapping[str, Any], allowed_origins: Collection[str]) -> None:
    """Refuse a request of a page with a foreign origin, where callers need no secret.

    Browsers send such requests on behalf of any page. An origin is foreign unless it is the request's Host or one of
    `allowed_origins` (lower-case; "*" allows all). `headers` has WSGI's names. Raises `GatewayError`
    `origin_not_allowed`.
    """
    origin = headers.get("HTTP_ORIGIN")
    if origin is None:
        is_foreign = headers.get("HTTP_SEC_FETCH_SITE") == "cross-site"
    else:
        host = str(origin).lower().partition("://")[2]
        is_foreign = not host or host != str(headers.get("HTTP_HOST", "")).lower()
        is_foreign = is_foreign and not {"*", str(origin).lower()} & set(allowed_origins)
    if is_foreign:
        raise GatewayError(
            "origin_not_allowed",
            "Pages of other origins are refused here. List the origin in gateway.controlUi.allowedOrigins.",
            param="origin" if origin is not None else "sec-fetch-site",
        )


def check_host(host: str | None) -> None:
    """Refuse a Host header that does not name this machine, for a gateway without authentication.

    A page in the operator's browser can make its own name resolve to 127.0.0.1 (DNS rebinding), but it cannot forge the
    Host header. Raises `GatewayError` `host_not_allowed`.
    """
    match = _HOST.fullmatch(host or "")
    if match is not None:
        name = (match["name"] or "").lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost") or is_loopback(match["ipv6"] or name):
            return
    raise GatewayError(
        "host_not_allowed",
        "Without authentication the Host must be localhost, 127.0.0.1 or [::1]. Use one of them, or configure a token.",
        param="host",
    )
