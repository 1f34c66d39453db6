"""Policy for hosts and network addresses that untrusted input names.

Default deny: an address is public only if it can belong to a host on the internet.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from service.core.dataclass import record

# IANA's special-purpose registry, reserved ranges, and the address at which Azure hosts serve their guests.
_CLOSED_IPV4 = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
    )
)
# IPv6 is open only in the range allocated to networks. Outside of it are local, multicast, IPv4-mapped and translated
# (NAT64) addresses; inside of it Teredo, ORCHID, documentation and 6to4, which wraps an IPv4 address, are closed.
_OPEN_IPV6 = ip_network("2000::/3")
_CLOSED_IPV6 = tuple(
    ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)


def is_address(host: str) -> bool:
    """Return whether `host` is an address instead of a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def canonical_host(host: str) -> str:
    """Return the one spelling of a name or address, so that hosts can be compared.

    Names are in lower case and ASCII (IDNA), without the full stop at their end. Addresses are read as connections read
    them: 0x7f000001 and 127.1 are 127.0.0.1. Raises `ValueError`.
    """
    host = (host if host.isascii() else host.encode("idna").decode()).lower().removesuffix(".")
    if ":" in host:
        return str(ip_address(host))
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def is_public(address: str) -> bool:
    """Return whether the string `address` is an IPv4 or IPv6 address of the public internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    match parsed:
        case IPv4Address():
            return not any(parsed in network for network in _CLOSED_IPV4)
        case IPv6Address():
            # A zone ("2600::1%eth0") binds any address to a link.
            return not parsed.scope_id and parsed in _OPEN_IPV6 and not any(parsed in net for net in _CLOSED_IPV6)


@record
class AddressPolicy:
    """Permitted targets: public addresses on `ports`, and only the names in `hosts` unless that is empty.

    No name in `denied_hosts` is permitted, nor an address in it, whatever name it has. A host is a full name,
    `example.com`, all names below one, `*.example.com`, or an address, each as `canonical_host` returns it.
    `exempt` are address and port pairs (`127.0.0.1`, 8080) that are permitted although they are not public.
    """

    hosts: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset({80, 443})
    exempt: frozenset[tuple[str, int]] = frozenset()
    denied_hosts: tuple[str, ...] = ()

    def permits_host(self, host: str) -> bool:
        """Return whether `host`, as `canonical_host` returns it, is permitted."""
        host = host.rstrip(".")  # a full stop at the end names the same host
        if any(_covers(pattern.strip().lower(), host) for pattern in self.denied_hosts):
            return False
        return not self.hosts or any(_covers(pattern.strip().lower(), host) for pattern in self.hosts)

    def permits(self, address: str, port: int) -> bool:
        """Return whether a connection to `address` is permitted."""
        if address in self.denied_hosts:
            return False
        return (address, port) in self.exempt or (port in self.ports and is_public(address))


def _covers(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return host == pattern
