"""Runs asked for by name, by gateways that share a database: one name is one run, and costs little while it waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import fields
from pathlib import Path

import pytest
from support.live import scripted_config

from service.agent.conversation import IncomingMessage
from service.agent.request import AgentRequest
from service.api.websocket.starts import Start, Starts
from service.config.schema import parse_config
from service.config.source import Locations
from service.core.concurrency import deadline, sleep, spawn
from service.core.errors import GatewayError
from service.core.messages import Role, text_message
from service.gateway.build import open_gateway
from service.gateway.gateway import Gateway
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import NewRun, RunState

GENEROUS_SECONDS = 60
SESSION = "agent:main:named"


class HttpSettings:
    """One gateway and those who ask it for runs by name."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.starts = Starts(gateway, gateway._clock)

    def begin(self, run_id: str, text: str = "hi", model: str = "scripted/echo", session: str = SESSION) -> Start:
        turn = AgentRequest(
            messages=(IncomingMessage("message", text_message(Role.USER, text)),),
            agent_id="main",
            provider_model=model,
            session_key=session,
        )
        asked = f"{session} {text} {model}".encode()
        return self.starts.begin(turn, run_id=run_id, session_key=session, agent_id="main", asked=asked)


@pytest.fixture
def doors(database_url: str | None, tmp_path: Path) -> Iterator[list[HttpSettings]]:
    """Two gateways of one database."""
    config, _ = parse_config(scripted_config())
    locations = Locations(tmp_path / "openclaw.json", tmp_path, dev=False)
    environ = {} if database_url is None else {"OPENCLAW_STATE_URL": database_url}
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(open_gateway(config, locations, environ))) for _ in range(2)]
        yield [HttpSettings(gateway) for gateway in opened]


def over(start: Start) -> Start:
    with deadline(GENEROUS_SECONDS):
        start.over.wait()
    return start


def code_of(start: Start) -> str | None:
    assert start.end is not None
    return None if start.end.error is None else start.end.error.code


def said(door: HttpSettings) -> list[str]:
    return [message.text for message in door.gateway.state.store.load_conversation(SESSION)]


def test_one_name_asked_for_by_two_gateways_at_once_is_one_run(doors: list[HttpSettings]) -> None:
    names = [f"run {number}" for number in range(10)]
    starts = [door.begin(name, name) for name in names for door in doors]
    assert [(code_of(over(start)), start.text) for start in starts] == [(None, name) for name in names for _ in doors]
    for door in doors:
        assert sorted(said(door)) == sorted(names * 2)  # each a question and its echo
    assert all(door.gateway.state.records.list_going_on(SESSION) == () for door in doors)


def test_of_two_requests_with_one_name_one_is_refused_and_the_other_stays_known(doors: list[HttpSettings]) -> None:
    names = [f"run {number}" for number in range(10)]
    asked = [(name, text, door) for name in names for text, door in zip(("one", "two"), doors, strict=True)]
    asking = [spawn(ask, door, name, text) for name, text, door in asked]
    with deadline(GENEROUS_SECONDS):
        codes = {(name, text): greenlet.get() for (name, text, _), greenlet in zip(asked, asking, strict=True)}
    won = {name: text for (name, text), code in codes.items() if code is None}
    assert list(won) == names
    assert sorted(str(code) for code in codes.values()) == ["None"] * 10 + ["invalid_value"] * 10
    for name, text in won.items():
        for door in doors:  # whoever was too late does not stand in the way of the request that has the name
            start = over(door.begin(name, text))
            assert (code_of(start), start.text) == (None, text)
            assert ask(door, name, "two" if text == "one" else "one") == "invalid_value"
    assert sorted(said(doors[0])) == sorted(2 * list(won.values()))


def ask(door: HttpSettings, name: str, text: str, session: str = SESSION) -> str | None:
    """The code of the error that a request ends with, at once or later."""
    try:
        return code_of(over(door.begin(name, text, session=session)))
    except GatewayError as error:
        return error.code


def test_a_name_is_known_to_whoever_is_asked_later(doors: list[HttpSettings]) -> None:
    here, there = doors
    waiting = here.begin("waiting", model="scripted/silent")
    eventually_running(here, "waiting")
    elsewhere = there.begin("waiting", model="scripted/silent")
    assert elsewhere.run is not None
    with pytest.raises(GatewayError, match="belongs to another request"):
        there.begin("waiting", "another text")
    assert there.gateway.abort("waiting")
    assert code_of(over(elsewhere)) == code_of(over(waiting)) == "run_aborted"


def eventually_running(door: HttpSettings, run_id: str) -> None:
    with deadline(GENEROUS_SECONDS):
        while (record := door.gateway.state.records.get(run_id)) is None or record.state is not RunState.RUNNING:
            sleep(0.01)


def test_whoever_asks_while_a_name_is_looked_up_hears_that_it_is_refused(doors: list[HttpSettings]) -> None:
    over(doors[0].begin("taken"))
    asking = [spawn(ask, doors[1], "taken", "hi", "agent:main:other") for _ in range(3)]
    with deadline(GENEROUS_SECONDS):
        assert [greenlet.get() for greenlet in asking] == ["invalid_value"] * 3
    assert len(doors[1].starts) == 0


def test_of_a_message_that_waits_only_hashes_are_kept_besides(doors: list[HttpSettings]) -> None:
    text = "x" * 1_000_000
    holder = doors[0].begin("holder", model="scripted/silent")
    eventually_running(doors[0], "holder")
    start = doors[0].begin("waits", text)
    kept = [getattr(start, one.name) for one in fields(start)]
    kept += [getattr(start.key, one.name) for one in fields(start.key)]
    assert sum(len(value) for value in kept if isinstance(value, str | bytes)) < 1_000
    assert doors[0].begin("waits", text) is start
    holder.abort()
    assert code_of(over(start)) is None


def test_what_is_recorded_as_a_gateways_and_goes_on_nowhere_can_be_ended(doors: list[HttpSettings]) -> None:
    here, there = doors
    state = here.gateway.state
    for number, door in enumerate(doors):
        run_id = f"forgotten {number}"
        _claim_and_forget(here, run_id)
        assert door.gateway.abort(run_id)  # by the gateway itself, and as another one asks
        with deadline(GENEROUS_SECONDS):
            while (record := state.records.get(run_id)) is None or record.state is not RunState.ABORTED:
                sleep(0.02)
        assert not door.gateway.abort(run_id)
    over(there.begin("after"))
    assert said(there) == ["hi", "hi"]


def _claim_and_forget(door: HttpSettings, run_id: str) -> None:
    """Record a run as the gateway's as a claim does that its caller left, with nobody to take it back."""
    state = door.gateway.state
    new = NewRun(run_id, SESSION, "main", "rpc", state.ledger.now_ms(), stateless=False, claimed=True)
    assert state.claims.claim(IdempotencyKey.of(run_id, b""), new, state.membership.id).is_own


def test_a_run_that_is_known_is_not_taken_for_forgotten(doors: list[HttpSettings]) -> None:
    here, there = doors
    start = here.begin("known", model="scripted/silent")
    eventually_running(here, "known")
    record = there.gateway.state.records.get("known")
    assert record is not None
    assert not here.gateway.state.ledger.end_forgotten(record)
    assert not there.gateway.state.ledger.end_forgotten(record)
    start.abort()
    assert code_of(over(start)) == "run_aborted"
    assert here.gateway.state.ledger._known == set()
