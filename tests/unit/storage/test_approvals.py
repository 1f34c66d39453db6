"""Approvals on each database: decided once, from any gateway, and closed with their gateway."""

from __future__ import annotations

from dataclasses import asdict, replace
from time import monotonic

import pytest
from support.transcripts import Transcripts

from service.config.sessions import MaintenanceConfig
from service.core.concurrency import deadline, sleep, spawn
from service.core.errors import GatewayError
from service.core.messages import ApprovalDecision, Role, ToolApproval, text_message
from service.storage.cluster.membership import _Evict
from service.storage.runs.approvals import NO_RUN, ApprovalRecord, ApprovalState, NewApproval, _Create
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.pruning import Pruner

GENEROUS_SECONDS = 60
KEY = "agent:main:team"
NEW = NewApproval("a", KEY, "run", "main", "write", "{}", "call", "write", 1_000, 601_000)
ALLOW, SESSION, DENY = ApprovalDecision.ALLOW_ONCE, ApprovalDecision.ALLOW_SESSION, ApprovalDecision.DENY


def named(approval_id: str, **changes: object) -> NewApproval:
    return replace(NEW, id=approval_id, **changes)  # type: ignore[arg-type]


def test_pending_approvals_are_listed_oldest_first(ann: Transcripts) -> None:
    approvals = ann.storage.approvals
    approvals.create([named("b", created_at_ms=2), named("a", created_at_ms=3), named("c", created_at_ms=1)])
    assert [one.id for one in approvals.list_pending(2)] == ["c", "b"]
    assert approvals.get("a") == ApprovalRecord(
        "a", KEY, "run", "main", "write", "{}", "call", "write", 3, 601_000, state=ApprovalState.PENDING
    )
    assert approvals.get("x") is None


def test_other_gateway_decides_and_waiting_one_notices(ann: Transcripts, ben: Transcripts) -> None:
    approvals = ann.storage.approvals
    ann.storage.membership.on_poll = approvals.check
    approvals.create([NEW])

    def decide() -> None:
        sleep(0.2)
        ben.storage.approvals.decide("a", ALLOW, "ben\0")

    decider = spawn(decide)
    began_at = monotonic()
    approvals.wait(["a"], GENEROUS_SECONDS)
    decider.join()
    assert monotonic() - began_at < GENEROUS_SECONDS
    (closed,) = approvals.close(["a"], "run", ApprovalState.EXPIRED, DENY)
    assert (closed.state, closed.decision, closed.decided_by) == (ApprovalState.DECIDED, ALLOW, "ben\ufffd")


def test_first_decision_counts(ann: Transcripts, ben: Transcripts) -> None:
    ann.storage.approvals.create([NEW])
    outcomes: list[str] = []

    def decide(gateway: Transcripts, decision: ApprovalDecision) -> None:
        try:
            outcomes.append(gateway.storage.approvals.decide("a", decision, "somebody").decision or "")
        except GatewayError as error:
            outcomes.append(error.code)

    deciders = [spawn(decide, gateway, decision) for gateway in (ann, ben) for decision in (DENY, ALLOW)]
    with deadline(GENEROUS_SECONDS):
        for one in deciders:
            one.join()
    assert outcomes.count("approval_closed") == 3
    found = ann.storage.approvals.get("a")
    assert found is not None
    assert [one for one in outcomes if one != "approval_closed"] == [found.decision]


@pytest.mark.parametrize("decision", [ALLOW, DENY])
def test_expiry_does_not_change_decision(ann: Transcripts, decision: ApprovalDecision) -> None:
    approvals = ann.storage.approvals
    approvals.create([NEW, named("b")])
    approvals.decide("a", decision, "ann")
    approvals.wait(["a", "b"], 0.01)
    decided, expired = approvals.close(["a", "b"], "run", ApprovalState.EXPIRED, DENY)
    assert (decided.state, decided.decision) == (ApprovalState.DECIDED, decision)
    assert (expired.state, expired.decision, expired.decided_by) == (ApprovalState.EXPIRED, DENY, None)
    with pytest.raises(GatewayError, match="closed already"):
        approvals.decide("b", ALLOW, "ann")


def test_changes_are_reported_once(ann: Transcripts) -> None:
    approvals, seen = ann.storage.approvals, []
    approvals.on_change = lambda one: seen.append((one.id, one.state))
    approvals.create([NEW, named("b")])
    approvals.decide("a", DENY, "ann")
    approvals.close(["a", "b"], "run", ApprovalState.CANCELLED)
    approvals.close(["a", "b"], "run", ApprovalState.CANCELLED)
    assert seen == [("a", "pending"), ("b", "pending"), ("a", "decided"), ("b", "cancelled")]


def test_decision_for_session_needs_subject_and_covers_it(ann: Transcripts) -> None:
    approvals = ann.storage.approvals
    approvals.create([NEW, named("b", subject=None), named("c", subject="exec 1")])
    approvals.decide("a", SESSION, "ann")
    with pytest.raises(GatewayError) as refused:
        approvals.decide("b", SESSION, "ann")
    assert (refused.value.code, refused.value.param) == ("invalid_value", "decision")
    approvals.decide("c", ALLOW, "ann")
    assert set(approvals.find_grants(KEY, ["write", "exec 1"])) == {"write"}
    assert approvals.find_grants("agent:main:other", ["write"]) == {}
    assert approvals.find_grants(KEY, []) == {}


def test_run_with_pending_approval_is_waiting(ann: Transcripts) -> None:
    opened = ann.storage.ledger.open(AcceptedRun("run", KEY, "main", Protocol.HTTP, 1_000, stateless=False), None)
    ann.storage.approvals.create([NEW])
    found = ann.storage.records.get("run")
    assert found is not None
    assert found.state is RunState.WAITING
    assert [one.state for one in ann.storage.records.list_active(KEY)] == [RunState.WAITING]
    ann.storage.approvals.decide("a", ALLOW, "ann")
    assert [one.state for one in ann.storage.records.list_active(KEY)] == [RunState.RUNNING]
    opened.retract()


def test_approval_of_dead_gateway_is_taken_over_by_next_run(ann: Transcripts, ben: Transcripts) -> None:
    ann.storage.ledger.open(AcceptedRun("run", KEY, "main", Protocol.HTTP, 1_000, stateless=False), None)
    ann.storage.approvals.create([NEW])
    ben.database.write(_Evict(ann.storage.membership.id, None, 5_000))
    run = ben.storage.records.get("run")
    assert run is not None
    assert run.state is RunState.INTERRUPTED
    approvals = ben.storage.approvals
    left = approvals.get("a")
    assert left is not None
    assert left.state is ApprovalState.PENDING
    again = named("b", run_id="again", tool_call_id="other", created_at_ms=6_000, expires_at_ms=606_000)
    (taken,) = approvals.create([again])
    assert taken == ApprovalRecord(**asdict(again) | {"id": "a", "created_at_ms": 1_000}, state=ApprovalState.PENDING)
    assert approvals.decide("a", ALLOW, "ben").run_id == "again"


def test_decision_behind_death_counts_once(ann: Transcripts, ben: Transcripts) -> None:
    ann.storage.approvals.create([NEW])
    ben.database.write(_Evict(ann.storage.membership.id, None, 5_000))
    approvals = ben.storage.approvals
    approvals.decide("a", DENY, "ben")
    first, second = approvals.create([named(name, run_id="again", created_at_ms=6_000) for name in "bc"])
    assert (first.id, first.decision, first.decided_by) == ("a", DENY, "ben")
    assert (second.id, second.state) == ("c", ApprovalState.PENDING)


def test_creation_whose_commit_was_not_acknowledged_is_repeated(ann: Transcripts, ben: Transcripts) -> None:
    ann.storage.approvals.create([NEW])
    ben.database.write(_Evict(ann.storage.membership.id, None, 5_000))
    ben.storage.approvals.decide("a", ALLOW, "ben")
    later = {"run_id": "again", "created_at_ms": 6_000, "expires_at_ms": 606_000}
    creation = _Create([named("b", **later), named("c", tool_call_id="c", **later)], ben.storage.membership.id)
    first = ben.database.write(creation)
    creation.again = True  # as after a connection that broke during the commit
    assert [one.id for one in ben.database.write(creation)] == [one.id for one in first] == ["a", "c"]


@pytest.mark.parametrize(
    "other",
    [
        named("b", session_key="agent:main:other"),
        named("b", tool="edit"),
        named("b", arguments='{"a":1}'),
        named("b", subject=NO_RUN),
        named("b", created_at_ms=NEW.expires_at_ms),
    ],
    ids=["session", "tool", "arguments", "client's own", "too late"],
)
def test_decision_is_not_taken_over_by_others(ann: Transcripts, ben: Transcripts, other: NewApproval) -> None:
    ann.storage.approvals.create([NEW])
    ben.database.write(_Evict(ann.storage.membership.id, None, 5_000))
    ben.storage.approvals.decide("a", ALLOW, "ben")
    (new,) = ben.storage.approvals.create([other])
    assert (new.id, new.state) == ("b", ApprovalState.PENDING)


def test_decision_before_death_is_not_taken_over(ann: Transcripts, ben: Transcripts) -> None:
    # The call may have been made already.
    ann.storage.approvals.create([NEW])
    ann.storage.approvals.decide("a", ALLOW, "ann")
    ben.database.write(_Evict(ann.storage.membership.id, None, 5_000))
    (new,) = ben.storage.approvals.create([named("b", run_id="again", created_at_ms=6_000)])
    assert (new.id, new.state) == ("b", ApprovalState.PENDING)


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_gateway_that_was_only_paused_does_not_get_the_decision(
    ann: Transcripts, ben: Transcripts, is_taken_over: bool
) -> None:
    ann.storage.approvals.create([NEW])
    ben.database.write(_Evict(ann.storage.membership.id, None, 5_000))
    if is_taken_over:
        ben.storage.approvals.create([named("b", run_id="again", created_at_ms=6_000)])
    ben.storage.approvals.decide("a", ALLOW, "ben")
    (lost,) = ann.storage.approvals.close(["a"], "run", ApprovalState.EXPIRED)
    assert (lost.state, lost.decision) == (ApprovalState.INTERRUPTED, None)
    found = ben.storage.approvals.get("a")
    assert found is not None
    assert found.decision is ALLOW


def test_approval_of_evicted_gateway_stays_until_it_expires(ann: Transcripts, ben: Transcripts) -> None:
    now_ms = ben.storage.approvals.now_ms()
    ben.database.write(_Evict(ann.storage.membership.id, None, 5_000))
    ann.storage.approvals.create([NEW, named("b", expires_at_ms=now_ms + 600_000)])
    ben.storage.membership._check_peers()
    assert [one.id for one in ben.storage.approvals.list_pending(9)] == ["b"]
    ben.storage.membership._check_peers()
    states = [one.state for one in map(ben.storage.approvals.get, "ab") if one is not None]
    assert states == [ApprovalState.EXPIRED, ApprovalState.PENDING]


def test_approvals_of_ended_runs_stay_when_gateway_stops(ann: Transcripts, ben: Transcripts) -> None:
    ann.storage.approvals.create([NEW])
    ann.storage.approvals.stop()
    assert ann.storage.approvals.cancel(["a"], "run") == ()
    ann.storage.membership.leave()
    (taken,) = ben.storage.approvals.create([named("b", run_id="again")])
    assert taken.id == "a"


def test_decision_is_kept_with_message(ann: Transcripts) -> None:
    approval = ToolApproval("a", SESSION, "ann", 5_000)
    message = replace(text_message(Role.TOOL, "done"), tool_call_id="c", approval=approval)
    ann.finish_run(KEY, "main", "run", RunOutcome(RunState.OK, messages=(message,)))
    assert ann.load_conversation(KEY)[0].approval == approval


def test_approvals_are_deleted_with_session_and_with_time(ann: Transcripts) -> None:
    approvals = ann.storage.approvals
    ann.finish_run(KEY, "main", "run", RunOutcome(RunState.OK, messages=(text_message(Role.USER, "x"),)))
    approvals.create([NEW, named("other", session_key="agent:main:other"), named("pending")])
    approvals.decide("a", SESSION, "ann")
    assert ann.delete_session(KEY) is True
    assert approvals.get("a") is None
    approvals.decide("other", SESSION, "ann")
    kept = MaintenanceConfig.model_validate({"runsAfter": "30d"})
    Pruner(ann.database, kept, ann.clock).run()
    assert approvals.get("other") is not None
    Pruner(ann.database, kept, lambda: ann.clock() + 31 * 24 * 3600).run()
    assert approvals.get("other") is None
    assert approvals.get("pending") is not None
