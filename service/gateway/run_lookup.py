"""Runs as they are: those that this process executes, joined with the records of all others."""

from __future__ import annotations

from time import monotonic

from service.agent.event_log import current_tool
from service.agent.run import Run
from service.gateway.run_registry import RunRegistry
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.pages import RunFilter, RunPosition, is_behind, list_runs, newest_first
from service.storage.runs.records import RunRecord, RunState
from service.storage.storage import Storage

#: How long a look at a run of another process waits for its progress.
_PROGRESS_SECONDS = 1.0


class RunLookup:
    """Finds and lists the runs of all gateways that share `storage`; `runs` has those of this process."""

    def __init__(self, storage: Storage, runs: RunRegistry) -> None:
        self._storage = storage
        self._runs = runs

    def find_executed(self, run_id: str) -> Run | None:
        """Return the run if this process executes it, or is about to."""
        run = self._runs.find(run_id)
        return None if run is None or run.is_replay or run.end is not None else run

    def find(self, run_id: str) -> RunRecord | None:
        """Return a run, if it is known. Raises `StoreError`."""
        run = self.find_executed(run_id)
        here = None if run is None else self._to_record(run)
        recorded = self._storage.records.get(run_id)
        return recorded if here is None or (recorded is not None and _is_ahead(recorded, here)) else here

    def has_answer(self, key: IdempotencyKey) -> bool:
        """Return True if a run that has not failed answers requests with `key`. Raises `StoreError`."""
        claim = self._storage.claims.find(key)
        record = None if claim is None else self._storage.records.get(claim.run_id)
        return record is not None and (record.state is RunState.OK or not record.state.is_final)

    def list(self, which: RunFilter, after: RunPosition | None, limit: int) -> tuple[RunRecord, ...]:
        """Return at most `limit` runs, newest first, behind `after`. Raises `StoreError`."""
        # Before the records are read, so that a run that ends meanwhile is in both, not in neither.
        live = {run.id: self._to_record(run) for run in self._runs.active() if not run.is_replay and run.end is None}
        recorded = list_runs(self._storage.database, which, after, limit + len(live))
        elsewhere = [run for run in recorded if run.id not in live or _is_ahead(run, live[run.id])]
        for run in elsewhere:
            live.pop(run.id, None)
        here = [run for run in live.values() if which.admits(run) and is_behind(run, after)]
        return newest_first([*here, *elsewhere])[:limit]

    def with_progress(self, run: RunRecord) -> RunRecord:
        """Return a run with the progress that another process makes with it, as far as it has begun.

        That is stored from the first call on; as long as nothing is, this waits for at most a second. Raises
        `StoreError`.
        """
        until = monotonic() + _PROGRESS_SECONDS
        if self.request_progress(run):
            while run.state.is_executing and run.step is None and (left := until - monotonic()) > 0:
                self._storage.run_events.wait_elsewhere(run.id, left)
                run = self.find(run.id) or run
        return run

    def request_progress(self, run: RunRecord) -> bool:
        """Have the process that executes a run store its progress; returns False if that is this one, or none."""
        if run.gateway_id == self._storage.membership.id or run.state.is_final:
            return False
        return run.detached or run.followed or self._storage.records.request_events(run.id)

    def _to_record(self, run: Run) -> RunRecord:
        started_at_ms = run.started_at_ms
        if run.accepted.stateless and not run.accepted.is_recorded_early and started_at_ms is not None:
            started_at_ms = run.accepted.accepted_at_ms  # as it will be stored
        return RunRecord(
            id=run.id,
            session_key=run.session_key,
            agent_id=run.agent_id,
            gateway_id=self._storage.membership.id,
            protocol=run.protocol,
            state=run.state,
            accepted_at_ms=run.accepted.accepted_at_ms,
            started_at_ms=started_at_ms,
            ended_at_ms=None,
            model=run.model,
            stop_reason=None,
            reply_count=0,
            usage=run.usage,
            error_code=None,
            error_message=None,
            first_output_at_ms=run.first_output_at_ms,
            step=run.step or None,
            tool=current_tool(run),
            metadata=run.accepted.metadata,
            response=run.accepted.response,
            detached=run.accepted.detached,
        )


def _is_ahead(recorded: RunRecord, here: RunRecord) -> bool:
    """Return True if the record shows more: the end, or that another process executes the run."""
    return recorded.state.is_final or (recorded.state.is_executing and not here.state.is_executing)
