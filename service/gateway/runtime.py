"""The runtime built from a configuration: one value, swapped whole and closed when its last run has ended."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from service.agent.conversation import IncomingMessage
from service.agent.files import FileReader
from service.config.approvals import ApprovalsConfig
from service.config.gateway import HttpConfig
from service.config.limits import LimitsConfig
from service.config.roster import Roster
from service.config.tasks import TasksConfig
from service.core.byte_budget import DEFAULT_BYTES
from service.core.concurrency import RLock, spawn
from service.core.dataclass import record
from service.core.fetch.client import PublicHttpClient
from service.models.catalog import ModelCatalog
from service.models.context_windows import LearnedWindows
from service.models.fallback import RetryPolicy
from service.tools.process_slots import ToolSlots
from service.tools.registry import ToolRegistry

logger = logging.getLogger("openclaw.gateway")

ImageCheck = Callable[[Sequence[IncomingMessage]], tuple[IncomingMessage, ...]]


@record
class RunLimits:
    """Limits of runs: model calls in one, retries, how many run at once, the data in flight, waits for approvals.

    An answer that does not have its format is sent back up to `repairs` times. `queue_seconds` limits the wait for a
    session; `None` is the agent's time limit.
    """

    max_turns: int
    retries: RetryPolicy
    max_concurrent: int | None = None
    in_flight_bytes: int = DEFAULT_BYTES
    approvals: ApprovalsConfig = ApprovalsConfig()
    queue_seconds: float | None = None
    repairs: int = 1


@record
class Runtime:
    """Agents, models, tools and limits.

    `toolboxes` has each agent's own tools, `check_images` fetches and checks a request's images. `windows` records the
    models' context windows, because another configuration may mean other models by the same names. `hidden` are the
    gateway's own files, which no tool may reach. `slots` limit the processes of tools, in all runtimes together.
    `http` has the rules for HTTP requests, `webhook_client` sends the ends of runs, `tasks` recognizes side requests.
    `files` reads those that requests bring. `embedding_model` ("provider/model") makes embeddings. `rate_limits` are
    those of callers and agents.
    """

    roster: Roster
    catalog: ModelCatalog
    toolboxes: ToolRegistry
    check_images: ImageCheck
    limits: RunLimits
    windows: LearnedWindows
    hidden: tuple[Path, ...]
    slots: ToolSlots
    http: HttpConfig
    webhook_client: PublicHttpClient
    tasks: TasksConfig
    files: FileReader
    embedding_model: str | None = None
    rate_limits: LimitsConfig = LimitsConfig()

    def adopt(self, older: Runtime) -> None:
        """Take over what is open in `older` and configured the same here; `older` does not close that."""
        self.catalog.adopt(older.catalog)
        self.toolboxes.adopt(older.toolboxes)

    def close(self) -> None:
        """Close the models and tools that were not taken over. Twice is a no-op."""
        self.toolboxes.close()
        self.catalog.close()


class RuntimeLease:
    """A runtime and the number of its users: each `retain` is followed by one `release`, as in a `with` block.

    `on_free` is called when the last user of one that is no longer in force has gone.
    """

    on_free: Callable[[], None] | None = None

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.users = 0

    def retain(self) -> Self:
        """Add a user."""
        self.users += 1
        return self

    def release(self, *_exc_info: object) -> None:
        """Remove a user."""
        self.users -= 1
        if self.on_free is not None and not self.users:
            self.on_free()

    __enter__ = retain
    __exit__ = release


class RuntimeSlot:
    """The runtime in force, `current`, and earlier ones for as long as a run uses them.

    Earlier ones are closed in their order: what later ones adopted may still be in use by an earlier run.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.current = runtime
        self._generations: deque[RuntimeLease] = deque([RuntimeLease(runtime)])
        self._closing = RLock()

    def lease(self) -> RuntimeLease:
        """The runtime in force, which a `with` block keeps open."""
        return self._generations[-1]

    def replace(self, runtime: Runtime) -> None:
        """Put `runtime` in force; users of earlier ones keep those."""
        runtime.adopt(self.current)
        self._generations[-1].on_free = self._close_unused
        self._generations.append(RuntimeLease(runtime))
        self.current = runtime
        self._close_unused()

    def close(self) -> None:
        """Close all, used or not. Twice is a no-op."""
        with self._closing:
            for lease in self._generations:
                lease.runtime.close()

    def _close_unused(self) -> None:
        unused = []
        while len(self._generations) > 1 and not self._generations[0].users:
            unused.append(self._generations.popleft().runtime)
        if unused:
            spawn(self._close_all, unused)  # ending a program takes time that no run has to wait for

    def _close_all(self, unused: Sequence[Runtime]) -> None:
        with self._closing:
            for runtime in unused:
                try:
                    runtime.close()
                except Exception:
                    # Nobody waits for this greenlet, so its failure is logged here.
                    logger.exception("models or tools of an earlier configuration could not be closed")


def log_unlisted_models(runtimes: RuntimeSlot) -> None:
    """Log a note for each configured model that its provider does not list. Never raises."""
    with runtimes.lease() as lease:
        try:
            found = lease.runtime.catalog.find_unlisted_models(lease.runtime.roster.agents)
        except Exception:
            # Nobody waits for this greenlet, so its failure is logged here.
            logger.exception("the lists of models could not be compared")
            return
    for unlisted in found:
        logger.info("Note: %s", unlisted.to_text())
