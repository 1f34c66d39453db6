"""What a configuration makes of the Gateway: one value, swapped whole, let go of when its last run has ended."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.agent.conversation import IncomingMessage
from service.config.agents import Roster
from service.core.concurrency import RLock, spawn
from service.core.dataclass import record
from service.models.catalog import ModelCatalog
from service.models.fallback import RetryPolicy
from service.models.learned_windows import LearnedWindows
from service.tools.registry import ToolRegistry

logger = logging.getLogger("openclaw.gateway")

ImageCheck = Callable[[Sequence[IncomingMessage]], tuple[IncomingMessage, ...]]


@record
class RunLimits:
    """What bounds runs: how often the model is asked in one, how its failures are borne, how many go on at once."""

    max_turns: int
    retries: RetryPolicy
    max_concurrent: int | None = None


@record
class Runtime:
    """Who answers, with which models and tools, within which limits.

    `toolboxes` has each agent's own tools, `check_images` makes sure of a request's pictures, `windows` learns how much
    the models take: another configuration may mean others by the same names. `hidden` are the gateway's own files,
    which no tool may reach.
    """

    roster: Roster
    catalog: ModelCatalog
    toolboxes: ToolRegistry
    check_images: ImageCheck
    limits: RunLimits
    windows: LearnedWindows
    hidden: tuple[Path, ...]

    def adopt(self, older: Runtime) -> None:
        """Go on with what is open in `older` and configured the same here; `older` no longer closes that."""
        self.catalog.adopt(older.catalog)
        self.toolboxes.adopt(older.toolboxes)

    def close(self) -> None:
        """Let go of models and tools that nobody adopted. Twice is a no-op."""
        self.toolboxes.close()
        self.catalog.close()


class RuntimeLease:
    """Runtime and how many use them: whoever `retain`s them `release`s them once."""

    def __init__(self, parts: Runtime, on_free: Callable[[], None]) -> None:
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


class RuntimeSlot:
    """The parts in force, and earlier ones for as long as a run uses them.

    Earlier ones are closed in their order: what later ones adopted may still be in use by an earlier run.
    """

    def __init__(self, parts: Runtime) -> None:
        self._generations: deque[RuntimeLease] = deque([RuntimeLease(parts, self._let_go)])
        self._closing = RLock()

    @property
    def now(self) -> Runtime:
        """The parts in force."""
        return self._generations[-1].parts

    @contextmanager
    def held(self) -> Iterator[RuntimeLease]:
        """The parts in force, kept open while the block runs."""
        held = self._generations[-1]
        held.retain()
        try:
            yield held
        finally:
            held.release()

    def replace(self, parts: Runtime) -> None:
        """Have `parts` in force from now on; who uses the ones before goes on with those."""
        parts.adopt(self.now)
        self._generations.append(RuntimeLease(parts, self._let_go))
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

    def _close_all(self, freed: Sequence[Runtime]) -> None:
        with self._closing:
            for parts in freed:
                try:
                    parts.close()
                except Exception:
                    # Nobody waits for this greenlet: what goes wrong in it is said here or nowhere.
                    logger.exception("models or tools of an earlier configuration could not be closed")
