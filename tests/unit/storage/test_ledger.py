"""Run ledger on each database: session leases, queues, run records, and recovery after dead gateways."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.polling import until
from support.transcripts import Transcripts

from service.core.concurrency import deadline, sleep, spawn
from service.core.errors import GatewayError
from service.core.messages import Role, Usage, text_message
from service.core.processes.identity import this_process
from service.core.signals import RunFinished, run_finished
from service.storage.cluster.membership import _Evict, _Join
from service.storage.database.open import open_database
from service.storage.runs.ledger import OpenRun
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState

GENEROUS_SECONDS = 60
KEY = "agent:main:team"


def new_run(run_id: str, *, key: str = KEY, stateless: bool = False) -> AcceptedRun:
    return AcceptedRun(run_id, key, "main", Protocol.HTTP, 1_000, stateless=stateless)


def begin(gateway: Transcripts, run_id: str, timeout_seconds: float | None = GENEROUS_SECONDS) -> OpenRun:
    return gateway.storage.ledger.open(new_run(run_id), timeout_seconds)


def saying(text: str) -> RunOutcome:
    said = (text_message(Role.USER, text),)
    return RunOutcome(RunState.OK, Usage(3, 2, 1), "a/m", "stop", messages=said, reply_count=1)


def texts(gateway: Transcripts, key: str = KEY) -> list[str]:
    return [message.text for message in gateway.load_conversation(key)]


def state_of(gateway: Transcripts, run_id: str) -> RunState | None:
    record = gateway.storage.records.get(run_id)
    return None if record is None else record.state


def finish(greenlets: list[Any]) -> None:
    with deadline(GENEROUS_SECONDS):
        for greenlet in greenlets:
            greenlet.get()


def test_run_is_recorded_at_start_and_end(ann: Transcripts) -> None:
    run = begin(ann, "r")
    active = ann.storage.records.get("r")
    assert active is not None
    assert (active.state, active.gateway_id, active.protocol) == (
        RunState.RUNNING,
        ann.storage.membership.id,
        Protocol.HTTP,
    )
    assert (active.accepted_at_ms, active.ended_at_ms) == (1_000, None)
    run.finish(saying("hello"))
    ended = ann.storage.records.get("r")
    assert ended is not None
    assert (ended.state, ended.usage, ended.model) == (RunState.OK, Usage(3, 2, 1), "a/m")
    assert (ended.stop_reason, ended.reply_count) == ("stop", 1)
    assert active.started_at_ms == ended.started_at_ms
    assert (ended.ended_at_ms or 0) >= (ended.started_at_ms or 0) > 1_000
    assert texts(ann) == ["hello"]


def test_failed_run_records_error_and_releases_session(ann: Transcripts) -> None:
    begin(ann, "r").finish(RunOutcome(RunState.ERROR, error_code="broken", error_message="It broke."))
    record = ann.storage.records.get("r")
    assert record is not None
    assert (record.state, record.error_code, record.error_message) == (RunState.ERROR, "broken", "It broke.")
    assert ann.get_session(KEY) is None
    begin(ann, "next", 0).finish(saying("hello"))
    assert texts(ann) == ["hello"]


def test_refusal_that_quotes_what_cannot_be_stored_ends_the_run(ann: Transcripts) -> None:
    ann.storage.ledger.accept(new_run("r"))
    ann.storage.ledger.refuse(new_run("r"), GatewayError("invalid_value", "Invalid reference '#/x\0y'."))
    record = ann.storage.records.get("r")
    assert record is not None
    assert (record.state, record.error_message) == (RunState.ERROR, "Invalid reference '#/x\ufffdy'.")


def test_retracted_run_leaves_no_trace(ann: Transcripts, ben: Transcripts) -> None:
    begin(ann, "r").retract()
    assert state_of(ann, "r") is None
    begin(ben, "next", 0).retract()
    assert ann.get_session(KEY) is None


def test_stateless_run_is_recorded_at_end(ann: Transcripts) -> None:
    run = ann.storage.ledger.open(new_run("r", key="alone", stateless=True), 0)
    assert state_of(ann, "r") is None
    run.finish(saying("hello"))
    assert state_of(ann, "r") is RunState.OK
    session = ann.get_session("alone")
    assert session is not None
    assert (session.stateless, session.last_run_id, session.title) == (True, "r", "hello")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_queue_timeout_is_session_busy_and_leaves_no_record(
    ann: Transcripts, ben: Transcripts, *, elsewhere: bool
) -> None:
    held = begin(ann, "held")
    waiting = ben if elsewhere else ann
    with pytest.raises(GatewayError, match="Another run of this session") as caught:
        begin(waiting, "late", 0.1)
    assert caught.value.code == "session_busy"
    until(lambda: state_of(ann, "late") is None)
    held.finish(saying("one"))
    begin(ann, "next", 0).finish(saying("two"))  # at once: no reservation remains
    begin(ben, "last", 0).finish(saying("three"))
    assert texts(ann) == ["one", "two", "three"]


def test_runs_of_one_gateway_keep_arrival_order(ann: Transcripts) -> None:
    def run(number: int) -> None:
        begin(ann, f"r{number:02}").finish(saying(str(number)))

    held = begin(ann, "held")
    waiting = [spawn(run, number) for number in range(20)]
    until(lambda: len(ann.storage.records.list_active(KEY)) == 21)
    held.finish(saying("first"))
    finish(waiting)
    assert texts(ann) == ["first", *map(str, range(20))]
    assert ann.storage.records.list_active(KEY) == ()


def test_busy_gateway_yields_session_to_waiting_gateway(ann: Transcripts, ben: Transcripts) -> None:
    def run(number: int) -> None:
        opened = begin(ann, f"r{number}")
        sleep(0.01)
        opened.finish(saying(str(number)))

    busy = [spawn(run, number) for number in range(300)]
    until(lambda: state_of(ben, "r0") is not None)
    before = len(texts(ben))
    with deadline(GENEROUS_SECONDS):
        begin(ben, "other").finish(saying("other"))
    came = texts(ben).index("other")
    for greenlet in busy:
        greenlet.kill(block=False)
    assert came - before <= 20  # out of 300


def test_runs_of_two_gateways_never_overlap(ann: Transcripts, ben: Transcripts) -> None:
    inside: list[str] = []

    def run(gateway: Transcripts, run_id: str) -> None:
        opened = begin(gateway, run_id)
        inside.append(run_id)
        sleep(0.005)
        assert inside == [run_id]
        inside.clear()
        opened.finish(saying(run_id))

    finish(
        [spawn(run, gateway, f"{number} {index}") for number in range(4) for index, gateway in enumerate((ann, ben))]
    )
    said = texts(ann)
    assert sorted(said) == sorted(f"{number} {index}" for number in range(4) for index in range(2))
    for index in "01":
        assert [one for one in said if one.endswith(index)] == [f"{number} {index}" for number in range(4)]


def test_evicted_gateway_cannot_write_and_rejoins_with_new_id(ann: Transcripts, ben: Transcripts) -> None:
    old_id = ann.storage.membership.id
    lost = begin(ann, "lost")
    assert ben.database.write(_Evict(old_id, None, 2_000))
    assert state_of(ben, "lost") is RunState.INTERRUPTED
    taken = begin(ben, "taken", 0)
    with pytest.raises(GatewayError) as caught:
        lost.finish(saying("too late"))
    assert caught.value.code == "session_lost"
    taken.finish(saying("ben"))
    assert state_of(ann, "lost") is RunState.INTERRUPTED
    begin(ann, "again").finish(saying("ann"))
    assert texts(ann) == ["ben", "ann"]
    assert ann.storage.membership.id != old_id


def test_run_cannot_write_after_its_lease_was_released(ann: Transcripts, ben: Transcripts) -> None:
    lost = begin(ann, "lost")
    alone = ann.storage.ledger.open(new_run("alone", key="alone", stateless=True), 0)
    ben.database.write(_Evict(ann.storage.membership.id, None, 2_000))
    with pytest.raises(GatewayError):
        lost.finish(saying("too late"))
    alone.finish(saying("had its session to itself"))
    assert (texts(ben), texts(ben, "alone")) == ([], ["had its session to itself"])


def test_any_gateway_can_request_abort(ann: Transcripts, ben: Transcripts) -> None:
    run = begin(ann, "r")
    other = ben.storage.ledger.open(new_run("other", key="elsewhere"), 0)
    assert [record.id for record in ben.storage.records.list_active(KEY)] == ["r"]
    assert ben.storage.records.request_abort("r")
    assert not ben.storage.records.request_abort("unknown")
    assert ann.storage.records.list_requests(ann.storage.membership.id).to_abort == ("r",)
    assert ann.storage.records.list_requests(ben.storage.membership.id).to_abort == ()
    run.finish(RunOutcome(RunState.ABORTED))
    other.finish(saying("elsewhere"))
    assert not ben.storage.records.request_abort("r")
    assert ann.storage.records.list_requests(ann.storage.membership.id).to_abort == ()
    assert state_of(ben, "r") is RunState.ABORTED


def test_leaving_gateway_releases_sessions(ann: Transcripts, ben: Transcripts) -> None:
    begin(ben, "r")
    ben.storage.membership.leave()
    assert state_of(ann, "r") is RunState.INTERRUPTED
    begin(ann, "next", 0).finish(saying("hello"))
    assert texts(ann) == ["hello"]


def begin_in_dead_process(gateway: Transcripts, *run_ids: str) -> None:
    """Begin runs as a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    own = this_process()
    row = {"host": own.host, "pid": dead.pid, "process_start": "1", "beat": 7, "started_at_ms": 0}
    gateway.database.write(_Join({"id": "dead", **row}))
    gateway.storage.membership.id, own_id = "dead", gateway.storage.membership.id
    for run_id in run_ids:
        gateway.storage.ledger.open(new_run(run_id, key=f"{KEY}{run_id}"), 0)
    gateway.storage.membership.id = own_id


def test_member_that_does_not_evict_leaves_dead_processes_to_others(ann: Transcripts) -> None:
    member = ann.storage.membership
    begin_in_dead_process(ann, "a")
    member.leave()
    member.join(evicts=False)
    member._check_peers()  # as every heartbeat does
    assert state_of(ann, "a") is RunState.RUNNING
    member.leave()
    member.join()
    assert state_of(ann, "a") is RunState.INTERRUPTED


def test_runs_of_dead_process_are_reported_once_by_who_finds_it(
    ann: Transcripts, ben: Transcripts, database_url: str | None, tmp_path: Path
) -> None:
    reported: list[RunFinished] = []
    run_finished.connect(reported.append)
    try:
        for gateway in (ann, ben):
            gateway.storage.membership.report_interrupted()
        begin_in_dead_process(ann, "a", "b")
        with closing(Transcripts(open_database(database_url, tmp_path))) as started:
            started.storage.membership.report_interrupted()
            started.storage.membership.report_interrupted()
            assert state_of(started, "a") is RunState.INTERRUPTED
            until(lambda: len(reported) == 2)
        begin(ben, "of one that leaves")
        ben.storage.membership.leave()
    finally:
        run_finished.disconnect(reported.append)
    assert sorted((one.run_id, one.outcome, one.protocol, one.agent) for one in reported) == [
        (run_id, "run_interrupted", "http", "main") for run_id in ("a", "b")
    ]
    first = reported[0]
    assert (first.has_begun, first.model, first.model_calls, first.usage.input_tokens) == (True, None, 0, 0)
    assert first.seconds is not None
    assert first.seconds >= 0


def test_runs_found_interrupted_are_not_reported_before_anybody_counts(
    ann: Transcripts, database_url: str | None, tmp_path: Path
) -> None:
    reported: list[RunFinished] = []
    run_finished.connect(reported.append)
    try:
        begin_in_dead_process(ann, "a")
        with closing(Transcripts(open_database(database_url, tmp_path))):
            until(lambda: state_of(ann, "a") is RunState.INTERRUPTED)
            assert reported == []
        ann.storage.membership.leave()
        assert [one.run_id for one in reported] == ["a"]
    finally:
        run_finished.disconnect(reported.append)


def test_sessions_of_dead_process_are_released_at_next_start(
    ann: Transcripts, database_url: str | None, tmp_path: Path
) -> None:
    begin_in_dead_process(ann, "")
    with closing(Transcripts(open_database(database_url, tmp_path))) as started:
        assert state_of(started, "") is RunState.INTERRUPTED
        assert started.storage.membership.has_peers
        begin(started, "next", 0).finish(saying("hello"))
    assert texts(ann) == ["hello"]


def test_earlier_name_of_the_websocket_protocol_is_read() -> None:
    assert Protocol("rpc") is Protocol.WEBSOCKET
    with pytest.raises(ValueError, match="door"):
        Protocol("door")
