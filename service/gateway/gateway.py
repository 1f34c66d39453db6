"""The Gateway: starts, tracks and ends runs. Every door (HTTP and what comes later) calls exactly this.

`start` is eager: whatever can be refused is refused before it returns, so that a refusal keeps its own status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.agent.compaction.compactor import Compactor
from service.agent.events import RunEnded
from service.agent.loop import AgentLoop, ContextWindow, RunDraft
from service.agent.request import AgentRequest, check_model
from service.agent.run import Run
from service.config.agents import Agent, Roster
from service.core.concurrency import Cancelled, CancelScope, Deadline, deadline, spawn
from service.core.errors import GatewayError, internal_error
from service.gateway.replay import Replayer
from service.gateway.run_limiter import RunLimiter
from service.gateway.run_outcome import failure_of, key_reused, run_not_found, shutting_down, to_outcome
from service.gateway.run_registry import RunRegistry
from service.gateway.run_setup import PreparedRun, RunDeadline, prepare
from service.gateway.runtime import Runtime, RuntimeLease, RuntimeSlot
from service.gateway.session_selection import choose_session
from service.models.catalog import ModelCatalog
from service.models.errors.context_overflow import to_caller_error
from service.models.fallback import FallbackProvider
from service.storage.runs.idempotency import Claim, IdempotencyKey
from service.storage.runs.ledger import OpenRun
from service.storage.runs.records import NewRun, RunRecord, RunState
from service.storage.sessions.transcripts import StoreError
from service.storage.storage import Storage

logger = logging.getLogger("openclaw.gateway")


class Gateway:
    """Runs agents for its doors.

    `parts` is what the configuration says, `runs` knows what goes on here, `compactor` keeps conversations within
    their models' windows. `clock` gives seconds since 1970, `new_id` fresh UUIDs as text.
    """

    def __init__(
        self,
        parts: Runtime,
        state: Storage,
        *,
        runs: RunRegistry,
        slots: RunLimiter,
        compactor: Compactor,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.state = state
        self.runs = runs
        self.started_at = clock()
        self._parts = RuntimeSlot(parts)
        self._slots = slots
        self._compactor = compactor
        self._clock = clock
        self._new_id = new_id
        self._replays = Replayer(state.records, state.store)
        self._runs: dict[str, tuple[Run, NewRun]] = {}
        self._queued: dict[str, tuple[CancelScope, NewRun]] = {}
        self._draining = False
        state.membership.on_expelled = self._abort_in_sessions
        state.membership.on_look = self._abort_requested

    def start(self, turn: AgentRequest, *, run_id: str | None = None, door: str = "http") -> Run:
        """Begin a run and return it; it goes on by itself whether or not anybody follows it.

        `run_id` is the caller's own name for it, `door` where it came in. Waits for the session's turn if it is busy.
        Raises `GatewayError` for everything that is wrong with the request: an unknown agent or model, a reserved
        session key, an image the model cannot read, nothing to answer.
        """
        if self._draining:
            raise shutting_down()
        with self._parts.held() as held:
            return self._begin(turn, held, run_id, door)

    def _begin(self, turn: AgentRequest, held: RuntimeLease, run_id: str | None, door: str) -> Run:
        agent = held.parts.roster.resolve(turn.model, turn.agent_id)
        choices = held.parts.catalog.choices(turn.provider_model, agent)
        check_model(turn, choices[0])
        key = choose_session(agent.id, turn.session_key, turn.user, self._new_id, held.parts.roster)
        claimed = turn.idempotency_key is not None
        run_id = run_id or f"chatcmpl_{self._new_id()}"
        new = NewRun(run_id, key.key, agent.id, door, int(self._clock() * 1000), key.fresh, claimed)
        if turn.idempotency_key is not None:
            claim = self._claim(turn.idempotency_key, new)
            if not claim.is_own:
                return self._replay(claim, turn.idempotency_key)
        run = Run(new.id, new.session_key, agent.id, new.accepted_at_ms / 1000, kept=claimed, door=door)
        opened: OpenRun | None = None
        try:
            # To be found and ended by its id at every moment: until it goes on here, then as what goes on.
            with self._abortable(new) as scope:
                opened, time = self._enter(new, turn, agent)
                work = prepare(turn, time, held, agent, choices, run, opened, self.state)
                self._runs[run.id] = run, new
        except BaseException:
            if opened is not None:
                self._slots.leave()
                opened.retract()
            raise
        if scope.cancelled:  # too late to end the wait
            run.abort()
        self.runs.add(run)
        held.retain()
        spawn(self._execute, run, work)
        return run

    @property
    def roster(self) -> Roster:
        """The agents there are now."""
        return self._parts.now.roster

    @property
    def catalog(self) -> ModelCatalog:
        """The models there are now."""
        return self._parts.now.catalog

    def reconfigure(self, parts: Runtime) -> None:
        """Run what begins from now on with `parts`; what goes on keeps what it began with."""
        self._parts.replace(parts)
        self._slots.resize(parts.limits.max_concurrent)

    def find(self, run_id: str) -> Run | None:
        """The run with this id: one that goes on or was kept here, or, told again, one that is only recorded."""
        found = self.runs.find(run_id)
        if found is not None:
            return found
        record = self.state.records.get(run_id)
        return None if record is None else self._replays.recall(record)

    def abort(self, run_id: str) -> bool:
        """End a run soon, wherever it waits or goes on; whether it was still to end. Raises `StoreError`."""
        return self._abort_here(run_id) or self._end_forgotten(run_id) or self.state.records.request_abort(run_id)

    def get_run(self, run_id: str) -> RunRecord:
        """What is known of a run: what is recorded, or that it waits or goes on here.

        Raises `StoreError`, and `GatewayError` (`run_not_found`).
        """
        here = self._find_here(run_id)
        recorded = self.state.records.get(run_id)
        # That a run without a session to wait for has begun is not recorded.
        has_begun = here is not None and here.state is RunState.RUNNING
        found = here if recorded is None or (has_begun and recorded.state is RunState.ACCEPTED) else recorded
        if found is None:
            raise run_not_found(run_id)
        return found

    def contact_servers(self) -> None:
        """Begin to ask the MCP servers that agents may use for their tools, so that the first run finds them."""
        self._parts.now.toolboxes.contact_servers()

    def failing(self) -> list[str]:
        """What keeps the Gateway from serving, in words; empty when it is ready."""
        reasons = ["shutting down"] if self._draining else []
        try:
            self.state.database.check()
        except StoreError:
            logger.exception("the session database is not usable")
            reasons.append("session store")
        return reasons

    @property
    def running(self) -> int:
        """How many runs go on."""
        return len(self._runs)

    def drain(self) -> None:
        """Accept no further runs, and refuse those that wait; those under way go on."""
        self._draining = True
        for scope, _new in list(self._queued.values()):
            scope.cancel()

    def abort_all(self) -> tuple[Run, ...]:
        """End what goes on, as `abort` does each of it, and return it; does not wait."""
        going_on = tuple(run for run, _new in self._runs.values())
        for run in going_on:
            run.abort()
        return going_on

    def close(self) -> None:
        """Abort what still runs and let go of models and the database. Twice is a no-op."""
        self.drain()
        for run in self.abort_all():
            for _ in run.follow():
                pass
        self._parts.close()
        self.state.close()

    def _claim(self, key: IdempotencyKey, new: NewRun) -> Claim:
        gateway_id = self.state.membership.id
        with self._abortable(new):
            try:
                return self.state.claims.claim(key, new, gateway_id)
            except BaseException:
                # It is carried out even if nobody waits for it any more: this comes behind it.
                spawn(self.state.ledger.forget, new, gateway_id)
                raise

    def _enter(self, new: NewRun, turn: AgentRequest, agent: Agent) -> tuple[OpenRun, RunDeadline]:
        opened = self.state.ledger.open(new, agent.timeout_seconds)  # the session first, then room for a run
        time = RunDeadline.begin(turn, agent)
        try:
            self._slots.enter(time.left_seconds)
        except BaseException:
            opened.retract()
            raise
        return opened, time.after_wait()

    @contextmanager
    def _abortable(self, new: NewRun) -> Iterator[CancelScope]:
        scope = CancelScope()
        self._queued[new.id] = scope, new
        try:
            with scope:
                yield scope
        except Cancelled:
            if not scope.cancelled:
                raise
            if self._draining:
                raise shutting_down() from None
            raise GatewayError("run_aborted", "The run was aborted while it waited.") from None
        finally:
            del self._queued[new.id]

    def _execute(self, run: Run, work: PreparedRun) -> None:
        reply = RunDraft()
        parts = work.held.parts
        provider = FallbackProvider(
            work.choices, parts.limits.retries, windows=parts.windows, restartable=work.restartable, clock=self._clock
        )
        try:
            end = self._drive(run, work, provider, reply)
            model = (provider.answered or work.choices[0]).ref
            work.opened.finish(to_outcome(end, work.conversation.new, reply, model, keep_partial=work.keep_partial))
        except GatewayError as error:
            end = RunEnded(error=error)
        except Exception:
            # A defect must not leave readers waiting: it is logged here and told as itself.
            logger.exception("run %s failed", run.id)
            end = RunEnded(error=internal_error())
        finally:
            self._slots.leave()
            del self._runs[run.id]
            work.held.release()
        if end.error is not None:
            logger.warning("run %s failed: %s", run.id, end.error.code)
        run.append(end)

    def _drive(self, run: Run, work: PreparedRun, provider: FallbackProvider, reply: RunDraft) -> RunEnded:
        parts = work.held.parts
        window = ContextWindow(lambda: provider.asked, provider.skip_to_fallback, self._compactor, parts.windows)
        loop = AgentLoop(run, provider, work.tools, window, parts.limits.max_turns, reply)
        try:
            with run.scope, deadline(work.time.left_seconds):
                loop.run(work.request)
        except Cancelled:
            return RunEnded(error=GatewayError("run_aborted", "The run was aborted."))
        except Deadline:
            return RunEnded(error=work.time.is_up())
        except GatewayError as error:
            return RunEnded(error=to_caller_error(error))
        except Exception:
            # Its session has to be given back like any other's.
            logger.exception("run %s failed", run.id)
            return RunEnded(error=internal_error())
        return RunEnded(reply.stop_reason, reply.usage)

    def _replay(self, claim: Claim, key: IdempotencyKey) -> Run:
        """The answer of an earlier request with the same key, as a run of its own."""
        if claim.fingerprint != key.fingerprint:
            raise key_reused()
        if claim.run_id in self._runs:
            original, _new = self._runs[claim.run_id]
            copy = Run(original.id, original.session_key, original.agent_id, original.created_at)
            spawn(self._replays.mirror, original, copy)
            return copy
        record = self.state.records.get(claim.run_id)
        if record is None:
            raise failure_of(None)
        return self._replays.recall(record)

    def _abort_in_sessions(self) -> None:
        """Others took this gateway for dead and may run its sessions by now: nothing that goes on could be stored."""
        for run, new in list(self._runs.values()):
            if not new.stateless:
                run.abort()

    def _find_here(self, run_id: str) -> RunRecord | None:
        gateway_id = self.state.membership.id
        if run_id in self._runs:
            return RunRecord.of(self._runs[run_id][1], gateway_id, RunState.RUNNING)
        if run_id in self._queued:
            return RunRecord.of(self._queued[run_id][1], gateway_id, RunState.ACCEPTED)
        return None

    def _abort_here(self, run_id: str) -> bool:
        if run_id in self._runs:
            self._runs[run_id][0].abort()
        elif run_id in self._queued:
            self._queued[run_id][0].cancel()
        else:
            return False
        return True

    def _abort_requested(self) -> None:
        if self.state.membership.has_others:
            for run_id in self.state.records.list_to_abort(self.state.membership.id):
                if not self._abort_here(run_id):
                    self._end_forgotten(run_id)

    def _end_forgotten(self, run_id: str) -> bool:
        record = self.state.records.get(run_id)
        # What was recorded by then may have come here since.
        return record is not None and (self._abort_here(run_id) or self.state.ledger.end_forgotten(record))
