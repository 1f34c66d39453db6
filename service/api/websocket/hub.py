"""Registry of all connections, authenticated or not, and their common limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from service.api.websocket.client import ConnectedClient
from service.api.websocket.frames import to_event
from service.core.concurrency import sleep, spawn
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.principal import Principal

_DRAIN_POLL_SECONDS = 0.05

#: RFC 6455 close codes: service restart, policy violation.
RESTARTING, POLICY = 1012, 1008


@record
class HubLimits:
    """Limits of all connections together.

    `unknown` connections, `unknown_of_address` of them from one address, may be unauthenticated; the oldest make room.
    """

    connections: int = 4096
    unknown: int = 1024
    unknown_of_address: int = 64
    tick_seconds: float = 30.0


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of a connection that has not authenticated yet."""

    address: str
    evict: Callable[[], None]


class Hub:
    """The connections of one gateway.

    `clients` are the connected operators by their ids, in the order of their arrival. `clock` gives seconds since 1970.
    """

    def __init__(self, limits: HubLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._unknown: dict[_Slot, None] = {}  # oldest first
        self.clients: dict[str, ConnectedClient] = {}
        self._ticking = False
        self._draining = False

    def __len__(self) -> int:
        """Return the number of connected operators."""
        return len(self.clients)

    def __iter__(self) -> Iterator[ConnectedClient]:
        """Iterate over a snapshot of the operators, in the order of their arrival."""
        return iter(tuple(self.clients.values()))

    @contextmanager
    def reserve_slot(self, address: str, evict: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Reserve a slot for an unauthenticated connection, until the block ends or the returned function is called.

        When there are too many of its address, or of all, the oldest one's `evict` is called, so that silent ones do
        not keep others out. Raises `GatewayError` (`too_many_connections`, `shutting_down`).
        """
        self._make_room(address)
        slot = _Slot(address, evict)
        self._unknown[slot] = None

        def leave() -> None:
            self._unknown.pop(slot, None)

        try:
            yield leave
        finally:
            leave()

    def _make_room(self, address: str) -> None:
        if self._draining:
            raise GatewayError("shutting_down", "The gateway is shutting down. Try again soon.")
        same = [slot for slot in self._unknown if slot.address == address]
        if len(same) >= self.limits.unknown_of_address:
            self._evict(same[0])
        elif self._unknown and self._is_full:
            self._evict(next(iter(self._unknown)))
        if len(self.clients) + len(self._unknown) >= self.limits.connections:
            text = "The gateway has reached its limit of WebSocket connections. Try again later."
            raise GatewayError("too_many_connections", text, headers={"Retry-After": "10"})

    @property
    def _is_full(self) -> bool:
        unknown = len(self._unknown)
        return unknown >= self.limits.unknown or len(self.clients) + unknown >= self.limits.connections

    def _evict(self, slot: _Slot) -> None:
        del self._unknown[slot]
        slot.evict()

    @contextmanager
    def register(self, client: ConnectedClient) -> Iterator[None]:
        """Send events to `client` while the block runs."""
        self.clients[client.id] = client
        if not self._ticking:
            self._ticking = True
            spawn(self._tick)
        try:
            yield
        finally:
            del self.clients[client.id]

    def broadcast(self, event: str, payload: object) -> None:
        """Send an event to every operator that may read."""
        encoded = orjson.dumps(payload)
        for client in self:
            if client.may_read:
                client.send_event(event, encoded)

    def dismiss(self, reason: str, is_valid: Callable[[Principal], object] = lambda _: False) -> None:
        """Close the connection of every operator that is not valid; those with valid credentials can reconnect."""
        for client in self:
            if not is_valid(client.principal):
                client.socket.close(POLICY, reason)

    def drain(self, is_idle: Callable[[], bool]) -> None:
        """Announce the shutdown; close every connection once `is_idle()`. Does not block."""
        if not self._draining:
            self._draining = True
            self.broadcast("shutdown", {"reason": "the gateway is stopping"})
            spawn(self._close_when, is_idle)

    def _close_when(self, is_idle: Callable[[], bool]) -> None:
        while not is_idle():
            sleep(_DRAIN_POLL_SECONDS)
        sleep(_DRAIN_POLL_SECONDS)  # the last responses have yet to be sent
        for client in self:
            client.socket.close(RESTARTING, "service restart")

    def _tick(self) -> None:
        while self.clients:
            sleep(self.limits.tick_seconds)
            self._send_ticks()
        self._ticking = False

    def _send_ticks(self) -> None:
        frame = to_event("tick", orjson.dumps({"ts": int(self._clock() * 1000)}))
        for client in self:
            client.socket.send(frame)
