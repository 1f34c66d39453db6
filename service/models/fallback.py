"""Retry and fallback across a run's models until output has been streamed.

Once output has reached a reader, a failure of that answer is a failure of the run.
"""

from __future__ import annotations

import logging
import random as randomness
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

from service.config.models import RetryConfig
from service.core import concurrency
from service.core.dataclass import record, replace
from service.core.errors import NO_RETRY_HEADER, GatewayError
from service.core.messages import Usage
from service.core.signals import ModelReplaced, model_replaced
from service.core.usage import ModelCall
from service.models.attempt import CUT_OFF, Attempt, ask_once
from service.models.catalog import ChosenModel
from service.models.context_windows import LearnedWindows
from service.models.errors.http_errors import ModelMissingError
from service.models.provider import ModelEnded, ModelRequest, TextReceiver
from service.models.tokens import BYTES_PER_TOKEN, estimate_request

logger = logging.getLogger("openclaw.models")

#: Failures that may be temporary: the same model is retried.
RETRYABLE = frozenset({"provider_error", "provider_timeout", "provider_unavailable", "rate_limit_exceeded"})

#: Failures that move on to the next model. Rejected requests are reported to the caller instead.
REPLACEABLE = RETRYABLE | {"provider_authentication_failed", "model_not_installed"}


@record
class RetryPolicy:
    """Number of attempts per model and the delays between them.

    Delays start at `min_delay_seconds` and double up to `max_delay_seconds`, each shortened at random by up to half.
    A provider's `Retry-After` is honoured; one beyond `max_delay_seconds` ends the retries. No attempt starts later
    than `max_elapsed_seconds` after the first.
    """

    attempts: int = 3
    min_delay_seconds: float = 0.5
    max_delay_seconds: float = 10.0
    max_elapsed_seconds: float = 60.0

    @classmethod
    def from_config(cls, config: RetryConfig) -> Self:
        """Create the policy of `models.retry`."""
        return cls(
            config.attempts, config.min_delay_ms / 1000, config.max_delay_ms / 1000, config.max_elapsed_ms / 1000
        )

    def delay_seconds(self, failures: int, share: float, retry_after_seconds: float | None) -> float | None:
        """Return the delay after `failures` failures, `None` to give up; `share` is a random number from 0 to 1."""
        if failures >= self.attempts or (retry_after_seconds or 0) > self.max_delay_seconds:
            return None
        full = min(self.max_delay_seconds, self.min_delay_seconds * 2.0 ** (failures - 1))
        return max(full * (1 - share / 2), retry_after_seconds or 0)


class FallbackProvider:
    """The models of one run, tried in order until one answers.

    `asked` is the model of the latest attempt (before any: of the first), `answered` the one that produced the latest
    answer, `None` before the first. Later calls start with it, so that a model that failed is not retried in each turn.
    One instance per run, one call at a time; `clock` returns Unix time. With `restartable`, or for a request that is
    `collected` or `held`, an answer may also fail after it has started: `on_restart` is called before the next
    attempt's output. `calls` are all that the providers may charge for.
    """

    def __init__(
        self,
        choices: Sequence[ChosenModel],
        policy: RetryPolicy,
        windows: LearnedWindows,
        clock: Callable[[], float] = time.time,
        *,
        restartable: bool = False,
        sleep: Callable[[float], None] = concurrency.sleep,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._choices = tuple(choices)
        self._policy = policy
        self._windows = windows
        self._restartable = self._may_restart = restartable
        self._started = self._has_output = False
        self._tried = 0
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._first = 0
        self.asked = self._choices[0]
        self.answered: ChosenModel | None = None
        self.calls: list[ModelCall] = []

    def ask(self, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None]) -> ModelEnded:
        """Ask the models; see `Provider.ask` for the contract. `request.model` is replaced by each model's own id.

        Raises the last failure when every model has failed; its message and the log name the model. Fallbacks without
        image input are skipped for requests with images.
        """
        try:
            return self._answer(request, on_text, on_restart)
        except GatewayError as error:
            if self._has_output:
                error.reason = None
            logger.warning("the model %s failed: %s", self.asked.ref, _describe(error))
            tried = f"all {self._tried} models failed, the last was " if self._tried > 1 else ""
            error.message = f"{error.message} (The model: {tried}{self.asked.ref}.)"
            raise

    def skip_to_fallback(self, model: ChosenModel, request: ModelRequest) -> bool:
        """Continue with the models after `model`; return False if none of them takes `request`."""
        refs = [choice.ref for choice in self._choices]
        later = range(refs.index(model.ref) + 1, len(refs))
        place = next((place for place in later if _may_take(self._choices[place], request)), None)
        if place is None:
            return False
        self._first, self.asked = place, self._choices[place]
        model_replaced.emit(ModelReplaced(model.ref, self.asked.ref, "context_length_exceeded"))
        return True

    def close(self) -> None:
        """Do nothing: the models belong to their catalog."""

    def _answer(self, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None]) -> ModelEnded:
        self._started = self._has_output = False
        self._tried = 0
        shows_drafts = request.drafts is not None and request.drafts.is_binding
        self._may_restart = self._restartable or request.collected or (request.held and not shows_drafts)
        candidates = self._candidates(request)
        may_pass = False
        for choice, following in pairwise(candidates):
            try:
                return self._ask(choice, request, on_text, on_restart)
            except GatewayError as error:
                if self._is_final or not (error.code in REPLACEABLE or isinstance(error, ModelMissingError)):
                    raise
                logger.warning("the model %s failed, asking the next: %s", choice.ref, _describe(error))
                model_replaced.emit(ModelReplaced(choice.ref, following.ref, error.code))
                may_pass = may_pass or _may_pass(error)
        try:
            return self._ask(candidates[-1], request, on_text, on_restart)
        except GatewayError as error:
            if may_pass:
                error.headers.pop(NO_RETRY_HEADER, None)
            raise

    def _candidates(self, request: ModelRequest) -> list[ChosenModel]:
        first, *fallbacks = self._choices[self._first :]
        return [first, *(choice for choice in fallbacks if _may_take(choice, request))] if fallbacks else [first]

    @property
    def _is_final(self) -> bool:
        """True once output was streamed that cannot be withdrawn."""
        return self._started and not self._may_restart

    def _ask(
        self, choice: ChosenModel, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None]
    ) -> ModelEnded:
        """Ask one model, with the retries of the policy."""
        self.asked = choice
        self._tried += 1
        asked = self._windows.narrowed(choice).to_request(request)
        give_up_at = self._clock() + self._policy.max_elapsed_seconds
        failures, delay = 0, 0.0
        while True:
            try:
                return self._attempt(choice, asked, on_text, on_restart, failures + 1, delay)
            except GatewayError as error:
                failures += 1
                wanted = None if self._is_final else self._delay_after(choice, error, failures)
                if wanted is None or self._clock() + wanted > give_up_at:
                    raise
                delay = wanted
                text = "the model %s failed, asking again in %.1f s: %s"
                logger.warning(text, choice.ref, delay, _describe(error))
            self._sleep(delay)

    def _attempt(
        self,
        choice: ChosenModel,
        asked: ModelRequest,
        on_text: TextReceiver,
        on_restart: Callable[[], None],
        number: int,
        waited_seconds: float,
    ) -> ModelEnded:
        has_begun = False

        def begin(*, is_binding: bool) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                if self._has_output:
                    on_restart()
                self._has_output, self.answered, self._first = True, choice, self._choices.index(choice)
            self._started = self._started or is_binding

        attempt = Attempt(number, waited_seconds, on_text, asked.drafts, begin)
        wanted = asked if asked.drafts is None else replace(asked, drafts=attempt)
        try:
            end = ask_once(choice, wanted, attempt)
        except BaseException as error:
            if has_begun or not isinstance(error, GatewayError) or error.code == "provider_timeout":
                self._count(choice, asked, CUT_OFF, attempt.characters)
            raise
        self._count(choice, asked, end.usage, attempt.characters)
        if not has_begun:
            begin(is_binding=True)
        return end

    def _count(self, choice: ChosenModel, asked: ModelRequest, usage: Usage, characters: int) -> None:
        """Count a call that has written `characters`, which stand for its output where the provider counts nothing."""
        if usage.input_tokens or usage.output_tokens:
            self.calls.append(ModelCall(choice.ref, usage))
        else:
            self.calls.append(choice.estimated(usage, Usage(estimate_request(asked), characters // BYTES_PER_TOKEN)))

    def _delay_after(self, choice: ChosenModel, error: GatewayError, failures: int) -> float | None:
        if not choice.retried or not _may_pass(error):
            return None
        retry_after = error.headers.get("Retry-After")
        seconds = None if retry_after is None else float(retry_after)
        return self._policy.delay_seconds(failures, self._random(), seconds)


def _describe(error: GatewayError) -> str:
    """Return the code of `error` and what the log may say of it."""
    return error.code if error.reason is None else f"{error.code}: {error.reason}"


def _may_pass(error: GatewayError) -> bool:
    return error.code in RETRYABLE and error.is_retryable


def _may_take(choice: ChosenModel, request: ModelRequest) -> bool:
    return choice.takes_images or not any(message.has_image for message in request.messages)
