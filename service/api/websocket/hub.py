"""Everybody who is connected: operators, those who have not said who they are, and what they may cost together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import orjson

from service.api.websocket.client import ConnectedClient
from service.api.websocket.connection import MAX_BUFFERED_BYTES
from service.api.websocket.frames import to_event
from service.core.concurrency import sleep, spawn
from service.core.dataclass import record
from service.core.errors import GatewayError

_DRAIN_LOOK_SECONDS = 0.05

#: RFC 6455's registry: the service restarts, come again; somebody may not be here.
RESTARTING, POLICY = 1012, 1008


@record
class HubLimits:
    """What connections may cost together.

    `unknown` connections, and `unknown_of_address` of one address, may wait to be told who they are;
    `backlog_bytes` may wait to be read by all: then the slowest is dropped.
    """

    connections: int = 4096
    unknown: int = 1024
    unknown_of_address: int = 64
    backlog_bytes: int = 8 * MAX_BUFFERED_BYTES
    tick_seconds: float = 30.0


class Hub:
    """The connections of one gateway. `clock` gives seconds since 1970."""

    def __init__(self, limits: HubLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._unknown: Counter[str] = Counter()
        self._peers: dict[str, ConnectedClient] = {}
        self._backlog_bytes = 0
        self._ticking = False
        self._draining = False

    def __len__(self) -> int:
        """How many operators are connected."""
        return len(self._peers)

    def __iter__(self) -> Iterator[ConnectedClient]:
        """The operators, in the order they came; they may come and go meanwhile."""
        return iter(tuple(self._peers.values()))

    @contextmanager
    def stranger(self, address: str) -> Iterator[Callable[[], None]]:
        """Room for a connection of somebody unknown, until the block ends or what it gives is called.

        Raises `GatewayError` (`too_many_connections`, `shutting_down`).
        """
        self._check_room(address)
        self._unknown[address] += 1
        inside = [address]

        def leave() -> None:
            if inside:
                self._unknown[inside.pop()] -= 1
                self._unknown += Counter()  # forgets those who have none

        try:
            yield leave
        finally:
            leave()

    def _check_room(self, address: str) -> None:
        if self._draining:
            raise GatewayError("shutting_down", "The gateway is shutting down. Try again soon.")
        unknown = self._unknown.total()
        if self._unknown[address] >= self.limits.unknown_of_address or unknown >= self.limits.unknown:
            text = "Too many connections have not authenticated yet. Send `connect` at once, and try again in a moment."
        elif len(self._peers) + unknown >= self.limits.connections:
            text = "The gateway has as many WebSocket connections as it takes. Try again when others have ended."
        else:
            return
        raise GatewayError("too_many_connections", text, headers={"Retry-After": "10"})

    @contextmanager
    def joined(self, peer: ConnectedClient) -> Iterator[None]:
        """While the block runs `peer` is told what happens."""
        self._peers[peer.id] = peer
        if not self._ticking:
            self._ticking = True
            spawn(self._tick)
        try:
            yield
        finally:
            del self._peers[peer.id]

    def tell(self, event: str, payload: object) -> None:
        """Send an event to every operator that may know."""
        encoded = orjson.dumps(payload)
        for peer in self:
            if peer.may_read:
                peer.tell(event, encoded)

    def count_backlog(self, change: int) -> None:
        """The backlog of some connection grew or shrank by `change` bytes."""
        self._backlog_bytes += change
        if self._backlog_bytes > self.limits.backlog_bytes and change > 0 and self._peers:
            slowest = max(self._peers.values(), key=lambda peer: peer.socket.buffered_bytes)
            slowest.socket.drop("it reads too slowly, and others need the room")

    def dismiss(self, reason: str) -> None:
        """Close every operator's connection: whoever still may can connect again."""
        for peer in self:
            peer.socket.close(POLICY, reason)

    def drain(self, is_idle: Callable[[], bool]) -> None:
        """Say that the end is near; close every connection once `is_idle()`. Does not wait."""
        if not self._draining:
            self._draining = True
            self.tell("shutdown", {"reason": "the gateway is stopping"})
            spawn(self._close_when, is_idle)

    def _close_when(self, is_idle: Callable[[], bool]) -> None:
        while not is_idle():
            sleep(_DRAIN_LOOK_SECONDS)
        sleep(_DRAIN_LOOK_SECONDS)  # whoever waited for a run has yet to tell its end
        for peer in self:
            peer.socket.close(RESTARTING, "service restart")

    def _tick(self) -> None:
        while self._peers:
            sleep(self.limits.tick_seconds)
            self._send_ticks()
        self._ticking = False

    def _send_ticks(self) -> None:
        frame = to_event("tick", orjson.dumps({"ts": int(self._clock() * 1000)}))
        for peer in self:
            peer.socket.send(frame)
