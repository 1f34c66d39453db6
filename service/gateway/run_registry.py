"""The runs of this process: those under way and, for a while, those that have ended."""

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
    """How long, how many and how many characters of finished runs are kept, of each door."""

    seconds: float = 300
    runs: int = 512
    characters: int = 16 * 1024 * 1024


class RunRegistry:
    """The runs that go on and, for a while, those that have ended; and who is told of them all.

    `clock` gives seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float], retention: Retention | None = None) -> None:
        self._clock = clock
        self._retention = retention or Retention()
        self._running: dict[str, Run] = {}
        self._sessions: defaultdict[str, list[Run]] = defaultdict(list)
        self._ended: defaultdict[str, OrderedDict[str, Run]] = defaultdict(OrderedDict)
        self._ended_characters: defaultdict[str, int] = defaultdict(int)
        self._observers: tuple[Observer, ...] = ()

    def __len__(self) -> int:
        """How many runs go on."""
        return len(self._running)

    def add(self, run: Run) -> None:
        """Let `run`, which begins, be found, and tell the observers of it from now on."""
        self._running[run.id] = run
        self._sessions[run.session_key].append(run)
        run.observer = self._on_event
        self._tell(run, RunStarted())

    def find(self, run_id: str) -> Run | None:
        """The run with this id, going on or kept."""
        self._forget_old()
        found = self._running.get(run_id)
        kept = (ended[run_id] for ended in self._ended.values() if run_id in ended)
        return found or next(kept, None)

    def running(self, session_key: str | None = None) -> tuple[Run, ...]:
        """The runs that go on, all or those of one session, the oldest first."""
        if session_key is None:
            return tuple(self._running.values())
        return tuple(self._sessions.get(session_key, ()))

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Tell `observer` of every run from now on, until what is returned is called."""
        self._observers = (*self._observers, observer)

        def unsubscribe() -> None:
            self._observers = tuple(one for one in self._observers if one is not observer)

        return unsubscribe

    def _on_event(self, run: Run, event: RunStarted | RunEvent) -> None:
        if isinstance(event, RunEnded):
            run.ended_at = self._clock()
            self._retire(run)
        self._tell(run, event)

    def _tell(self, run: Run, event: RunStarted | RunEvent) -> None:
        for observer in self._observers:
            try:
                observer(run, event)
            except Exception:
                # Whoever looks on must not break what is looked at: the defect is logged, the run goes on.
                logger.exception("an observer of run %s failed", run.id)

    def _retire(self, run: Run) -> None:
        self._running.pop(run.id, None)
        runs = self._sessions.get(run.session_key, [])
        if run in runs:
            runs.remove(run)
        if not runs:
            self._sessions.pop(run.session_key, None)
        self._ended[run.door][run.id] = run
        self._ended_characters[run.door] += run.characters
        self._forget_old()

    def _forget_old(self) -> None:
        kept, oldest = self._retention, self._clock() - self._retention.seconds
        for door, ended in self._ended.items():
            while ended:
                first = next(iter(ended.values()))
                within = len(ended) <= kept.runs and self._ended_characters[door] <= kept.characters
                if within and (first.ended_at or 0) >= oldest:
                    break
                del ended[first.id]
                self._ended_characters[door] -= first.characters
