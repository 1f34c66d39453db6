"""The Gateway: starts, tracks and ends runs. Every door (HTTP and what comes later) calls exactly this.

`start` is eager: whatever can be refused is refused before it returns, so that a refusal keeps its own status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from service.agents import Agent, Roster
from service.concurrency import Cancelled, Deadline, deadline, spawn
from service.conversation import Conversation, IncomingMessage, join_conversation, settle_tool_calls
from service.errors import GatewayError, internal_error
from service.events import RunEnded
from service.messages import Function, Sampling, ToolChoice
from service.models import ChosenModel, ModelCatalog
from service.prompt import to_system_text
from service.providers import ModelRequest
from service.runner import Reply, run_model
from service.runs import Run
from service.sessions.keys import SessionKey, session_key_for
from service.sessions.lanes import Lane, Lanes
from service.sessions.store import SessionStore

logger = logging.getLogger("openclaw.gateway")


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
class _Work:
    """All that a started run needs."""

    agent: Agent
    model: ChosenModel
    request: ModelRequest
    conversation: Conversation
    lane: Lane | None


class Gateway:
    """Runs agents for its doors.

    `clock` gives seconds since 1970, `new_id` fresh UUIDs as text.
    """

    def __init__(
        self,
        roster: Roster,
        catalog: ModelCatalog,
        store: SessionStore,
        lanes: Lanes,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.roster = roster
        self.catalog = catalog
        self.started_at = clock()
        self._store = store
        self._lanes = lanes
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
        model = self.catalog.choose(turn.provider_model, agent)
        _check_images(turn, model)
        key = session_key_for(agent.id, turn.session_key, turn.user, self._new_id)
        lane = None if key.fresh else self._lanes.enter(key.key, agent.timeout_seconds)
        try:
            work = self._prepare(turn, agent, model, key, lane)
        except BaseException:
            if lane is not None:
                lane.release()
            raise
        run = Run(f"chatcmpl_{self._new_id()}", key.key, agent.id, self._clock())
        self._runs.add(run)
        spawn(self._execute, run, work)
        return run

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
        self.catalog.close()
        self._store.close()

    def _prepare(self, turn: Turn, agent: Agent, model: ChosenModel, key: SessionKey, lane: Lane | None) -> _Work:
        history = () if key.fresh else self._store.load_conversation(key.key)
        conversation = join_conversation(history, turn.messages)
        request = ModelRequest(
            model=model.id,
            system=to_system_text(agent, channel=turn.channel, request_text=turn.system_text),
            messages=settle_tool_calls(conversation.messages),
            functions=turn.functions,
            tool_choice=turn.tool_choice,
            sampling=turn.sampling,
        )
        return _Work(agent, model, request, conversation, lane)

    def _execute(self, run: Run, work: _Work) -> None:
        try:
            end = self._outcome(run, work)
        except Exception:
            # A defect must not leave readers waiting: it is logged here and told as itself.
            logger.exception("run %s failed", run.id)
            end = RunEnded(error=internal_error())
        finally:
            if work.lane is not None:
                work.lane.release()
            self._runs.discard(run)
        run.append(end)

    def _outcome(self, run: Run, work: _Work) -> RunEnded:
        reply = Reply()
        try:
            with run.scope, deadline(work.agent.timeout_seconds):
                run_model(run, work.model.provider, work.request, reply)
        except Cancelled:
            if reply.pieces:
                self._commit(run, work, reply)
            return RunEnded(error=GatewayError("run_aborted", "The run was aborted."))
        except Deadline:
            text = f"The run took longer than the agent's limit of {work.agent.timeout_seconds:g} seconds."
            return RunEnded(error=GatewayError("run_timeout", text))
        except GatewayError as error:
            logger.warning("run %s failed: %s", run.id, error.code)
            return RunEnded(error=error)
        self._commit(run, work, reply)
        return RunEnded(reply.stop_reason, reply.usage)

    def _commit(self, run: Run, work: _Work, reply: Reply) -> None:
        messages = (*work.conversation.new, reply.to_message())
        self._store.append_turn(
            run.session_key, run.agent_id, run.id, messages, usage=reply.usage, model=work.model.ref
        )


def _check_images(turn: Turn, model: ChosenModel) -> None:
    if model.takes_images:
        return
    for item in turn.messages:
        if item.message.has_image:
            text = f"The model {model.ref} does not take images. Send text only, or choose a model that takes images."
            raise GatewayError("invalid_value", text, param=f"{item.place}.content")
