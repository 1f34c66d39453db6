"""Storing of a run's events while it goes on."""

from __future__ import annotations

import logging

from service.agent.event_log import events_after, progress_of
from service.agent.run import Run
from service.agent.run_reader import RunReader
from service.core.concurrency import sleep
from service.storage.database.errors import StoreError
from service.storage.runs.events import AppendEvents, EventBatch, RunProgress, to_batches
from service.storage.storage import Storage

logger = logging.getLogger("openclaw.runs")

#: Events that come within this time after a commit share the next one.
_PACE_SECONDS = 0.1

#: How often a silent run's progress is looked at.
_QUIET_SECONDS = 0.25


class EventRecorder:
    """Stores the events of `run`, which is recorded already: its first event is part of its record."""

    def __init__(self, run: Run, storage: Storage) -> None:
        self._run = run
        self._storage = storage
        self._stored = 1
        self._progress: RunProgress | None = None

    def record(self) -> None:
        """Store events in batches until the run has ended. Never raises; what fails is stored with the next batch."""
        for _ in self._run.follow(RunReader(_QUIET_SECONDS)):
            if self._run.end is not None:
                break
            try:
                is_own = self._store()
            except StoreError as error:
                logger.warning("run %s: its events could not be stored yet: %s", self._run.id, error)
            except Exception:
                # Nobody waits for this greenlet, so its failure is logged here.
                logger.exception("run %s: its events could not be stored", self._run.id)
                break
            else:
                if not is_own:
                    break
            sleep(_PACE_SECONDS)
        self._run.wait_for_end(None)
        self._storage.run_events.announce(self._run.id)

    def remaining(self) -> tuple[EventBatch, ...]:
        """Return the events so far that are not known to be stored, for the commit of the run's end."""
        return tuple(to_batches(self._stored + 1, events_after(self._run, self._stored)))

    def _store(self) -> bool:
        """Store what is new; returns False if the run is not this gateway's any more."""
        batches, progress = self.remaining(), progress_of(self._run)
        if not batches and progress == self._progress:
            return True
        gateway_id, peers = self._storage.membership.id, self._storage.membership.has_peers
        is_own = self._storage.run_events.append(AppendEvents(self._run.id, gateway_id, batches, progress, peers))
        if batches and is_own:
            self._stored = batches[-1].events[-1].number
        self._progress = progress
        return is_own
