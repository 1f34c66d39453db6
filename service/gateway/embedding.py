"""Embeddings for callers, by the model that the configuration or the caller names."""

from __future__ import annotations

import logging
import random as randomness
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Self, TypeVar

import orjson

from service.config.roster import Agent
from service.core.concurrency import Deadline, Event, deadline, sleep, spawn
from service.core.dataclass import record
from service.core.errors import GatewayError, internal_error
from service.core.messages import Usage
from service.core.principal import Principal
from service.core.signals import EmbeddingCalled, EmbeddingCalling, embedding_called, embedding_calling
from service.core.usage import ModelCall, total_of
from service.core.work_context import current_work
from service.gateway.budgets import Budgets
from service.gateway.rate_limiter import RateLimiter, estimate_inputs
from service.gateway.run_outcome import key_reused, reason_of
from service.gateway.run_slots import RunSlot, RunSlots
from service.gateway.runtime import Runtime, RuntimeLease
from service.models.catalog import ChosenModel
from service.models.embeddings import (
    EmbeddingProvider,
    EmbeddingRequest,
    Embeddings,
    no_embeddings,
)
from service.models.errors.log_words import log_words
from service.models.fallback import RETRYABLE, RetryPolicy
from service.storage.database.daily_usage import UsageEntry
from service.storage.database.errors import StoreError
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.kept_answers import KeptAnswers

logger = logging.getLogger("openclaw.gateway")

T = TypeVar("T")

#: The longest answer that is kept for requests with the same idempotency key, in characters of JSON.
_MOST_KEPT = 16 * 1024 * 1024


@record
class EmbeddingTask:
    """A request for vectors: `model` and `agent_id` name the agent, `provider_model` another model.

    `caller_trace` are the caller's headers of W3C's Trace Context; `on_trace` gets the id of the trace that is made.
    """

    inputs: Sequence[str] | Sequence[Sequence[int]]
    model: str | None
    agent_id: str | None
    provider_model: str | None
    dimensions: int | None
    user: str | None
    principal: Principal
    request_id: str | None = None
    caller_trace: Mapping[str, str] | None = None
    on_trace: Callable[[str], None] | None = None


class _Work:
    """Embeddings that are being made for all requests with one idempotency key."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.ended = Event()
        self.found: Embeddings | None = None
        self.failure: Exception | None = None
        self.is_kept = False

    def wait(self) -> Embeddings:
        """Wait for the end and return the embeddings; raises what the work failed with."""
        self.ended.wait()
        if self.found is None:
            failure = self.failure or internal_error()
            raise failure.copy() if isinstance(failure, GatewayError) else failure
        return self.found


class Embedder:
    """Makes embeddings, once for requests with the same idempotency key.

    Processes that are asked at the same time may each make them; later answers are the one that was kept first.
    """

    def __init__(
        self,
        answers: KeptAnswers,
        slots: RunSlots,
        limits: RateLimiter,
        budgets: Budgets,
        clock: Callable[[], float],
    ) -> None:
        self._budgets = budgets
        self._answers = answers
        self._slots = slots
        self._limits = limits
        self._clock = clock
        self._active: dict[str, _Work] = {}  # by the hashes of keys

    def create(self, task: EmbeddingTask, key: IdempotencyKey | None, lease: RuntimeLease) -> tuple[Embeddings, bool]:
        """Return the vectors, and True if they answered an earlier request with the key.

        The work for a key goes on when the caller leaves. Raises the errors of `create_embeddings`, `GatewayError`
        (`idempotency_key_reused`) for a key that was sent with another request, and `StoreError`.
        """
        if key is None:
            found, usage = self._make_counted(task, lease)
            self._answers.count(usage, usage.at_ms)
            self._budgets.invalidate(usage.account, usage.agent_id)
            return found, False
        key = key.owned_by(task.principal.owner)
        work, is_own = self._active.get(key.key_hash), False
        if work is None:
            work, is_own = self._active.setdefault(key.key_hash, _Work(key.fingerprint)), True
            spawn(self._make, work, key, task, lease)
        if work.fingerprint != key.fingerprint:
            raise key_reused()
        found = work.wait()
        return found, work.is_kept or not is_own

    def _make(self, work: _Work, key: IdempotencyKey, task: EmbeddingTask, lease: RuntimeLease) -> None:
        try:
            work.found = self._find(work, key) or self._make_and_keep(key, task, lease)
        except (GatewayError, StoreError) as failure:
            work.failure = failure
        except Exception:
            logger.exception("embeddings failed")
        finally:
            del self._active[key.key_hash]
            work.ended.set()

    def _find(self, work: _Work, key: IdempotencyKey) -> Embeddings | None:
        kept = self._answers.find(key, self._now_ms())
        if kept is None:
            return None
        if kept.fingerprint != key.fingerprint:
            raise key_reused()
        work.is_kept = True
        answer = orjson.loads(kept.answer)
        return Embeddings(tuple(answer["vectors"]), answer["input_tokens"])

    def _make_and_keep(self, key: IdempotencyKey, task: EmbeddingTask, lease: RuntimeLease) -> Embeddings:
        found, usage = self._make_counted(task, lease)
        answer = orjson.dumps({"vectors": found.vectors, "input_tokens": found.input_tokens}).decode()
        if len(answer) <= _MOST_KEPT:
            self._answers.keep(key, answer, usage.at_ms, usage)
        else:
            self._answers.count(usage, usage.at_ms)
        self._budgets.invalidate(usage.account, usage.agent_id)
        return found

    def _make_counted(self, task: EmbeddingTask, lease: RuntimeLease) -> tuple[Embeddings, UsageEntry]:
        with lease:
            agent = find_agent(task, lease)
            chosen = _choose(task, agent, lease.runtime)
            self._budgets.check(task.principal, agent.id, (chosen,))
            ticket = self._limits.admit(task.principal, agent.id, lambda: estimate_inputs(task.inputs))
            calls: list[ModelCall] = []
            try:
                found = create_embeddings(task, agent, chosen, lease.runtime, self._slots, calls)
            except BaseException:
                if calls:
                    spawn(self._count_failed, self._to_entry(task, agent, calls))
                raise
            finally:
                if ticket is not None:
                    ticket.settle(calls)
        return found, self._to_entry(task, agent, calls)

    def _to_entry(self, task: EmbeddingTask, agent: Agent, calls: Sequence[ModelCall]) -> UsageEntry:
        principal = task.principal
        return UsageEntry(self._now_ms(), principal.account, principal.user or task.user, agent.id, tuple(calls))

    def _count_failed(self, usage: UsageEntry) -> None:
        """Count calls that were cut off, although their caller may have left."""
        with suppress(StoreError):  # logged
            self._answers.count(usage, usage.at_ms)
            self._budgets.invalidate(usage.account, usage.agent_id)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


class _Signals:
    """The signals of a model that is asked for embeddings, around all attempts; `calls` has what each used."""

    def __init__(self, task: EmbeddingTask, agent: Agent, chosen: ChosenModel, calls: Sequence[ModelCall]) -> None:
        self._calls = calls
        self._attempts = 0
        self._on_trace = task.on_trace
        self._agent = agent
        self._asked = EmbeddingCalling(
            chosen.ref, agent.id, task.dimensions, task.caller_trace, task.principal.key_id, task.request_id
        )

    def note_attempt(self) -> None:
        """Count an attempt."""
        self._attempts += 1

    def __enter__(self) -> Self:
        self._begun_at = time.monotonic()
        embedding_calling.emit(self._asked)
        trace_id = current_work.get().ids.get("trace_id")
        if trace_id is not None and self._on_trace is not None:
            self._on_trace(trace_id)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        outcome, reason = "ok" if error is None else "cancelled", None
        failure = _timeout(self._agent) if isinstance(error, Deadline) else error
        if isinstance(failure, GatewayError):
            outcome, reason = failure.code, reason_of(failure)
        seconds, usage = time.monotonic() - self._begun_at, total_of(self._calls)
        embedding_called.emit(EmbeddingCalled(self._asked, outcome, seconds, usage, self._attempts, reason))


def _timeout(agent: Agent) -> GatewayError:
    return GatewayError("run_timeout", f"The embeddings took longer than {agent.timeout_seconds:g} seconds.")


def find_agent(task: EmbeddingTask, lease: RuntimeLease) -> Agent:
    """Return the agent of a request. Raises the errors of `Roster.resolve`."""
    return lease.runtime.roster.of(task.principal).resolve(task.model, task.agent_id)


def create_embeddings(
    task: EmbeddingTask,
    agent: Agent,
    chosen: ChosenModel,
    runtime: Runtime,
    slots: RunSlots,
    calls: list[ModelCall],
) -> Embeddings:
    """Make the vectors, within the agent's time limit and the limit of runs at once.

    Adds what the provider may charge for to `calls`, also where it fails. Raises `GatewayError`: the errors of the
    provider; `unsupported_parameter` for a model that makes no embeddings.
    """
    provider = chosen.provider
    if not isinstance(provider, EmbeddingProvider):
        raise no_embeddings(chosen.ref)
    request = EmbeddingRequest(chosen.id, task.inputs, task.dimensions, task.user)
    slot = RunSlot(slots, (task.principal.owner or task.principal.key_id or "", ""))
    try:
        with deadline(agent.timeout_seconds):
            slot.take(agent.timeout_seconds)
            with _Signals(task, agent, chosen, calls) as signals:
                return _with_retries(
                    runtime.limits.retries, lambda: _embed_once(provider, chosen, request, calls, signals)
                )
    except Deadline:
        raise _timeout(agent) from None
    except GatewayError as error:
        error.message = f"{error.message} (The model: {chosen.ref}.)"
        raise
    finally:
        slot.give_back()


def _embed_once(
    provider: EmbeddingProvider,
    chosen: ChosenModel,
    request: EmbeddingRequest,
    calls: list[ModelCall],
    signals: _Signals,
) -> Embeddings:
    signals.note_attempt()
    usage: Usage | None = Usage(cost_nano=None)  # of a call that is cut off
    try:
        found = provider.embed(request)
        usage = chosen.costed(Usage(found.input_tokens))
    except GatewayError as error:
        usage = usage if error.code == "provider_timeout" else None
        error.reason = log_words(error, map(str, request.inputs))
        raise
    finally:
        if usage is not None and usage.input_tokens:
            calls.append(ModelCall(chosen.ref, usage))
        elif usage is not None:
            calls.append(chosen.estimated(usage, Usage(estimate_inputs(request.inputs))))
    return found


def _choose(task: EmbeddingTask, agent: Agent, runtime: Runtime) -> ChosenModel:
    if task.provider_model is not None:
        return runtime.catalog.choose(task.provider_model, agent, task.principal)
    ref = runtime.embedding_model or agent.embedding_model
    if ref is None:
        text = "No model for embeddings is configured. Set embeddings.model, or send the header x-openclaw-model."
        raise GatewayError("model_not_found", text, param="model")
    if not task.principal.may_use(ref):
        text = "This API key may not use the model for embeddings. Name one that it may use in x-openclaw-model."
        raise GatewayError("model_not_found", text, param="model")
    return runtime.catalog.choose_named(ref)


def _with_retries(
    policy: RetryPolicy,
    attempt: Callable[[], T],
    *,
    clock: Callable[[], float] = time.monotonic,
    random: Callable[[], float] = randomness.random,
) -> T:
    """Call `attempt` until it succeeds, as often as `policy` says for failures that may pass."""
    give_up_at, failures = clock() + policy.max_elapsed_seconds, 0
    while True:
        try:
            return attempt()
        except GatewayError as error:
            failures += 1
            if error.code not in RETRYABLE or not error.is_retryable:
                raise
            after = error.headers.get("Retry-After")
            delay = policy.delay_seconds(failures, random(), None if after is None else float(after))
            if delay is None or clock() + delay > give_up_at:
                raise
        sleep(delay)
