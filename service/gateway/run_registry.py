"""Every run of this process: queued, running and, for a while, ended."""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from service.agent.events import RunEnded, RunEvent, RunStarted
from service.agent.run import Observer, Run
from service.core.dataclass import record

logger = logging.getLogger("openclaw.runs")


@record
class Retention:
    """Retention of ended runs per protocol: time, number and characters."""

    seconds: float = 600
    runs: int = 1024
    characters: int = 16 * 1024 * 1024


class RunRegistry:
    """The runs of this process by id and by session, and the observers of them all.

    `clock` gives seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float], retention: Retention | None = None) -> None:
        self._clock = clock
        self._retention = retention or Retention()
        self._active: dict[str, Run] = {}
        self._sessions: defaultdict[str, list[Run]] = defaultdict(list)
        self._ended: defaultdict[str, OrderedDict[str, Run]] = defaultdict(OrderedDict)
        self._ended_characters: defaultdict[str, int] = defaultdict(int)
        self._observers: tuple[Observer, ...] = ()

    def add(self, run: Run) -> None:
        """Register an accepted run until some time after its end."""
        self._active[run.id] = run
        self._sessions[run.session_key].append(run)
        run.observer = self._on_event

    def discard(self, run: Run) -> None:
        """Forget a run that was not accepted after all."""
        run.observer = None
        self._remove(run)

    def find(self, run_id: str) -> Run | None:
        """The run with this id, in whatever state."""
        found = self._active.get(run_id)
        if found is not None:
            return found
        self._forget_old()
        kept = (ended[run_id] for ended in self._ended.values() if run_id in ended)
        return next(kept, None)

    def active(self, session_key: str | None = None) -> tuple[Run, ...]:
        """The runs that have not ended, all or those of one session, the oldest first."""
        if session_key is None:
            return tuple(self._active.values())
        return tuple(self._sessions.get(session_key, ()))

    def running(self, session_key: str | None = None) -> tuple[Run, ...]:
        """The active runs that this process executes and that have begun."""
        active = self.active(session_key)
        return tuple(run for run in active if run.state.is_executing and not run.is_replay)

    def join_detached(self) -> None:
        """Wait for the end of the runs that go on without a connection."""
        for run in self.active():
            if run.accepted.detached and not run.is_replay:
                run.wait_for_end(None)

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` with the events of every run that begins, until the returned function is called."""
        self._observers = (*self._observers, observer)

        def unsubscribe() -> None:
            self._observers = tuple(one for one in self._observers if one is not observer)

        return unsubscribe

    def _on_event(self, run: Run, event: RunStarted | RunEvent) -> None:
        if isinstance(event, RunEnded):
            run.ended_at = run.ended_at or self._clock()
            self._remove(run)
            self._ended[run.protocol][run.id] = run
            self._ended_characters[run.protocol] += run.characters
            self._forget_old()
        if not run.has_begun or run.is_replay:
            return
        for observer in self._observers:
            try:
                observer(run, event)
            except Exception:
                # An observer must not break what it observes: the defect is logged, the run continues.
                logger.exception("an observer of run %s failed", run.id)

    def _remove(self, run: Run) -> None:
        self._active.pop(run.id, None)
        runs = self._sessions.get(run.session_key, [])
        if run in runs:
            runs.remove(run)
        if not runs:
            self._sessions.pop(run.session_key, None)

    def _forget_old(self) -> None:
        kept, oldest = self._retention, self._clock() - self._retention.seconds
        for protocol, ended in self._ended.items():
            while ended:
                first = next(iter(ended.values()))
                within = len(ended) <= kept.runs and self._ended_characters[protocol] <= kept.characters
                if within and (first.ended_at or 0) >= oldest:
                    break
                del ended[first.id]
                self._ended_characters[protocol] -= first.characters
