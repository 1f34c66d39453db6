"""What a configuration makes of the Gateway: one value, swapped whole, let go of when its last run has ended."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from service.agent.conversation import IncomingMessage
from service.config.agents import Roster
from service.core.concurrency import RLock, spawn
from service.core.dataclass import value
from service.models.catalog import ModelCatalog
from service.models.fallback import RetryPolicy
from service.models.learned_windows import ToldWindows
from service.tools.registry import Toolboxes

logger = logging.getLogger("openclaw.gateway")

ImageCheck = Callable[[Sequence[IncomingMessage]], tuple[IncomingMessage, ...]]


@value
class RunLimits:
    """What bounds runs: how often the model is asked in one, how its failures are borne, how many go on at once."""

    max_turns: int
    retries: RetryPolicy
    max_concurrent: int | None = None


@value
class Parts:
    """Who answers, with which models and tools, within which limits.

    `toolboxes` has each agent's own tools, `check_images` makes sure of a request's pictures, `windows` learns how much
    the models take: another configuration may mean others by the same names.
    """

    roster: Roster
    catalog: ModelCatalog
    toolboxes: Toolboxes
    check_images: ImageCheck
    limits: RunLimits
    windows: ToldWindows

    def adopt(self, older: Parts) -> None:
        """Go on with what is open in `older` and configured the same here; `older` no longer closes that."""
        self.catalog.adopt(older.catalog)
        self.toolboxes.adopt(older.toolboxes)

    def close(self) -> None:
        """Let go of models and tools that nobody adopted. Twice is a no-op."""
        self.toolboxes.close()
        self.catalog.close()


class Held:
    """Parts and how many use them: whoever `retain`s them `release`s them once."""

    def __init__(self, parts: Parts, on_free: Callable[[], None]) -> None:
        self.parts = parts
        self.users = 0
        self._on_free = on_free

    def retain(self) -> None:
        """Use the parts a while longer."""
        self.users += 1

    def release(self) -> None:
        """Use them no longer."""
        self.users -= 1
        if not self.users:
            self._on_free()


class CurrentParts:
    """The parts in force, and earlier ones for as long as a run uses them.

    Earlier ones are closed in their order: what later ones adopted may still be in use by an earlier run.
    """

    def __init__(self, parts: Parts) -> None:
        self._generations: deque[Held] = deque([Held(parts, self._let_go)])
        self._closing = RLock()

    @property
    def now(self) -> Parts:
        """The parts in force."""
        return self._generations[-1].parts

    @contextmanager
    def held(self) -> Iterator[Held]:
        """The parts in force, kept open while the block runs."""
        held = self._generations[-1]
        held.retain()
        try:
            yield held
        finally:
            held.release()

    def replace(self, parts: Parts) -> None:
        """Have `parts` in force from now on; who uses the ones before goes on with those."""
        parts.adopt(self.now)
        self._generations.append(Held(parts, self._let_go))
        self._let_go()

    def close(self) -> None:
        """Close all, whoever uses them. Twice is a no-op."""
        with self._closing:
            for held in self._generations:
                held.parts.close()

    def _let_go(self) -> None:
        freed = []
        while len(self._generations) > 1 and not self._generations[0].users:
            freed.append(self._generations.popleft().parts)
        if freed:
            spawn(self._close_all, freed)  # ending a program takes time that no run has to wait for

    def _close_all(self, freed: Sequence[Parts]) -> None:
        with self._closing:
            for parts in freed:
                try:
                    parts.close()
                except Exception:
                    # Nobody waits for this greenlet: what goes wrong in it is said here or nowhere.
                    logger.exception("models or tools of an earlier configuration could not be closed")
