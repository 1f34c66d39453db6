"""A reader of a run's log."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.core.concurrency import Event, Timeout


@dataclass(slots=True, eq=False)
class RunReader:
    """A reader's position in the log, and the event that wakes it."""

    position: int = 0
    news: Event = field(default_factory=Event)

    def has_news(self, quiet: Timeout) -> bool:
        """Wait for news; return False if none came in time."""
        try:
            with quiet:
                self.news.wait()
        except TimeoutError:
            return False
        return True
