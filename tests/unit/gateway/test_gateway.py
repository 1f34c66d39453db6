"""Runs named by callers, in processes that share a database: one name is one run in every state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from support.live import scripted_config
from support.polling import until

from service.agent.conversation import IncomingMessage
from service.agent.request import AgentRequest
from service.agent.run import Run
from service.config.schema import parse_config
from service.config.source import Locations
from service.core.concurrency import deadline, sleep, spawn
from service.core.dataclass import replace
from service.core.errors import GatewayError
from service.core.messages import Role, text_message
from service.core.principal import ADMINISTRATOR
from service.gateway.build import open_gateway
from service.gateway.gateway import MAX_NAMED_RUNS, Gateway
from service.storage.database.open import FILE_NAME
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import AcceptedRun, Protocol, RunState

GENEROUS_SECONDS = 60
SESSION = "agent:main:named"


def request(run_id: str, text: str = "hi", model: str = "scripted/echo", session: str = SESSION) -> AgentRequest:
    return AgentRequest(
        principal=ADMINISTRATOR,
        messages=(IncomingMessage("message", text_message(Role.USER, text)),),
        agent_id="main",
        provider_model=model,
        session_key=session,
        idempotency_key=IdempotencyKey.of(f"rpc\0{run_id}", f"{text} {model}".encode(errors="replace")),
        run_id=run_id,
        protocol=Protocol.WEBSOCKET,
    )


@pytest.fixture
def gateways(database_url: str | None, tmp_path: Path) -> Iterator[list[Gateway]]:
    """Two gateways of one database."""
    config, _ = parse_config(scripted_config())
    locations = Locations(tmp_path / "openclaw.json", tmp_path, dev=False)
    environ = {} if database_url is None else {"OPENCLAW_STATE_URL": database_url}
    with ExitStack() as stack:
        yield [stack.enter_context(closing(open_gateway(config, locations, environ))) for _ in range(2)]


def ended(run: Run) -> Run:
    assert run.wait_for_end(GENEROUS_SECONDS) is not None
    return run


def code_of(run: Run) -> str | None:
    assert run.end is not None
    return None if run.end.error is None else run.end.error.code


def transcript(gateway: Gateway) -> list[str]:
    return [message.text for message in gateway.storage.transcripts.load_conversation(SESSION)]


def outcome(gateway: Gateway, asked: AgentRequest) -> str | None:
    """The code of the error a request ends with, at once or later."""
    try:
        return code_of(ended(gateway.submit(asked)))
    except GatewayError as error:
        return error.code


def until_state(gateway: Gateway, run_id: str, state: RunState) -> None:
    until(lambda: (record := gateway.storage.records.get(run_id)) is not None and record.state is state)


def test_name_submitted_to_two_processes_at_once_is_one_run(gateways: list[Gateway]) -> None:
    names = [f"run {number}" for number in range(10)]
    runs = [gateway.submit(request(name, name)) for name in names for gateway in gateways]
    assert [(code_of(ended(run)), run.text) for run in runs] == [(None, name) for name in names for _ in gateways]
    for gateway in gateways:
        assert sorted(transcript(gateway)) == sorted(names * 2)  # each a question and its echo
    assert all(gateway.storage.records.list_active(SESSION) == () for gateway in gateways)


def test_second_request_with_same_name_is_refused_and_first_stays_known(gateways: list[Gateway]) -> None:
    names = [f"run {number}" for number in range(10)]
    asked = [(name, text, gateway) for name in names for text, gateway in zip(("one", "two"), gateways, strict=True)]
    asking = [spawn(outcome, gateway, request(name, text)) for name, text, gateway in asked]
    with deadline(GENEROUS_SECONDS):
        codes = {(name, text): greenlet.get() for (name, text, _), greenlet in zip(asked, asking, strict=True)}
    won = {name: text for (name, text), code in codes.items() if code is None}
    assert list(won) == names
    assert sorted(str(code) for code in codes.values()) == ["None"] * 10 + ["idempotency_key_reused"] * 10
    for name, text in won.items():
        for gateway in gateways:  # the request that was too late does not block the one that has the name
            run = ended(gateway.submit(request(name, text)))
            assert (code_of(run), run.text) == (None, text)
            assert outcome(gateway, request(name, "two" if text == "one" else "one")) == "idempotency_key_reused"
    assert sorted(transcript(gateways[0])) == sorted(2 * list(won.values()))


def test_name_of_other_process_is_replayed_and_aborted_there(gateways: list[Gateway]) -> None:
    here, there = gateways
    waiting = here.submit(request("waiting", model="scripted/silent"))
    until_state(here, "waiting", RunState.RUNNING)
    replay = there.submit(request("waiting", model="scripted/silent"))
    assert (replay.is_replay, there.running, there.submit(request("waiting", model="scripted/silent"))) == (
        True,
        0,
        replay,
    )
    assert outcome(there, request("waiting", "another text")) == "idempotency_key_reused"
    assert there.abort("waiting")
    assert code_of(ended(replay)) == code_of(ended(waiting)) == "run_aborted"


def test_concurrent_requests_with_name_of_other_session_are_refused(
    gateways: list[Gateway],
) -> None:
    ended(gateways[0].submit(request("taken")))
    asking = [spawn(outcome, gateways[1], request("taken", session="agent:main:other")) for _ in range(3)]
    with deadline(GENEROUS_SECONDS):
        assert [greenlet.get() for greenlet in asking] == ["invalid_value"] * 3
    assert gateways[1].runs.active() == ()
    assert gateways[1].runs.find("taken") is None


def test_name_of_run_of_other_session_is_refused(gateways: list[Gateway]) -> None:
    run = gateways[0].submit(request("known", model="scripted/silent"))
    assert outcome(gateways[0], request("known", session="agent:main:other")) == "invalid_value"
    run.abort()
    assert code_of(ended(run)) == "run_aborted"


def test_queued_run_keeps_no_copy_of_its_request(gateways: list[Gateway]) -> None:
    text = "x" * 1_000_000
    holder = gateways[0].submit(request("holder", model="scripted/silent"))
    until_state(gateways[0], "holder", RunState.RUNNING)
    run = gateways[0].submit(request("waits", text))
    assert run.state is RunState.QUEUED
    assert run.key is not None
    kept = [*vars(run).values(), run.key.key_hash, run.key.fingerprint]
    assert sum(len(value) for value in kept if isinstance(value, str | bytes)) < 1_000
    assert gateways[0].submit(request("waits", text)) is run
    holder.abort()
    assert code_of(ended(run)) is None


def test_submit_returns_at_once_for_busy_session_and_run_waits(gateways: list[Gateway]) -> None:
    here = gateways[0]
    holder = here.submit(request("holder", model="scripted/silent"))
    until_state(here, "holder", RunState.RUNNING)
    with deadline(GENEROUS_SECONDS):
        queued = [here.submit(request(name)) for name in ("second", "third")]
    sleep(0.1)
    assert [run.state for run in queued] == [RunState.QUEUED] * 2
    assert here.get_run("second", ADMINISTRATOR).state is RunState.QUEUED
    assert here.abort("second")
    assert code_of(ended(queued[0])) == "run_aborted"
    holder.abort()
    assert (code_of(ended(queued[1])), queued[1].state) == (None, RunState.OK)


def test_draining_refuses_queued_and_further_runs_and_running_ones_continue(gateways: list[Gateway]) -> None:
    here = gateways[0]
    running = here.submit(request("running", "hello", model="scripted/slow"))
    until_state(here, "running", RunState.RUNNING)
    until(lambda: running.has_begun)  # a moment after the record says so
    queued = here.submit(request("queued"))
    here.drain()
    assert code_of(ended(queued)) == "shutting_down"
    assert outcome(here, request("late")) == "shutting_down"
    assert running.end is None
    assert code_of(ended(running)) is None


def test_number_of_named_runs_is_limited(gateways: list[Gateway]) -> None:
    here = gateways[0]
    held = [here.submit(request(f"run {number}", model="scripted/silent")) for number in range(MAX_NAMED_RUNS)]
    assert outcome(here, request("one more")) == "too_many_runs"
    assert here.submit(request("run 0", model="scripted/silent")) is held[0]


def test_recorded_run_that_no_process_executes_can_be_aborted(gateways: list[Gateway]) -> None:
    here, there = gateways
    for number, gateway in enumerate(gateways):
        run_id = f"forgotten {number}"
        _claim_and_forget(here, run_id)
        assert gateway.abort(run_id)  # by the gateway itself, and as another one asks
        until_state(here, run_id, RunState.ABORTED)
        assert not gateway.abort(run_id)
    ended(there.submit(request("after")))
    assert transcript(there) == ["hi", "hi"]


def test_refused_run_ends_although_the_database_cannot_be_read(tmp_path: Path) -> None:
    config, _ = parse_config(scripted_config(limits={"total": {"requestsPerMinute": 1}}))
    locations = Locations(tmp_path / "openclaw.json", tmp_path, dev=False)
    with deadline(GENEROUS_SECONDS), closing(open_gateway(config, locations, {})) as gateway:
        ended(gateway.submit(request("first")))
        assert outcome(gateway, request("second")) == "rate_limit_exceeded"
        (tmp_path / FILE_NAME).rename(tmp_path / "gone")
        assert outcome(gateway, request("third")) in ("rate_limit_exceeded", "storage_unavailable")
        assert gateway.runs.active() == ()
        (tmp_path / "gone").rename(tmp_path / FILE_NAME)


@pytest.mark.parametrize("detached", [True, False])
def test_run_whose_outcome_cannot_be_stored_releases_its_session(gateways: list[Gateway], *, detached: bool) -> None:
    unfit = replace(request("unfit"), messages=request("", "\ud800").messages, detached=detached)
    for gateway in gateways:
        run = ended(gateway.submit(replace(unfit, run_id=None, idempotency_key=None)))
        assert run.end is not None
        assert run.end.error is not None
        record = gateway.get_run(run.id, ADMINISTRATOR)
        assert (record.state, record.error_code) == (RunState.ERROR, "internal_error")
    assert outcome(gateways[0], request("next")) is None
    assert gateways[0].storage.records.list_active(SESSION) == ()


def _claim_and_forget(gateway: Gateway, run_id: str) -> None:
    """Record a run as the gateway's, as a claim does whose caller left, with nobody to take it back."""
    storage = gateway.storage
    new = AcceptedRun(
        run_id, SESSION, "main", Protocol.WEBSOCKET, storage.ledger.now_ms(), stateless=False, claimed=True
    )
    assert storage.claims.claim(IdempotencyKey.of(run_id, b""), new, storage.membership.id).is_own


def test_known_run_is_not_taken_for_forgotten(gateways: list[Gateway]) -> None:
    here, there = gateways
    run = here.submit(request("known", model="scripted/silent"))
    until_state(here, "known", RunState.RUNNING)
    record = there.storage.records.get("known")
    assert record is not None
    assert not here.storage.ledger.end_forgotten(record)
    assert not there.storage.ledger.end_forgotten(record)
    run.abort()
    assert code_of(ended(run)) == "run_aborted"
    assert here.storage.ledger._known == set()
