"""Connections whose request head has begun and not ended, and their eviction.

A client that sends heads slowly holds a place for little effort. Its address gets a limited number of such places, and
when all places are taken the oldest of them make room.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol


class Evictable(Protocol):
    """A connection that can be closed while its greenlet waits for input."""

    def abandon(self) -> None:
        """End the wait for input."""


class PartialHeads:
    """The connections that are receiving a head, oldest first; at most `per_address` of each client address."""

    def __init__(self, per_address: int) -> None:
        self._per_address = per_address
        self._addresses: dict[Evictable, str] = {}
        self._by_address: dict[str, dict[Evictable, None]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def add(self, connection: Evictable, address: str) -> None:
        """Register a connection; evicts the oldest of its address beyond the limit."""
        self._addresses[connection] = address
        same = self._by_address.setdefault(address, {})
        same[connection] = None
        if len(same) > self._per_address:
            self._evict(next(iter(same)))

    def remove(self, connection: Evictable) -> None:
        """Unregister a connection, if it is registered."""
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        same = self._by_address[address]
        del same[connection]
        if not same:
            del self._by_address[address]

    def evict_oldest(self, count: int) -> None:
        """Abandon up to `count` connections, those that began first."""
        for connection in list(self._addresses)[:count]:
            self._evict(connection)

    def _evict(self, connection: Evictable) -> None:
        self.remove(connection)
        with suppress(OSError):
            connection.abandon()
