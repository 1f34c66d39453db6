"""Limits of all connections together: unauthenticated connections and the common backlog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import gevent.socket
import pytest
from support.runs import new_run

from service.agent.events import RunEnded, TextDelta
from service.api.websocket.broadcaster import Broadcaster
from service.api.websocket.client import ConnectedClient
from service.api.websocket.connection import WebSocket
from service.api.websocket.frames import to_error
from service.api.websocket.hub import Hub, HubLimits
from service.core.byte_budget import ByteBudget
from service.core.errors import GatewayError
from service.gateway.run_registry import RunRegistry
from service.models.errors.http_errors import NonRetryableError


@contextmanager
def new_peer(hub: Hub, name: str, budget: ByteBudget | None = None) -> Iterator[ConnectedClient]:
    """A client that has joined and whose other end nobody reads."""
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        client = ConnectedClient(name, WebSocket(ours, budget=budget), ["operator.read"], [])
        with hub.register(client):
            yield client
        client.socket.drop("the test is over")
        client.socket.finish()


def test_slowest_client_is_dropped_when_common_backlog_exceeds_limit() -> None:
    hub, budget = Hub(HubLimits(), lambda: 0.0), ByteBudget(3_000_000)
    with new_peer(hub, "quick", budget) as quick, new_peer(hub, "slow", budget) as slow:
        slow.socket.send(b"x" * 2_000_000)
        quick.socket.send(b"x" * 900_000)
        assert (quick.socket.dropped, slow.socket.dropped) == (None, None)
        quick.socket.send(b"x" * 200_000)
        assert quick.socket.dropped is None
        assert slow.socket.dropped == "it reads too slowly, and others need the room"
        assert quick.socket.buffered_bytes > 0


def test_oldest_unauthenticated_connection_makes_room_in_its_address_and_among_all() -> None:
    hub, evicted = Hub(HubLimits(unknown=3, unknown_of_address=2), lambda: 0.0), list[str]()

    def enter(address: str, name: str) -> AbstractContextManager[Callable[[], None]]:
        return hub.reserve_slot(address, lambda: evicted.append(name))

    with enter("a", "a1"), enter("a", "a2") as leave, enter("b", "b1"):
        with enter("a", "a3"):
            assert evicted == ["a1"]
            with enter("c", "c1"):
                assert evicted == ["a1", "a2"]
            leave()
            leave()
        with enter("c", "c2"):
            assert evicted == ["a1", "a2"]


def test_connection_beyond_limit_is_refused() -> None:
    hub = Hub(HubLimits(connections=1), lambda: 0.0)
    with (
        new_peer(hub, "only"),
        pytest.raises(GatewayError, match="limit of WebSocket connections"),
        hub.reserve_slot("a", lambda: None),
    ):
        pytest.fail("a second one was let in")
    with hub.reserve_slot("a", lambda: None):
        pass


def test_operators_get_periodic_ticks() -> None:
    hub = Hub(HubLimits(tick_seconds=0.05), lambda: 1.5)
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        theirs.settimeout(30)
        client = ConnectedClient("a", WebSocket(ours), [], [])
        with hub.register(client):
            received = b""
            while received.count(b'"event":"tick"') < 3:
                received += theirs.recv(4096)
        assert b'"ts":1500' in received
        client.socket.drop("the test is over")
        client.socket.finish()


def test_client_that_joins_late_gets_all_earlier_text() -> None:
    hub = Hub(HubLimits(), lambda: 0.0)
    runs = RunRegistry(lambda: 0.0)
    runs.subscribe(Broadcaster(hub, lambda: 0.0))
    run = new_run()
    runs.add(run)
    run.begin()
    run.append(TextDelta("said before anybody came"))
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        theirs.settimeout(30)
        client = ConnectedClient("late", WebSocket(ours), ["operator.read"], [])
        with hub.register(client):
            run.append(RunEnded())
            received = b""
            while b"said before anybody came" not in received.partition(b'"state":"final"')[2]:
                received += theirs.recv(4096)
        client.socket.drop("the test is over")
        client.socket.finish()


def test_connection_is_refused_during_shutdown() -> None:
    hub = Hub(HubLimits(), lambda: 0.0)
    hub.drain(lambda: True)
    with pytest.raises(GatewayError) as refused, hub.reserve_slot("a", lambda: None):
        pytest.fail("a connection was let in")
    assert refused.value.code == "shutting_down"


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (GatewayError("shutting_down", "soon"), True),
        (GatewayError("rate_limit_exceeded", "soon"), True),
        (NonRetryableError("rate_limit_exceeded", "the quota is used up"), False),
        (GatewayError("run_aborted", "on purpose"), False),
        (GatewayError("invalid_value", "no"), False),
    ],
)
def test_error_is_retryable_only_if_temporary(error: GatewayError, retryable: bool) -> None:
    assert to_error(error).get("retryable", False) is retryable
