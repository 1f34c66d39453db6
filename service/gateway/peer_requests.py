"""Requests about runs between gateways that share a database: to end them, and to store their events."""

from __future__ import annotations

from service.gateway.run_execution import RunExecutor
from service.gateway.run_lookup import RunLookup
from service.gateway.run_registry import RunRegistry
from service.storage.storage import Storage


class PeerRequests:
    """Ends runs, those of other gateways too, and does what other gateways ask for."""

    def __init__(self, storage: Storage, runs: RunRegistry, lookup: RunLookup, executor: RunExecutor) -> None:
        self._storage = storage
        self._runs = runs
        self._lookup = lookup
        self._executor = executor

    def abort(self, run_id: str) -> bool:
        """End a run soon, in whatever state and process; whether it had not ended. Raises `StoreError`."""
        return self._abort_here(run_id) or self._end_forgotten(run_id) or self._storage.records.request_abort(run_id)

    def abort_in_sessions(self) -> None:
        """Abort the runs whose sessions other processes may have taken: their turns could not be stored."""
        for run in self._runs.running():
            if not run.accepted.stateless:
                run.abort()

    def poll(self) -> None:
        """Notice what other processes have asked for. Raises `StoreError`."""
        if self._storage.membership.has_peers:
            requests = self._storage.records.list_requests(self._storage.membership.id)
            for run_id in requests.to_abort:
                if not self._abort_here(run_id):
                    self._end_forgotten(run_id)
            for run_id in requests.followed:
                run = self._lookup.find_executed(run_id)
                if run is not None:
                    self._executor.record_events(run)
        self._storage.approvals.check()

    def _abort_here(self, run_id: str) -> bool:
        run = self._lookup.find_executed(run_id)
        if run is not None:
            run.abort()
        return run is not None

    def _end_forgotten(self, run_id: str) -> bool:
        record = self._storage.records.get(run_id)
        # The run may have been accepted here since.
        return record is not None and (self._abort_here(run_id) or self._storage.ledger.end_forgotten(record))
