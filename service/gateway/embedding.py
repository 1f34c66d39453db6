"""Embeddings for callers, by the model that the configuration or the caller names."""

from __future__ import annotations

import random as randomness
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from service.config.agents import Agent
from service.core.concurrency import Deadline, deadline, sleep
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.gateway.run_limiter import RunLimiter, RunSlot
from service.gateway.runtime import Runtime, RuntimeLease
from service.models.catalog import ChosenModel
from service.models.embeddings import (
    EmbeddingProvider,
    EmbeddingRequest,
    Embeddings,
    no_embeddings,
)
from service.models.fallback import RETRYABLE, RetryPolicy

T = TypeVar("T")


@record
class EmbeddingTask:
    """A request for vectors: `model` and `agent_id` name the agent, `provider_model` another model."""

    inputs: Sequence[str] | Sequence[Sequence[int]]
    model: str | None
    agent_id: str | None
    provider_model: str | None
    dimensions: int | None
    user: str | None


def create_embeddings(task: EmbeddingTask, lease: RuntimeLease, limiter: RunLimiter) -> Embeddings:
    """Make the vectors, within the agent's time limit and the limit of runs at once.

    Raises `GatewayError`: the errors of `Roster.resolve`, `ModelCatalog.choose` and of the provider;
    `unsupported_parameter` for a model that makes no embeddings.
    """
    with lease:
        runtime = lease.runtime
        agent = runtime.roster.resolve(task.model, task.agent_id)
        chosen = _choose(task, agent, runtime)
        provider = chosen.provider
        if not isinstance(provider, EmbeddingProvider):
            raise no_embeddings(chosen.ref)
        request = EmbeddingRequest(chosen.id, task.inputs, task.dimensions, task.user)
        slot = RunSlot(limiter)
        try:
            with deadline(agent.timeout_seconds):
                slot.take(agent.timeout_seconds)
                return _with_retries(runtime.limits.retries, lambda: provider.embed(request))
        except Deadline:
            text = f"The embeddings took longer than {agent.timeout_seconds:g} seconds."
            raise GatewayError("run_timeout", text) from None
        except GatewayError as error:
            error.message = f"{error.message} (The model: {chosen.ref}.)"
            raise
        finally:
            slot.give_back()


def _choose(task: EmbeddingTask, agent: Agent, runtime: Runtime) -> ChosenModel:
    if task.provider_model is not None:
        return runtime.catalog.choose(task.provider_model, agent)
    ref = runtime.embedding_model or agent.embedding_model
    if ref is None:
        text = "No model for embeddings is configured. Set embeddings.model, or send the header x-openclaw-model."
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
