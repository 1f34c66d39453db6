"""Bad days upstream: a failing model is asked again, then the next one, as long as nothing has reached the reader.

What a reader was told stays told: once such an answer has begun, its failure is the run's failure.
"""

from __future__ import annotations

import logging
import random as randomness
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Self

from service.config.models import RetryConfig
from service.core import concurrency
from service.core.dataclass import record
from service.core.errors import NO_RETRY_HEADER, GatewayError
from service.models.catalog import ChosenModel
from service.models.errors.http_errors import SAYS, LastingError, NotThereError
from service.models.learned_windows import LearnedWindows
from service.models.provider import ModelEvent, ModelRequest, ModelRestarted

logger = logging.getLogger("openclaw.models")

#: What may pass by itself, so that asking again makes sense.
RETRYABLE = frozenset({"provider_error", "provider_timeout", "provider_unavailable", "rate_limit_exceeded"})

#: What another model may do better: the above, and what is wrong with this one alone. A request that was rejected is
#: not among them, since the caller has to hear of it.
REPLACEABLE = RETRYABLE | {"provider_authentication_failed", "model_not_installed"}

#: Failures that are told in our words: a provider's own, who may repeat the conversation, come after `SAYS` and are not
#: logged.
_IN_OUR_WORDS = frozenset({"provider_unavailable", "provider_authentication_failed", "model_not_installed"})


@record
class RetryPolicy:
    """How often one model is asked and how long is waited in between.

    The waits begin at `min_delay_seconds` and double up to `max_delay_seconds`, each shortened at random by up to half.
    A provider's `Retry-After` is honoured, but one beyond `max_delay_seconds` is not waited for. No attempt begins
    later than `max_elapsed_seconds` after the first.
    """

    attempts: int = 3
    min_delay_seconds: float = 0.5
    max_delay_seconds: float = 10.0
    max_elapsed_seconds: float = 60.0

    @classmethod
    def from_config(cls, config: RetryConfig) -> Self:
        """What `models.retry` says."""
        return cls(
            config.attempts, config.min_delay_ms / 1000, config.max_delay_ms / 1000, config.max_elapsed_ms / 1000
        )

    def delay_seconds(self, failures: int, share: float, retry_after_seconds: float | None) -> float | None:
        """The wait after the `failures`th failure, `None` when it is no use; `share` is a random number from 0 to 1."""
        if failures >= self.attempts or (retry_after_seconds or 0) > self.max_delay_seconds:
            return None
        full = min(self.max_delay_seconds, self.min_delay_seconds * 2.0 ** (failures - 1))
        return max(full * (1 - share / 2), retry_after_seconds or 0)


class FallbackProvider:
    """The models of one run, asked in order until one answers; the first is the one that was meant.

    `answered` is the model that began the latest answer, `None` before any did. Later calls begin with it: what failed
    is not tried anew in each turn of a run. One for each run, one call at a time; `clock` gives seconds since 1970.
    With `restartable`, or of a request that is `collected`, an answer that has begun may fail, too: `ModelRestarted` is
    told before it comes anew.
    """

    def __init__(
        self,
        choices: Sequence[ChosenModel],
        policy: RetryPolicy,
        *,
        windows: LearnedWindows,
        restartable: bool = False,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = concurrency.sleep,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._choices = tuple(choices)
        self._policy = policy
        self._windows = windows
        self._takes_back = self._may_restart = restartable
        self._told, self._tried = False, 0
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._first = 0
        self._asked = self._choices[0]
        self.answered: ChosenModel | None = None

    @property
    def asked(self) -> ChosenModel:
        """The model that was asked last, at first the one that will be, with the window it is known to have."""
        return self._windows.narrowed(self._asked)

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Ask the models; see `Provider.stream` for the contract. `request.model` is replaced by each model's own id.

        Raises the last failure when every model has failed; its message and the log name the model. A fallback that
        takes no images is passed over when the request has some.
        """
        try:
            yield from self._answer(request)
        except GatewayError as error:
            in_our_words = error.code in _IN_OUR_WORDS or isinstance(error, LastingError)
            why = f"{error.code}: {error.message.partition(SAYS)[0]}" if in_our_words else error.code
            logger.warning("the model %s failed: %s", self.asked.ref, why)
            tried = f"all {self._tried} models failed, the last was " if self._tried > 1 else ""
            error.message = f"{error.message} (The model: {tried}{self.asked.ref}.)"
            raise

    def skip_to_fallback(self, model: ChosenModel, request: ModelRequest) -> bool:
        """Ask the models after `model` from now on, if there is one for `request`, and tell whether there is."""
        refs = [choice.ref for choice in self._choices]
        later = range(refs.index(model.ref) + 1, len(refs))
        place = next((place for place in later if _may_take(self._choices[place], request)), None)
        if place is None:
            return False
        self._first, self._asked = place, self._choices[place]
        return True

    def close(self) -> None:
        """Nothing is held: the models belong to their catalog."""

    def _answer(self, request: ModelRequest) -> Iterator[ModelEvent]:
        self._told, self._tried = False, 0
        self._may_restart = self._takes_back or request.collected
        *others, last = self._candidates(request)
        may_pass = False
        for choice in others:
            try:
                yield from self._ask(choice, request)
            except GatewayError as error:
                if self._stands or not (error.code in REPLACEABLE or isinstance(error, NotThereError)):
                    raise
                logger.warning("the model %s failed (%s), asking the next", choice.ref, error.code)
                may_pass = may_pass or _may_pass(error)
            else:
                return
        try:
            yield from self._ask(last, request)
        except GatewayError as error:
            if may_pass:
                error.headers.pop(NO_RETRY_HEADER, None)
            raise

    def _candidates(self, request: ModelRequest) -> list[ChosenModel]:
        fallbacks = self._choices[self._first + 1 :]
        return [self._choices[self._first], *(choice for choice in fallbacks if _may_take(choice, request))]

    @property
    def _stands(self) -> bool:
        """Whether something was told that cannot be taken back."""
        return self._told and not self._may_restart

    def _ask(self, choice: ChosenModel, request: ModelRequest) -> Iterator[ModelEvent]:
        """One model's answer, asked for as often as the policy says."""
        self._asked = choice
        self._tried += 1
        asked = self.asked.to_request(request)
        give_up_at = self._clock() + self._policy.max_elapsed_seconds
        failures = 0
        while True:
            try:
                yield from self._attempt(choice, asked)
            except GatewayError as error:
                failures += 1
                delay = None if self._stands else self._delay_after(choice, error, failures)
                if delay is None or self._clock() + delay > give_up_at:
                    raise
                logger.warning("the model %s failed (%s), asking again in %.1f s", choice.ref, error.code, delay)
            else:
                return
            self._sleep(delay)

    def _attempt(self, choice: ChosenModel, asked: ModelRequest) -> Iterator[ModelEvent]:
        events = choice.provider.stream(asked)
        with closing(events):  # type: ignore[type-var]  # a generator in every dialect
            first = next(events)
            if self._told:
                yield ModelRestarted()
            self._told, self.answered, self._first = True, choice, self._choices.index(choice)
            yield choice.signed(first)
            yield from map(choice.signed, events)

    def _delay_after(self, choice: ChosenModel, error: GatewayError, failures: int) -> float | None:
        if not choice.worth_retrying or not _may_pass(error):
            return None
        told = error.headers.get("Retry-After")
        return self._policy.delay_seconds(failures, self._random(), None if told is None else float(told))


def _may_pass(error: GatewayError) -> bool:
    return error.code in RETRYABLE and error.is_retryable


def _may_take(choice: ChosenModel, request: ModelRequest) -> bool:
    return choice.takes_images or not any(message.has_image for message in request.messages)
