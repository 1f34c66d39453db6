"""Execution of accepted runs, each in a greenlet: session, room, agent loop, record of the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from service.agent.compaction.compactor import Compactor
from service.agent.conversation import SettledHistories
from service.agent.draft_log import DraftLog
from service.agent.event_log import events_after, reasoning_events
from service.agent.events import RunEnded, ToolEnded
from service.agent.invocation import INVOCATION_TURNS, InvokedTool
from service.agent.loop import AgentLoop, ContextWindow
from service.agent.output_events import settled_events
from service.agent.request import AgentRequest
from service.agent.run import Run
from service.agent.structured_output import OutputCheck, ValidatedProvider
from service.core.concurrency import Cancelled, Deadline, Timeout, spawn
from service.core.dataclass import record, replace
from service.core.errors import GatewayError, internal_error
from service.core.messages import Usage
from service.core.pausable_deadline import PausableDeadline
from service.core.signals import RunAccepted, RunFinished, run_accepted, run_finished
from service.core.usage import ModelCall, total_of
from service.core.work_context import WorkContext, current_work
from service.gateway.approval_gate import ApprovalGate
from service.gateway.event_recorder import EventRecorder
from service.gateway.run_outcome import aborted_in_queue, placed, reason_of, to_outcome, with_times
from service.gateway.run_setup import PreparedRun, RunDeadline, RunPlan, prepare
from service.gateway.run_slots import RunSlot, RunSlots, fairness_key
from service.gateway.webhooks import WebhookSender
from service.models.errors.context_overflow import to_caller_error
from service.models.fallback import FallbackProvider
from service.models.provider import RestartingProvider
from service.storage.runs.events import EventBatch, to_batches
from service.storage.runs.ledger import OpenRun
from service.storage.storage import Storage
from service.tools.approval import ApprovalRequest, Verdict

logger = logging.getLogger("openclaw.gateway")


@record
class _BegunRun:
    """A run that has its session and its slot."""

    opened: OpenRun
    slot: RunSlot
    time: RunDeadline
    prepared: PreparedRun


class RunExecutor:
    """Executes runs; `webhooks` hears of their ends. `clock` gives seconds since 1970, `new_id` unique ids."""

    def __init__(
        self,
        storage: Storage,
        slots: RunSlots,
        compactor: Compactor,
        webhooks: WebhookSender,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._storage = storage
        self._slots = slots
        self._compactor = compactor
        self._webhooks = webhooks
        self._settled = SettledHistories()
        self._recorders: dict[str, EventRecorder] = {}
        self._clock = clock
        self._new_id = new_id

    def execute(self, run: Run, plan: RunPlan) -> None:
        """Execute an accepted run and release its configuration. Never raises: the log ends with the failure."""
        current_work.set(WorkContext(_ids_of(run, plan)))
        if run_accepted.receivers:
            run_accepted.emit(_to_run_accepted(run, plan))
            run.trace_id = current_work.get().ids.get("trace_id")
        if run.accepted.detached:
            self.record_events(run)
        try:
            end = self._execute(run, plan)
        except GatewayError as error:
            end = RunEnded(error=error)
        except Exception:
            # A defect must not leave readers waiting: it is logged here and reported as an internal error.
            logger.exception("run %s failed", run.id)
            end = RunEnded(error=internal_error())
        finally:
            plan.lease.release()
        if plan.ticket is not None:
            plan.ticket.settle(run.model_calls)
        if end.error is not None and run.accepted.detached and not run.has_begun:
            self._storage.ledger.refuse(run.accepted, end.error)
        run.append(end)
        self._recorders.pop(run.id, None)
        if run_finished.receivers:
            run_finished.emit(_to_finished(run, plan, end))
        if run.accepted.webhook is not None:
            self._webhooks.notify()

    def record_events(self, run: Run) -> None:
        """Store the events of a run that is executed here while it goes on. A second call is a no-op."""
        if run.id not in self._recorders:
            recorder = self._recorders[run.id] = EventRecorder(run, self._storage)
            spawn(recorder.record)

    def _execute(self, run: Run, plan: RunPlan) -> RunEnded:
        begun = self._begin(run, plan)
        try:
            return self._answer(run, plan, begun)
        except Exception:
            begun.opened.abandon(internal_error())  # a defect must not keep the session
            raise
        finally:
            begun.slot.give_back()

    def _begin(self, run: Run, plan: RunPlan) -> _BegunRun:
        """Wait for the session, then for a slot, then prepare the run. Nothing is held if one of them fails."""
        turn = fairness_key(plan.request.principal, plan.session)
        slot, opened = RunSlot(self._slots, turn), None
        try:
            with run.scope:
                opened = self._storage.ledger.open(run.accepted, plan.queue_seconds)
                time = RunDeadline(plan)
                slot.take(time.seconds)
                with Timeout(time.end_wait(), Deadline):
                    prepared = prepare(plan, run.accepted, self._storage, opened.head)
            run.replaced_tools = prepared.tools.own.replaced
            run.begin()
            return _BegunRun(opened, slot, time, prepared)
        except BaseException as failure:
            slot.give_back()
            if opened is not None:
                opened.retract()
            if isinstance(failure, Cancelled):
                raise aborted_in_queue(run) from None
            if isinstance(failure, Deadline):
                raise time.to_error() from None
            raise

    def _answer(self, run: Run, plan: RunPlan, begun: _BegunRun) -> RunEnded:
        runtime, prepared = plan.lease.runtime, begun.prepared
        provider = FallbackProvider(
            prepared.choices,
            runtime.limits.retries,
            runtime.windows,
            self._clock,
            restartable=plan.request.is_restartable,
        )
        run.model_calls = provider.calls
        window = ContextWindow(provider, self._compactor, runtime.windows, self._settled)
        limit = PausableDeadline(begun.time.left_seconds())
        gate = partial(self._decide, run, plan, begun, limit)
        asked = _asked(
            run,
            plan,
            provider,
            prepared.output,
            lambda usage: loop.count_discarded(usage),  # noqa: PLW0108 - the loop comes next
        )
        turns = runtime.limits.max_turns if plan.request.call is None else INVOCATION_TURNS
        drafts = _draft_log(run, plan.request)
        loop = AgentLoop(run, asked, prepared.tools, gate, window, turns, self._clock, drafts)
        end = _drive(run, loop, begun, limit, provider.calls)
        run.usage = end.usage
        model = (provider.answered or prepared.choices[0]).ref
        new = prepared.conversation.new
        outcome = to_outcome(end, new, loop.output, model, provider.calls, keep_partial=prepared.keep_partial)
        if end.error is not None or not run.accepted.stateless or run.accepted.is_recorded_early:
            outcome = with_times(outcome, run)  # the row of a stateless turn has no place for them
        if prepared.placement is not None:
            outcome = placed(outcome, prepared.placement)
        if events := self._kept_events(run):
            outcome = replace(outcome, events=events)
        run.ended_at = begun.opened.finish(outcome)
        self._storage.usage.forget(run.accepted.account, run.agent_id)
        if prepared.placement is not None:
            self._storage.transcripts.add_turn(run.accepted, prepared.placement.loaded, outcome)
        return end

    def _kept_events(self, run: Run) -> tuple[EventBatch, ...]:
        """Return the events to store with the end of a run: those that may be read and are not in its turn."""
        if run.id in self._recorders:
            return self._recorders[run.id].remaining()
        if not run.shows_reasoning:
            return ()
        if run.accepted.response is not None:
            return tuple(to_batches(2, events_after(run, 1, settled_events(run.log))))
        return () if run.key is None else tuple(to_batches(1, reasoning_events(run)))

    def _decide(
        self,
        run: Run,
        plan: RunPlan,
        begun: _BegunRun,
        limit: PausableDeadline,
        requests: Sequence[ApprovalRequest],
    ) -> Sequence[Verdict]:
        """Ask a person about calls of the run."""
        approvals, config = self._storage.approvals, plan.lease.runtime.limits.approvals
        gate = ApprovalGate(run, approvals, config, begun.slot, limit, self._new_id, plan.context_key)
        return gate(requests)


def _draft_log(run: Run, request: AgentRequest) -> DraftLog | None:
    """Return the log of the run's drafts, if its caller or readers of its events may ask for them."""
    reasoning = run.shows_reasoning or run.accepted.detached
    calls = request.streamed and request.offers_functions
    if not (reasoning or calls):
        return None
    return DraftLog(run, reasoning=reasoning, is_binding=run.shows_reasoning, wants_calls=calls)


def _asked(
    run: Run,
    plan: RunPlan,
    provider: RestartingProvider,
    check: OutputCheck | None,
    on_discarded: Callable[[Usage], None],
) -> RestartingProvider:
    """Return what the loop asks: the models, those whose answers are checked, or the caller's own call."""
    call = plan.request.call
    if call is not None:
        return InvokedTool(call, lambda: any(isinstance(one, ToolEnded) and one.failed for one in run.log))
    if check is None:
        return provider
    return ValidatedProvider(provider, check, plan.lease.runtime.limits.repairs, on_discarded)


def _ids_of(run: Run, plan: RunPlan) -> dict[str, str]:
    """Return what the log lines of the run's work name."""
    ids = {"run": run.id, "agent": run.agent_id, "session": plan.context_key or run.session_key}
    if run.request_id is not None:
        ids["request_id"] = run.request_id
    if plan.request.principal.key_id is not None:
        ids["key"] = plan.request.principal.key_id
    return ids


def _to_run_accepted(run: Run, plan: RunPlan) -> RunAccepted:
    return RunAccepted(
        run_id=run.id,
        session_key=plan.context_key or run.session_key,
        agent=run.agent_id,
        protocol=run.protocol,
        accepted_at=run.accepted_at,
        caller_trace=run.caller_trace,
        key_id=plan.request.principal.key_id,
        request_id=run.request_id,
    )


def _to_finished(run: Run, plan: RunPlan, end: RunEnded) -> RunFinished:
    accepted_at_ms, first_output_at_ms = run.accepted.accepted_at_ms, run.first_output_at_ms
    begun_at = (run.ended_at or run.accepted_at) if run.started_at_ms is None else run.started_at_ms / 1000
    asks_model = plan.request.call is None
    if not asks_model:
        first_output_at_ms = None
    return RunFinished(
        run.id,
        plan.context_key or run.session_key,
        plan.request.principal.key_id,
        run.request_id,
        run.agent_id,
        run.protocol,
        run.model if asks_model else None,
        "ok" if end.error is None else end.error.code,
        max(begun_at - run.accepted_at, 0.0),
        run.running_seconds if run.has_begun else None,
        None if first_output_at_ms is None else (first_output_at_ms - accepted_at_ms) / 1000,
        run.usage,
        run.step if asks_model else 0,
        run.has_begun,
        None if end.error is None else reason_of(end.error),
    )


def _drive(
    run: Run, loop: AgentLoop, begun: _BegunRun, limit: PausableDeadline, calls: Sequence[ModelCall]
) -> RunEnded:
    try:
        with run.scope, limit:
            loop.run(begun.prepared.model_request)
    except Cancelled:
        aborted = run.abort_reason or GatewayError("run_aborted", "The run was aborted.")
        return RunEnded(usage=total_of(calls), error=aborted)
    except Deadline:
        return RunEnded(usage=total_of(calls), error=begun.time.to_error())
    except GatewayError as error:
        return RunEnded(usage=total_of(calls), error=to_caller_error(error))
    except Exception:
        # The session has to be given back as after any other failure.
        logger.exception("run %s failed", run.id)
        return RunEnded(usage=total_of(calls), error=internal_error())
    return RunEnded(loop.output.stop_reason, total_of(calls))
