"""Numbered events of runs for watchers: from this process's memory, or from the database.

Those of detached runs are stored in any case, those of another process's runs as soon as they are watched here.

A run's events are translated and encoded once for all its watchers in a process. They never hold the run up: the more
there are, the less often they are woken, a few at a time.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from service.agent.event_log import ENDED, STARTED_NUMBER, end_events, events_after, queued_event
from service.agent.run import Run
from service.agent.run_reader import RunReader
from service.core.concurrency import Event, sleep, spawn
from service.core.errors import GatewayError
from service.core.ids import time_of
from service.gateway.run_outcome import failure_of, run_not_found
from service.gateway.run_registry import RunRegistry
from service.storage.database.errors import StoreError
from service.storage.runs.events import LoggedEvent
from service.storage.runs.records import RUN_ID_PREFIX, RunRecord, RunState
from service.storage.storage import Storage

logger = logging.getLogger("openclaw.runs")

#: How often a silent run is looked at: for its start, and for its watchers having left.
_QUIET_SECONDS = 0.25

#: Watchers are woken in groups, one after the other. So much time passes for each watcher, so that they take a part of
#: the CPU only, and at most so much for all of them.
_GROUPS = 128
_SECONDS_A_WATCHER = 0.0005
_LONGEST_PACE_SECONDS = 0.5

#: The most events that a watcher gets at once.
_EVENTS_AT_ONCE = 256


class EventPage(list[LoggedEvent]):
    """Consecutive events, which many watchers get."""

    _encoded: tuple[Callable[[LoggedEvent], bytes], bytes] | None = None

    def encode(self, encode: Callable[[LoggedEvent], bytes]) -> bytes:
        """Return all events as `encode` makes them; the same function is not called again for further watchers."""
        if self._encoded is None or self._encoded[0] is not encode:
            self._encoded = encode, b"".join(map(encode, self))
        return self._encoded[1]


class EventFeed:
    """The events of one run so far, for any number of watchers. A closed feed that has not ended was interrupted."""

    def __init__(self) -> None:
        self.watchers = 0
        self.is_closed = False
        self._events: list[LoggedEvent] = []
        self._news: dict[int, Event] = {}  # of the groups that wait
        self._latest: tuple[int, int, EventPage] | None = None

    @property
    def last(self) -> int:
        """The number of the last event; 0 before the first."""
        return self._events[-1].number if self._events else 0

    @property
    def has_ended(self) -> bool:
        """True once the last event of the run is there."""
        return bool(self._events) and self._events[-1].kind == ENDED

    @property
    def has_begun(self) -> bool:
        """True once the start of the run is there."""
        return self.last >= STARTED_NUMBER

    def extend(self, events: Sequence[LoggedEvent]) -> None:
        """Add events, which watchers get when they are woken."""
        self._events += events

    def close(self) -> None:
        """Let watchers go when they have what there is."""
        self.is_closed = True
        for group in tuple(self._news):
            self.wake(group)

    def wake(self, group: int) -> None:
        """Wake the watchers of a group."""
        news = self._news.pop(group, None)
        if news is not None:
            news.set()

    def wake_all(self) -> None:
        """Wake the watchers group by group, and let others run in between."""
        waiting = tuple(self._news)
        seconds = min(_LONGEST_PACE_SECONDS, self.watchers * _SECONDS_A_WATCHER) / (len(waiting) or 1)
        for group in waiting:
            self.wake(group)
            sleep(seconds)

    def read(self, after: int) -> EventPage:
        """Return events after number `after`, not all of them at once."""
        if self._latest is None or self._latest[:2] != (after, self.last):
            first = bisect_right(self._events, after, key=lambda event: event.number)
            found = self._events[first : first + _EVENTS_AT_ONCE]
            page = EventPage([found[0].after(after), *found[1:]] if found else ())
            self._latest = after, self.last, page
        return self._latest[2]

    def wait(self, after: int, seconds: float, group: int) -> bool:
        """Wait until there is more after number `after`, or no more will come; False if `seconds` pass before that."""
        return self.last > after or self.is_closed or self._news.setdefault(group, Event()).wait(seconds)


class Watch:
    """One watcher's way through a feed. `close` must be called, whether or not it was iterated."""

    def __init__(self, feed: EventFeed, after: int, quiet_seconds: float) -> None:
        self._feed = feed
        self._after = after
        self._quiet_seconds = quiet_seconds
        self._is_open = True
        self._group = feed.watchers % _GROUPS
        feed.watchers += 1

    @property
    def is_over(self) -> bool:
        """True if the run has ended and nothing is left to read."""
        return self._feed.has_ended and self._after >= self._feed.last

    def __iter__(self) -> Iterator[EventPage]:
        """Yield events in batches, an empty one after each quiet time; ends after the run, or when interrupted."""
        while self._is_open:
            batch = self._feed.read(self._after)
            if batch:
                self._after = batch[-1].number
                yield batch
            elif self._feed.has_ended or self._feed.is_closed:
                return
            elif not self._feed.wait(self._after, self._quiet_seconds, self._group):
                yield EventPage()

    def close(self) -> None:
        """Stop watching. A second call is a no-op."""
        if self._is_open:
            self._is_open = False
            self._feed.watchers -= 1
            self._feed.wake(self._group)


class EventFeeds:
    """The feeds of all runs that are watched in this process; `runs` has its own runs.

    `clock` gives seconds since 1970.
    """

    def __init__(self, storage: Storage, runs: RunRegistry, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._runs = runs
        self._clock = clock
        self._feeds: dict[str, EventFeed] = {}

    def watch(self, run_id: str, after: int, quiet_seconds: float) -> Watch:
        """Watch the events of a run behind number `after`, whichever process executes it.

        Raises `StoreError`, and `GatewayError`: `run_not_found`, or `run_events_gone` if they are not kept.
        """
        return Watch(self._feeds.get(run_id) or self._open(run_id), after, quiet_seconds)

    def close(self) -> None:
        """End all watches."""
        for feed in tuple(self._feeds.values()):
            feed.close()

    def _open(self, run_id: str) -> EventFeed:
        run = self._runs.find(run_id)
        if run is not None and not run.is_replay and not run.accepted.detached:
            return self._open_live(run)
        record = self._storage.records.get(run_id)
        if record is None:
            raise _events_gone(run_id) if self._is_past_retention(run_id) else run_not_found(run_id)
        if not record.detached and not record.state.is_final:
            self._storage.records.request_events(run_id)
        return self._open_stored(record)

    def _is_past_retention(self, run_id: str) -> bool:
        """Return True if a run with this id would have been deleted by now."""
        kept_seconds, began_at_ms = self._storage.runs_kept_seconds, time_of(run_id.removeprefix(RUN_ID_PREFIX))
        if kept_seconds is None or began_at_ms is None:
            return False
        return began_at_ms <= (self._clock() - kept_seconds) * 1000

    def _open_live(self, run: Run) -> EventFeed:
        feed = EventFeed()
        feed.extend(events_after(run, 0))
        if not feed.has_ended:
            self._feeds[run.id] = feed
            spawn(self._follow_live, run, feed)
        return feed

    def _open_stored(self, record: RunRecord) -> EventFeed:
        feed = self._feeds.get(record.id)  # another watcher may have opened it meanwhile
        if feed is None:
            feed = EventFeed()
            self._feeds[record.id] = feed
            try:
                feed.extend([queued_event(record.id, record.agent_id, record.session_key)])
                goes_on = self._read(record, feed)
            except BaseException:
                self._forget(record.id, feed)
                raise
            if not goes_on:
                self._forget(record.id, feed)
                raise _events_gone(record.id)
            if feed.has_ended:
                self._forget(record.id, feed)
            else:
                spawn(self._follow_stored, record.id, feed)
        return feed

    def _follow_live(self, run: Run, feed: EventFeed) -> None:
        for _ in run.follow(RunReader(_QUIET_SECONDS)):
            feed.extend(events_after(run, feed.last))
            feed.wake_all()
            if feed.has_ended or feed.is_closed or not feed.watchers:
                break
        self._forget(run.id, feed)

    def _follow_stored(self, run_id: str, feed: EventFeed) -> None:
        try:
            while not feed.has_ended and not feed.is_closed:
                news = self._storage.run_events.news_of(run_id)
                record = self._storage.records.get(run_id)  # before its events, which are complete once it has ended
                if record is None:
                    break
                goes_on = self._read(record, feed)
                feed.wake_all()
                if not goes_on or not feed.watchers:
                    break
                if record.gateway_id == self._storage.membership.id:
                    news.wait(_QUIET_SECONDS)
                else:
                    self._storage.run_events.wait_elsewhere(run_id, _QUIET_SECONDS)
        except StoreError as error:
            logger.warning("run %s can no longer be watched: %s", run_id, error)
        finally:
            self._storage.run_events.announce(run_id)  # nobody here waits for it any more
            self._forget(run_id, feed)

    def _read(self, record: RunRecord, feed: EventFeed) -> bool:
        """Add what is stored of a run; returns False if it has ended and its events were not stored."""
        while new := self._storage.run_events.read_after(record.id, feed.last):
            if not feed.has_begun and new[0].number != STARTED_NUMBER:
                break  # only its reasoning was stored, for repetitions of its answer
            feed.extend(new)
        if not record.state.is_final:
            return True
        if not (record.detached or feed.has_begun):
            return False
        error = None if record.state is RunState.OK else failure_of(record)
        feed.extend(end_events(feed.last, record.usage, record.state, record.stop_reason, error))
        return True

    def _forget(self, run_id: str, feed: EventFeed) -> None:
        if self._feeds.get(run_id) is feed:
            del self._feeds[run_id]
        feed.close()


def _events_gone(run_id: str) -> GatewayError:
    """The error for a run whose events are not kept."""
    text = (
        f"The events of run {run_id} are not kept, or only by the gateway that executed it. Kept are those of runs "
        "that POST /v1/runs starts, and of chat completions with x-openclaw-on-disconnect: continue."
    )
    return GatewayError("run_events_gone", text, param="run_id")
