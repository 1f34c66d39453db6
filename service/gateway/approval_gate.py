"""The approval gate of a run: ask a person about tool calls, and wait for the decisions.

While a run waits, it gives its slot to others, and its time limit stops; its session stays its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from service.agent.events import ApprovalClosed, ApprovalRequested
from service.agent.run import Run
from service.config.approvals import ApprovalsConfig
from service.core.messages import ApprovalDecision
from service.core.pausable_deadline import PausableDeadline
from service.gateway.run_slots import RunSlot
from service.storage.database.errors import StoreError
from service.storage.runs.approvals import ApprovalRecord, Approvals, ApprovalState, NewApproval
from service.tools.approval import ApprovalRequest, Verdict

logger = logging.getLogger("openclaw.runs")


class ApprovalGate:
    """Asks about the calls of `run`. Calling it returns a verdict for each request, in order.

    Decisions for a session are those of `session_key`, by default the run's session.
    """

    def __init__(
        self,
        run: Run,
        approvals: Approvals,
        config: ApprovalsConfig,
        slot: RunSlot,
        time: PausableDeadline,
        new_id: Callable[[], str],
        session_key: str | None = None,
    ) -> None:
        self._run = run
        self._approvals = approvals
        self._config = config
        self._slot = slot
        self._time = time
        self._new_id = new_id
        self._session_key = session_key or run.session_key

    def __call__(self, requests: Sequence[ApprovalRequest]) -> Sequence[Verdict]:
        """Return the verdicts: those of decisions for the session at once, others when they come."""
        try:
            return self._decide(requests)
        except StoreError as error:
            # Without a record nobody could have decided, whatever `unattended` says.
            logger.warning("run %s: calls are refused because approvals cannot be stored: %s", self._run.id, error)
            return [Verdict(f"The approval of {one.tool} could not be stored, so it did not run.") for one in requests]

    def _decide(self, requests: Sequence[ApprovalRequest]) -> Sequence[Verdict]:
        subjects = {one.subject for one in requests if one.subject is not None}
        grants = self._approvals.find_grants(self._session_key, subjects)
        granted = [grants.get(one.subject or "") for one in requests]
        asked = iter(self._ask([one for one, grant in zip(requests, granted, strict=True) if grant is None]))
        answers = [grant or next(asked) for grant in granted]
        return [self._to_verdict(one, answer) for one, answer in zip(requests, answers, strict=True)]

    def _ask(self, requests: Sequence[ApprovalRequest]) -> Sequence[ApprovalRecord]:
        if not requests:
            return ()
        new = [self._to_new(one) for one in requests]
        ids = [one.id for one in new]
        try:
            with self._waiting():
                created = self._approvals.create(new)
                ids = [one.id for one in created]
                for one in created:
                    self._run.append(ApprovalRequested(one.id, one.tool, one.arguments, one.tool_call_id))
                self._approvals.wait(ids, self._config.timeout_seconds)
        except BaseException:
            with suppress(StoreError):  # the record is closed with the gateway's membership then
                self._note_closed(self._approvals.cancel(ids, self._run.id))
            raise
        allows = self._config.unattended == "allow"
        unattended = ApprovalDecision.ALLOW_ONCE if allows else ApprovalDecision.DENY
        return self._note_closed(self._approvals.close(ids, self._run.id, ApprovalState.EXPIRED, unattended))

    def _note_closed(self, closed: Sequence[ApprovalRecord]) -> Sequence[ApprovalRecord]:
        for one in closed:
            decision = None if one.decision is None else one.decision.value
            self._run.append(ApprovalClosed(one.id, one.state.value, decision))
        return closed

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._run.is_waiting = True
        try:
            with self._slot.lent(), self._time.paused():
                yield
        finally:
            self._run.is_waiting = False

    def _to_new(self, request: ApprovalRequest) -> NewApproval:
        now_ms = self._approvals.now_ms()
        return NewApproval(
            id=self._new_id(),
            session_key=self._session_key,
            run_id=self._run.id,
            agent_id=self._run.agent_id,
            tool=request.tool,
            arguments=request.arguments,
            # A provider's id may have characters that PostgreSQL cannot store.
            tool_call_id=request.call_id.encode("utf-8", "replace").decode().replace("\0", "\ufffd"),
            subject=request.subject,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + int(self._config.timeout_seconds * 1000),
        )

    def _to_verdict(self, request: ApprovalRequest, answer: ApprovalRecord) -> Verdict:
        approval = answer.to_tool_approval()
        if answer.decision in (ApprovalDecision.ALLOW_ONCE, ApprovalDecision.ALLOW_SESSION):
            return Verdict(None, approval)
        if answer.state is ApprovalState.DECIDED:
            refusal = f"A person denied this call of {request.tool}, so it did not run. Do not repeat it"
        elif answer.state is ApprovalState.EXPIRED:
            refusal = (
                f"Nobody approved this call of {request.tool} within {self._config.timeout_seconds:g} seconds, so it "
                "did not run"
            )
        else:
            refusal = f"The approval of this call of {request.tool} was closed without a decision, so it did not run"
        return Verdict(f"{refusal}; go on without it, or ask the user how to go on.", approval)
