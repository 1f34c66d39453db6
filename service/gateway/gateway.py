"""The Gateway: accepts, finds and ends runs. Every protocol calls exactly this.

`submit` never waits for a session or a slot: the run does, in a greenlet of its own, and fails with the error that a
protocol reports with its own status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from service.agent.compaction.compactor import Compactor
from service.agent.events import RunEnded
from service.agent.request import REASONING, AgentRequest
from service.agent.run import Run
from service.config.gateway import HttpConfig
from service.config.roster import Roster
from service.core.byte_budget import ByteBudget
from service.core.concurrency import Cancelled, spawn
from service.core.dataclass import replace
from service.core.errors import GatewayError, internal_error
from service.core.principal import Principal
from service.gateway.budgets import Budgets
from service.gateway.embedding import Embedder
from service.gateway.event_feeds import EventFeeds
from service.gateway.peer_requests import PeerRequests
from service.gateway.rate_limiter import RateLimiter, Ticket, estimate_tokens, give_back
from service.gateway.replay import Replayer
from service.gateway.run_execution import RunExecutor
from service.gateway.run_lookup import RunLookup
from service.gateway.run_outcome import (
    aborted_in_queue,
    failure_of,
    key_reused,
    run_id_taken,
    run_not_found,
    shutting_down,
    too_many_named_runs,
)
from service.gateway.run_registry import RunRegistry
from service.gateway.run_setup import RunPlan, plan_run, to_accepted
from service.gateway.run_slots import RunSlots
from service.gateway.runtime import Runtime, RuntimeLease, RuntimeSlot, log_unlisted_models
from service.gateway.webhooks import WebhookSender
from service.models.catalog import ModelCatalog
from service.storage.runs.idempotency import Claim, IdempotencyKey
from service.storage.runs.pages import RunFilter, RunPosition
from service.storage.runs.records import RunRecord
from service.storage.runs.rows import to_title
from service.storage.sessions.keys import owner_of
from service.storage.sessions.transcripts import StoreError
from service.storage.storage import Storage

logger = logging.getLogger("openclaw.gateway")

#: Runs named by their callers, and detached ones, do not end with a connection, so their numbers have a limit.
MAX_NAMED_RUNS = 1024

_LIMIT_CODES = ("rate_limit_exceeded", "budget_exceeded")


class Gateway:
    """Runs agents for every protocol.

    `runtime` is what the configuration says, `runs` has every run of this process, `compactor` keeps conversations
    within their models' windows, `budget` limits the data in flight. `clock` gives seconds since 1970, `new_id` UUIDs.
    """

    def __init__(
        self,
        runtime: Runtime,
        storage: Storage,
        *,
        runs: RunRegistry,
        slots: RunSlots,
        compactor: Compactor,
        budget: ByteBudget,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.storage = storage
        self.runs = runs
        self.budget = budget
        self.started_at = clock()
        self._runtime = RuntimeSlot(runtime)
        self.slots = slots
        self.webhooks = WebhookSender(storage, lambda: self._runtime.current.webhook_client, clock)
        self._executor = RunExecutor(storage, slots, compactor, self.webhooks, clock=clock, new_id=new_id)
        self._clock = clock
        self._new_id = new_id
        self._replayer = Replayer(storage.records, storage.run_events, storage.transcripts, budget)
        self.limits = RateLimiter(storage, runtime.rate_limits)
        self.budgets = Budgets(storage.usage, runtime.rate_limits, clock)
        self.embedder = Embedder(storage.kept_answers, slots, self.limits, self.budgets, clock)
        self._lookup = RunLookup(storage, runs)
        self.event_feeds = EventFeeds(storage, runs, clock)
        self._draining = False
        self._peers = PeerRequests(storage, runs, self._lookup, self._executor)
        storage.membership.on_evicted = self._peers.abort_in_sessions
        storage.membership.on_poll = self._peers.poll

    def submit(
        self, request: AgentRequest, request_id: str | None = None, caller_trace: Mapping[str, str] | None = None
    ) -> Run:
        """Accept a run and return it; it continues whether or not it is followed.

        `request_id` is for the log, `caller_trace` (see `Run`) for traces.

        A request with a known idempotency key gets the run that answers the first one. Raises `GatewayError` for what
        is wrong with the request itself: an unknown agent or model, a reserved session key, a key used for another
        request, and beyond a limit.
        """
        if self._draining:
            raise shutting_down()
        with self._runtime.lease() as lease:
            plan = plan_run(request, lease, self._new_id)
            run = Run(
                to_accepted(plan, self._new_id, int(self._clock() * 1000)),
                request.idempotency_key and request.idempotency_key.owned_by(request.principal.owner),
                self.budget,
                shows_reasoning=REASONING in request.shows,
            )
            run.request_id, run.caller_trace, run.sampling = request_id, caller_trace, plan.sampling
            if not run.accepted.stateless:
                run.title = to_title(one.message for one in request.messages)
            if request.detached and sum(one.accepted.detached for one in self.runs.active()) >= MAX_NAMED_RUNS:
                raise too_many_named_runs()
            known = self._find_named(run) if request.run_id is not None else None
            if known is not None:
                return known
            self.runs.add(run)
            ticket = None
            try:
                plan, ticket = self._admit(run, plan)
                replay = None if run.key is None else self._claim(run, run.key)
                if run.key is None and run.accepted.detached:
                    self._record(run)
            except BaseException as failure:
                give_back(ticket)
                self._refuse(run, failure)
                raise
            if replay is not None:
                give_back(ticket)
                return replay
            lease.retain()
        plan = plan if ticket is None else replace(plan, ticket=ticket)
        spawn(self._executor.execute, run, plan)
        return run

    def _admit(self, run: Run, plan: RunPlan) -> tuple[RunPlan, Ticket | None]:
        """Count the run, unless it will only repeat an answer; leave models out that its budgets do not allow."""
        request, principal = plan.request, plan.request.principal
        try:
            choices = plan.choices
            if request.call is None:  # else no model is asked
                choices = self.budgets.check(principal, run.agent_id, choices)
            ticket = self.limits.admit(principal, run.agent_id, lambda: estimate_tokens(request))
            return plan if len(choices) == len(plan.choices) else replace(plan, choices=choices), ticket
        except GatewayError as failure:
            is_limit = failure.code in _LIMIT_CODES
            if is_limit and run.key is not None and self._lookup.has_answer(run.key):
                return plan, None
            raise

    def _find_named(self, run: Run) -> Run | None:
        known = self.runs.find(run.id)
        if known is None:
            if sum(one.protocol == run.protocol for one in self.runs.active()) >= MAX_NAMED_RUNS:
                raise too_many_named_runs()
            return None
        if known.session_key != run.session_key:
            raise run_id_taken()
        if known.key != run.key:
            raise key_reused()
        return known

    def _record(self, run: Run) -> None:
        """Record a detached run, so that every process finds it from now on."""
        try:
            self.storage.ledger.accept(run.accepted)
        except BaseException:
            spawn(self.storage.ledger.forget, run.accepted, self.storage.membership.id)
            raise

    def _claim(self, run: Run, key: IdempotencyKey) -> Run | None:
        """Claim `key` for `run`; returns the replay that answers instead if an earlier request has claimed it."""
        gateway_id = self.storage.membership.id
        try:
            with run.scope:
                claim = self.storage.claims.claim(key, run.accepted, gateway_id)
        except BaseException as failure:
            # The claim may still be written although its caller has left; this write is queued after it.
            spawn(self.storage.ledger.forget, run.accepted, gateway_id)
            if isinstance(failure, Cancelled):
                raise aborted_in_queue(run) from None
            raise
        return None if claim.is_own else self._replay(run, claim, key)

    def _replay(self, run: Run, claim: Claim, key: IdempotencyKey) -> Run:
        if claim.fingerprint != key.fingerprint:
            raise key_reused()
        original = self.runs.find(claim.run_id)
        if original is not None and original is not run and original.state.is_executing:
            self.runs.discard(run)
            return self._replayer.mirror(original)
        record = self.storage.records.get(claim.run_id)
        if record is None:
            raise failure_of(None)
        if record.id != run.id:
            self.runs.discard(run)
            return self._replayer.recall(record, run.sampling)
        if record.session_key != run.session_key:
            raise run_id_taken()
        self._replayer.replay_as(run)
        return run

    def _refuse(self, run: Run, failure: BaseException) -> None:
        """End a run that is not accepted after all; others may have found it by its name."""
        self.runs.discard(run)
        run.append(RunEnded(error=failure.copy() if isinstance(failure, GatewayError) else internal_error()))

    @property
    def roster(self) -> Roster:
        """The agents in force."""
        return self._runtime.current.roster

    @property
    def catalog(self) -> ModelCatalog:
        """The models in force."""
        return self._runtime.current.catalog

    @property
    def http(self) -> HttpConfig:
        """The rules in force for HTTP requests."""
        return self._runtime.current.http

    def now(self) -> float:
        """The time in seconds since 1970."""
        return self._clock()

    def lease(self) -> RuntimeLease:
        """The configuration in force, which a `with` block keeps open."""
        return self._runtime.lease()

    def reconfigure(self, runtime: Runtime) -> None:
        """Put `runtime` in force for runs submitted from this moment; earlier ones keep theirs."""
        self._runtime.replace(runtime)
        self.slots.resize(runtime.limits.max_concurrent)
        self.budget.resize(runtime.limits.in_flight_bytes)
        self.limits.config = self.budgets.config = runtime.rate_limits

    def find(self, run_id: str) -> Run | None:
        """The run with this id: one of this process, or the replay of one that is only recorded."""
        found = self.runs.find(run_id)
        record = self.storage.records.get(run_id) if found is None else None
        return found if record is None else self._replayer.recall(record)

    def abort(self, run_id: str) -> bool:
        """End a run soon, in whatever state and process; whether it had not ended. Raises `StoreError`."""
        return self._peers.abort(run_id)

    def get_run(self, run_id: str, principal: Principal, *, with_progress: bool = False) -> RunRecord:
        """Return the run's record, made up for a run of this process as far as it is not stored yet.

        `with_progress`: see `RunLookup`. Raises `StoreError`, and `GatewayError` (`run_not_found`), also for a run
        that `principal` may not see.
        """
        found = self._lookup.find(run_id)
        if found is None or not principal.may_see(owner_of(found.session_key)):
            raise run_not_found(run_id)
        return self._lookup.with_progress(found) if with_progress else found

    def list_runs(self, which: RunFilter, after: RunPosition | None, limit: int) -> tuple[RunRecord, ...]:
        """Return at most `limit` runs of all processes, newest first, behind `after`. Raises `StoreError`."""
        found = self._lookup.list(which, after, limit)
        for run in found:
            self._lookup.request_progress(run)
        return found

    def has_session(self, key: str) -> bool:
        """Return True if the session `key` has had a run that is still known. Raises `StoreError`."""
        return bool(self._lookup.list(RunFilter(session_key=key), None, 1))

    def contact_servers(self) -> None:
        """Begin to ask the MCP servers that agents may use for their tools, so that the first run finds them."""
        self._runtime.current.toolboxes.contact_servers()

    def check_models(self) -> None:
        """Begin to look for configured models on the lists of their providers, and log a note for each missing one."""
        spawn(log_unlisted_models, self._runtime)

    @property
    def mcp_servers(self) -> dict[str, str]:
        """The states of the MCP servers that agents may use, by their names."""
        return self._runtime.current.toolboxes.server_states

    def failing(self) -> list[str]:
        """The reasons why the Gateway is not ready; empty when it is."""
        reasons = ["shutting down"] if self._draining else []
        try:
            self.storage.database.check()
        except StoreError as error:
            logger.warning("the session database is not usable: %s", error)
            reasons.append("session store")
        return reasons

    @property
    def running(self) -> int:
        """The number of runs that have begun and not ended."""
        return len(self.runs.running())

    def drain(self) -> None:
        """Refuse further runs and queued ones; those that have begun continue."""
        self._draining = True
        self.event_feeds.close()  # they can be watched elsewhere, or again
        for run in self.runs.active():
            if not run.has_begun:
                run.abort(shutting_down())

    def abort_all(self) -> tuple[Run, ...]:
        """Abort every run that has not ended, and return them; does not wait."""
        self.storage.approvals.stop()
        active = self.runs.active()
        for run in active:
            run.abort()
        return active

    def close(self) -> None:
        """Abort every run and close models and the database. Twice is a no-op."""
        self.drain()
        for run in self.abort_all():
            run.wait_for_end(None)
        self.limits.close()
        self.webhooks.close()
        self.event_feeds.close()
        self._runtime.close()
        self.storage.close()
