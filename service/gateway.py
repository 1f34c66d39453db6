"""The Gateway: starts, tracks and ends runs. Every door (HTTP and what comes later) calls exactly this.

`start` is eager: whatever can be refused is refused before it returns, so that a refusal keeps its own status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.agents import Agent, Roster
from service.compaction import Compactor, TokenEstimator
from service.concurrency import Cancelled, Deadline, deadline, spawn
from service.conversation import Conversation, IncomingMessage, select_new
from service.errors import GatewayError, internal_error
from service.events import RunEnded
from service.messages import Function, Sampling, ToolChoice
from service.models import ChosenModel, ModelCatalog
from service.prompt import to_system_text
from service.providers import ModelRequest
from service.retries import ResilientProvider, RetryPolicy
from service.runner import AgentLoop, AgentTools, ContextWindow, Reply
from service.runs import Run
from service.session_choice import choose_session
from service.sessions.keys import SessionKey
from service.sessions.lanes import Lanes
from service.sessions.store import SessionStore
from service.slots import RunSlots
from service.tools import ToolContext
from service.tools.toolbox import Toolbox
from service.tools.toolboxes import Toolboxes

logger = logging.getLogger("openclaw.gateway")

ImageCheck = Callable[[Sequence[IncomingMessage]], tuple[IncomingMessage, ...]]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a caller asks for, in our own words; a door makes it from its wire.

    `model` and `agent_id` name the agent, `provider_model` (`provider/model`) replaces the agent's model for this run,
    `session_key` and `user` pick the session, `channel` is told to the agent.
    """

    messages: tuple[IncomingMessage, ...]
    system_text: str = ""
    model: str | None = None
    agent_id: str | None = None
    provider_model: str | None = None
    session_key: str | None = None
    user: str | None = None
    channel: str | None = None
    functions: tuple[Function, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What bounds a run: how often the model is asked in one, how failures of a model are borne."""

    max_turns: int
    retries: RetryPolicy


@dataclass(frozen=True, slots=True)
class _Work:
    """All that a started run needs; `release` gives back the session and the room it took."""

    agent: Agent
    choices: tuple[ChosenModel, ...]
    request: ModelRequest
    conversation: Conversation
    tools: AgentTools
    release: Callable[[], None]


class Gateway:
    """Runs agents for its doors.

    `toolboxes` has each agent's own tools, `check_images` makes sure of a request's pictures, `estimator` learns what
    conversations cost. `clock` gives seconds since 1970, `new_id` fresh UUIDs as text.
    """

    def __init__(
        self,
        roster: Roster,
        catalog: ModelCatalog,
        store: SessionStore,
        toolboxes: Toolboxes,
        check_images: ImageCheck,
        *,
        lanes: Lanes,
        slots: RunSlots,
        limits: RunLimits,
        estimator: TokenEstimator,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.roster = roster
        self.catalog = catalog
        self.started_at = clock()
        self._store = store
        self._toolboxes = toolboxes
        self._check_images = check_images
        self._lanes = lanes
        self._slots = slots
        self._limits = limits
        self._estimator = estimator
        self._clock = clock
        self._new_id = new_id
        self._runs: set[Run] = set()
        self._draining = False

    def start(self, turn: Turn) -> Run:
        """Begin a run and return it; it goes on by itself whether or not anybody follows it.

        Waits for the session's turn if it is busy. Raises `GatewayError` for everything that is wrong with the
        request: an unknown agent or model, a reserved session key, an image the model cannot read, nothing to answer.
        """
        if self._draining:
            raise GatewayError("shutting_down", "The gateway is shutting down. Try again soon.")
        agent = self.roster.resolve(turn.model, turn.agent_id)
        choices = self.catalog.choices(turn.provider_model, agent)
        _check_images(turn, choices[0])
        key = choose_session(agent.id, turn.session_key, turn.user, self._new_id)
        release = self._enter(key, agent)
        try:
            run = Run(f"chatcmpl_{self._new_id()}", key.key, agent.id, self._clock())
            work = self._prepare(turn, agent, choices, key, run, release)
        except BaseException:
            release()
            raise
        self._runs.add(run)
        spawn(self._execute, run, work)
        return run

    def notices(self) -> tuple[str, ...]:
        """What the configuration says that has no effect."""
        return self._toolboxes.notices()

    def failing(self) -> list[str]:
        """What keeps the Gateway from serving, in words; empty when it is ready."""
        reasons = ["shutting down"] if self._draining else []
        try:
            self._store.check()
        except Exception:
            # Whatever is wrong with the store, the answer is the same: not ready, and the log says why.
            logger.exception("the session store is not usable")
            reasons.append("session store")
        return reasons

    @property
    def running(self) -> int:
        """How many runs go on."""
        return len(self._runs)

    def drain(self) -> None:
        """Accept no further runs; those under way go on."""
        self._draining = True

    def close(self) -> None:
        """Abort what still runs and let go of models and store. Twice is a no-op."""
        self._draining = True
        for run in list(self._runs):
            run.abort()
            for _ in run.follow():
                pass
        self._toolboxes.close()
        self.catalog.close()
        self._store.close()

    def _enter(self, key: SessionKey, agent: Agent) -> Callable[[], None]:
        """Take the session, then room for a run; returns what gives both back."""
        lane = None if key.fresh else self._lanes.enter(key.key, agent.timeout_seconds)
        try:
            self._slots.enter()
        except BaseException:
            if lane is not None:
                lane.release()
            raise

        def release() -> None:
            self._slots.leave()
            if lane is not None:
                lane.release()

        return release

    def _prepare(
        self,
        turn: Turn,
        agent: Agent,
        choices: tuple[ChosenModel, ...],
        key: SessionKey,
        run: Run,
        release: Callable[[], None],
    ) -> _Work:
        history = () if key.fresh else self._store.load_conversation(key.key)
        new = self._check_images(select_new(history, turn.messages))
        conversation = Conversation(history, tuple(item.message for item in new))
        request = ModelRequest(
            model=choices[0].id,
            system=to_system_text(agent, channel=turn.channel, request_text=turn.system_text),
            messages=conversation.messages,
            sampling=turn.sampling,
        )
        own = self._toolboxes.of(agent)
        _check_names(turn.functions, own)
        context = ToolContext(agent.id, agent.workspace, run.session_key, run.id)
        tools = AgentTools(own, context, turn.functions, turn.tool_choice)
        return _Work(agent, choices, request, conversation, tools, release)

    def _execute(self, run: Run, work: _Work) -> None:
        try:
            end = self._outcome(run, work)
        except Exception:
            # A defect must not leave readers waiting: it is logged here and told as itself.
            logger.exception("run %s failed", run.id)
            end = RunEnded(error=internal_error())
        finally:
            work.release()
            self._runs.discard(run)
        run.append(end)

    def _outcome(self, run: Run, work: _Work) -> RunEnded:
        reply = Reply()
        provider = ResilientProvider(work.choices, self._limits.retries, clock=self._clock)
        window = ContextWindow(work.choices[0].context_window, Compactor(self._estimator), self._estimator)
        loop = AgentLoop(run, provider, work.tools, window, self._limits.max_turns, reply)
        try:
            with run.scope, deadline(work.agent.timeout_seconds):
                loop.run(work.request)
        except Cancelled:
            if reply.to_messages():
                self._commit(run, work, reply, provider)
            return RunEnded(error=GatewayError("run_aborted", "The run was aborted."))
        except Deadline:
            text = f"The run took longer than the agent's limit of {work.agent.timeout_seconds:g} seconds."
            return RunEnded(error=GatewayError("run_timeout", text))
        except GatewayError as error:
            logger.warning("run %s failed: %s", run.id, error.code)
            return RunEnded(error=error)
        self._commit(run, work, reply, provider)
        return RunEnded(reply.stop_reason, reply.usage)

    def _commit(self, run: Run, work: _Work, reply: Reply, provider: ResilientProvider) -> None:
        messages = (*work.conversation.new, *reply.to_messages())
        model = (provider.answered or work.choices[0]).ref
        self._store.append_turn(run.session_key, run.agent_id, run.id, messages, usage=reply.usage, model=model)
        if reply.summary is not None:
            kept = reply.kept + len(reply.to_messages())
            self._store.append_summary(run.session_key, run.id, reply.summary, kept=kept)


def _check_names(functions: tuple[Function, ...], own: Toolbox) -> None:
    for index, function in enumerate(functions):
        if function.name in own:
            text = f'The agent has a tool of its own that is called "{function.name}". Give yours another name.'
            raise GatewayError("invalid_value", text, param=f"tools[{index}].function.name")


def _check_images(turn: Turn, model: ChosenModel) -> None:
    if model.takes_images:
        return
    for item in turn.messages:
        if item.message.has_image:
            text = f"The model {model.ref} does not take images. Send text only, or choose a model that takes images."
            raise GatewayError("invalid_value", text, param=f"{item.place}.content")
