"""Runs asked for by name: the same name twice is the same run, waiting, going on or long over.

A request is accepted before its session is free; what comes of it is told to everybody who waits for it. The run goes
on when its connection ends.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from service.agent.events import RunEnded
from service.agent.request import AgentRequest
from service.agent.run import Run
from service.core.concurrency import Cancelled, CancelScope, Event, spawn
from service.core.errors import GatewayError, internal_error
from service.gateway.gateway import Gateway
from service.storage.runs.idempotency import IdempotencyKey

logger = logging.getLogger("openclaw.rpc")

_KEPT_SECONDS = 600
_MOST_KEPT = 1024
_MOST_KEPT_CHARACTERS = 16 * 1024 * 1024

#: Runs that may wait for their sessions at once.
_MOST_WAITING = 1024


@dataclass(slots=True, eq=False)
class Start:
    """One run asked for: `run` once it goes on, `end` once it is over or could not begin. Times in ms since 1970."""

    run_id: str
    session_key: str
    agent_id: str
    key: IdempotencyKey
    accepted_at_ms: int
    run: Run | None = None
    end: RunEnded | None = None
    ended_at_ms: int | None = None
    over: Event = field(default_factory=Event)
    waiting: CancelScope = field(default_factory=CancelScope)

    def abort(self) -> None:
        """End it soon, whether it waits or goes on. Afterwards a no-op."""
        self.waiting.cancel()
        if self.run is not None:
            self.run.abort()

    @property
    def text(self) -> str:
        """What has been said so far."""
        return self.run.text if self.run is not None else ""


class Starts:
    """The runs asked for at this door. `clock` gives seconds since 1970."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float]) -> None:
        self._gateway = gateway
        self._clock = clock
        self._going_on: dict[str, Start] = {}
        self._over: OrderedDict[str, Start] = OrderedDict()
        self._over_characters = 0

    def __len__(self) -> int:
        """How many wait or go on."""
        return len(self._going_on)

    def find(self, run_id: str) -> Start | None:
        """The start with this id, going on or kept."""
        self._forget_old()
        return self._going_on.get(run_id) or self._over.get(run_id)

    def of_session(self, session_key: str) -> tuple[Start, ...]:
        """What waits or goes on in a session, the oldest first."""
        return tuple(start for start in self._going_on.values() if start.session_key == session_key)

    def begin(self, turn: AgentRequest, *, run_id: str, session_key: str, agent_id: str, asked: bytes) -> Start:
        """Ask for a run and return at once; with an id that is known, what is known.

        `asked` stands for what was asked: the same id with something else is refused. Raises `GatewayError`.
        """
        # No key of another door has a control character: the two never meet.
        key = IdempotencyKey.of(f"rpc\0{run_id}", asked)
        known = self.find(run_id)
        if known is not None:
            if known.key != key:
                raise _key_reused()
            return known
        if len(self._going_on) >= _MOST_WAITING:
            raise GatewayError(
                "too_many_runs", "Too many runs wait for their sessions. Try again when some have ended."
            )
        start = Start(run_id, session_key, agent_id, key, self._now_ms())
        self._going_on[run_id] = start
        try:
            start.run = self._recall(run_id, session_key, key)
        except BaseException as error:
            # Somebody else may have found it meanwhile.
            told = error if isinstance(error, GatewayError) else internal_error()
            self._end(start, RunEnded(error=told), is_kept=False)
            raise
        spawn(self._run, start, replace(turn, idempotency_key=key))
        return start

    def _recall(self, run_id: str, session_key: str, key: IdempotencyKey) -> Run | None:
        """The run that had this id before this process began, or that another door or process began.

        What is found too late is found by the claim that the run itself makes.
        """
        found = self._gateway.find(run_id)
        claim = self._gateway.state.claims.find(key)  # behind the run that it is recorded with
        refusal = None
        if claim is not None and claim.fingerprint != key.fingerprint:
            refusal = _key_reused()
        elif found is not None and found.session_key != session_key:
            text = "This idempotencyKey is the id of a run of another session. Send a fresh one."
            refusal = GatewayError("invalid_value", text, param="idempotencyKey")
        if refusal is None:
            return found
        if found is not None and found is not self._gateway.runs.find(run_id):
            found.abort()  # nobody wants it told again
        raise refusal

    def _run(self, start: Start, turn: AgentRequest) -> None:
        is_kept = True
        try:
            if start.run is None:
                with start.waiting:
                    start.run = self._gateway.start(turn, run_id=start.run_id, door="rpc")
            end = start.run.wait_for_end(None) or RunEnded(error=internal_error())
        except Cancelled:
            end = RunEnded(error=GatewayError("run_aborted", "The run was aborted before it began."))
        except GatewayError as error:
            # Another process was faster: the run that has this id is what the other asked for.
            is_kept = error.code != "idempotency_key_reused"
            end = RunEnded(error=error if is_kept else _key_reused())
        except Exception:
            # A defect must not leave those waiting who asked: it is logged here and told as itself.
            logger.exception("run %s could not begin", start.run_id)
            end = RunEnded(error=internal_error())
        self._end(start, end, is_kept=is_kept)

    def _end(self, start: Start, end: RunEnded, *, is_kept: bool) -> None:
        start.end, start.ended_at_ms = end, self._now_ms()
        del self._going_on[start.run_id]
        if is_kept:
            self._over[start.run_id] = start
            self._over_characters += _weight(start)
            self._forget_old()
        start.over.set()

    def _forget_old(self) -> None:
        oldest = self._now_ms() - _KEPT_SECONDS * 1000
        while self._over:
            first = next(iter(self._over.values()))
            within = len(self._over) <= _MOST_KEPT and self._over_characters <= _MOST_KEPT_CHARACTERS
            if within and (first.ended_at_ms or 0) >= oldest:
                return
            del self._over[first.run_id]
            self._over_characters -= _weight(first)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _key_reused() -> GatewayError:
    text = "This idempotencyKey belongs to another request. Send a fresh one with what is new."
    return GatewayError("invalid_value", text, param="idempotencyKey")


def _weight(start: Start) -> int:
    return start.run.characters if start.run is not None else 0
