"""The limits of one subject (a key, a user, an agent, everybody) as one gateway applies them.

Most runs are admitted from a lease, without the database: as many as came lately in the time of a lease, but at most a
hundredth of the limit. A limit below a hundred has no lease, and each admission is counted in the database at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from service.core.concurrency import Event, sleep, spawn
from service.core.errors import internal_error
from service.core.rate_limits import NO_LIMITS, Quota, RateLimits
from service.storage.database.errors import StoreError
from service.storage.limits.counters import WINDOW_MS, Exchange, Exchanged, LimitCounters, LimitReached
from service.storage.limits.sliding_log import SlidingLog

logger = logging.getLogger("openclaw.gateway")

#: The length of a lease as a part of the window: a second of a minute.
_LEASES_PER_WINDOW = 60

#: What runs used beyond their estimate, or less, is known to other gateways after this time.
_SETTLE_SECONDS = 0.5

#: A place among the runs at once is kept for so long for the next run of this gateway.
_IDLE_SECONDS = 0.1

#: A run waits so long for a place that another gateway may still keep.
_RUNS_WAIT_SECONDS = 0.3
_RUNS_PAUSE_SECONDS = 0.05

#: The longest time that a refusal is repeated without asking again: other gateways may give something back.
_REFUSAL_SECONDS = 0.5

#: What other gateways use is known for so long.
_FRESH_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Waiter:
    """A run that waits for its admission; without `tokens`, a reader of the state."""

    tokens: int | None
    decided: Event = field(default_factory=Event)
    refusal: LimitReached | None = None
    admission: Admission | None = None
    error: Exception | None = None
    has_left: bool = False


@dataclass(slots=True, eq=False)
class Admission:
    """A run that counts: `tokens` with the time `counted_at_ms`."""

    shared: SharedLimit
    tokens: int
    counted_at_ms: int

    def settle(self, tokens: int) -> None:
        """Count `tokens` for a run that has ended, instead of the estimate."""
        self.shared.end_run(self, tokens)

    def give_back(self) -> None:
        """Count nothing: the run was not needed."""
        self.shared.forget_request(self)
        self.shared.end_run(self, 0)


class LimitReachedError(Exception):
    """A run is refused by `limit`; there is room after `seconds`."""

    def __init__(self, refusal: LimitReached, seconds: float) -> None:
        super().__init__(refusal.limit)
        self.limit = refusal.limit
        self.seconds = seconds


class SharedLimit:
    """Admits runs of `subject` within its `limits`, which may change, together with the other gateways.

    `gateway_id` returns the id of this gateway, `has_peers` whether there are others.
    """

    def __init__(
        self,
        subject: str,
        usage: LimitCounters,
        gateway_id: Callable[[], str],
        has_peers: Callable[[], bool],
        window_ms: int = WINDOW_MS,
    ) -> None:
        self.subject = subject
        self.limits = NO_LIMITS
        self._usage = usage
        self._gateway_id = gateway_id
        self._has_peers = has_peers
        self._window_ms = window_ms
        self._lease_ms = window_ms // _LEASES_PER_WINDOW
        self._requests = SlidingLog(window_ms)
        self._tokens = SlidingLog(window_ms)
        self._exchanged_at = -math.inf
        self._offset_ms = 0.0  # from the monotonic clock to the database's
        self._spare_requests = self._spare_tokens = self._spare_at_ms = 0
        self._spare_until = -math.inf
        self._running = self._counted = 0  # runs of this gateway; those in the database
        self._elsewhere = 0  # runs of other gateways
        self._idle_since = math.inf
        self._unused: list[tuple[int, int]] = []
        self._settled: list[tuple[int, int]] = []
        self._settled_since = math.inf
        self._recent_requests = self._recent_tokens = 0  # since the last exchange
        self._refused: tuple[LimitReached, int, float] | None = None
        self._waiting: list[_Waiter] = []
        self._is_exchanging = self._is_flushing = False

    @property
    def is_idle(self) -> bool:
        """True if nothing would be lost with this object."""
        return not (self._running or self._waiting or self._is_exchanging or self._is_flushing)

    def set_limits(self, limits: RateLimits) -> None:
        """Apply other limits from now on."""
        if limits is not self.limits and limits != self.limits:
            self.limits, self._refused = limits, None

    def admit(self, tokens: int) -> Admission:
        """Count a run that will probably use `tokens`. Raises `LimitReachedError` and `StoreError`."""
        now = monotonic()
        if self._fits_lease(tokens, now):
            return self._take_leased(tokens)
        give_up_at = now + _RUNS_WAIT_SECONDS
        while True:
            if (refusal := self._recent_refusal(tokens)) is None:
                waiter = self._ask(tokens)
                if waiter.admission is not None:
                    return waiter.admission
                refusal = waiter.refusal
            if refusal is None:
                raise internal_error()
            if refusal.limit != "runs" or not self._elsewhere or monotonic() >= give_up_at:
                raise LimitReachedError(refusal, max(refusal.room_at_ms - self._now_ms(), 0) / 1000)
            sleep(_RUNS_PAUSE_SECONDS)

    def quotas(self) -> tuple[Quota | None, Quota | None]:
        """Return the state of the requests and of the tokens, `None` without a limit. May wait. Raises `StoreError`."""
        is_known = self._exchanged_at > -math.inf
        if not is_known or (monotonic() > self._exchanged_at + _FRESH_SECONDS and self._has_peers()):
            self._ask(None)
        rpm, tpm, _ = self.limits.to_tuple()
        now_ms = self._now_ms()
        requests = None if rpm is None else self._requests.quota(rpm, now_ms, self._spare_requests)
        return requests, None if tpm is None else self._tokens.quota(tpm, now_ms, self._spare_tokens)

    def end_run(self, admission: Admission, tokens: int) -> None:
        """See `Admission.settle`."""
        self._running -= 1
        self._refused = None
        if self.limits.tokens_per_minute is not None and tokens != admission.tokens:
            self._settled.append((admission.counted_at_ms, tokens - admission.tokens))
            self._settled_since = min(self._settled_since, monotonic())
            self._tokens.correct(admission.counted_at_ms, tokens - admission.tokens, self._now_ms())
        if self.limits.concurrent_runs is not None:
            self._idle_since = monotonic()
        self._flush_later()

    def forget_request(self, admission: Admission) -> None:
        """See `Admission.give_back`."""
        if self.limits.requests_per_minute is None:
            return
        if admission.counted_at_ms == self._spare_at_ms and monotonic() < self._spare_until:
            self._spare_requests += 1
            return
        self._unused.append((admission.counted_at_ms, 1))
        self._requests.remove(admission.counted_at_ms, 1)
        self._settled_since = min(self._settled_since, monotonic())

    def flush(self) -> None:
        """Return to the other gateways what is not used any more. Raises `StoreError`."""
        if self._due_at() < math.inf:
            self._ask(None)

    def _now_ms(self) -> int:
        return int(monotonic() * 1000 + self._offset_ms)

    def _fits_lease(self, tokens: int, now: float) -> bool:
        rpm, tpm, concurrent = self.limits.to_tuple()
        if rpm is not None and (not self._spare_requests or now >= self._spare_until):
            return False
        if tpm is not None and (self._spare_tokens < tokens or now >= self._spare_until):
            return False
        if concurrent is None:
            return True
        return not self._is_exchanging and self._running < min(self._counted, concurrent)

    def _take_leased(self, tokens: int) -> Admission:
        rpm, tpm, _ = self.limits.to_tuple()
        self._spare_requests -= rpm is not None
        self._spare_tokens -= 0 if tpm is None else tokens
        return self._begin(tokens, self._spare_at_ms)

    def _begin(self, tokens: int, counted_at_ms: int) -> Admission:
        self._running += 1
        self._recent_requests += 1
        self._recent_tokens += tokens
        return Admission(self, tokens, counted_at_ms)

    def _recent_refusal(self, tokens: int) -> LimitReached | None:
        """Return the last refusal if it is also one for `tokens`, and not long ago."""
        if self._refused is None:
            return None
        refusal, refused_tokens, until = self._refused
        if monotonic() >= until or (refusal.limit == "tokens" and tokens < refused_tokens):
            return None
        return refusal

    def _ask(self, tokens: int | None) -> _Waiter:
        waiter = _Waiter(tokens)
        self._waiting.append(waiter)
        if not self._is_exchanging:
            self._is_exchanging = True
            spawn(self._exchange_all)
        try:
            waiter.decided.wait()
        except BaseException:
            waiter.has_left = True
            if waiter.admission is not None:
                waiter.admission.give_back()
            raise
        if waiter.error is not None:
            raise StoreError(waiter.error.detail) if isinstance(waiter.error, StoreError) else internal_error()
        return waiter

    def _exchange_all(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = [waiter for waiter in self._waiting if not waiter.has_left], []
                self._exchange(waiting)
        finally:
            self._is_exchanging = False
        self._flush_later()

    def _exchange(self, waiting: list[_Waiter]) -> None:
        asking = [waiter for waiter in waiting if waiter.tokens is not None]
        began_at, exchange = monotonic(), self._to_exchange([waiter.tokens or 0 for waiter in asking])
        try:
            found = self._usage.exchange(exchange)
        except Exception as error:
            # Nobody else hears of it: those who wait raise it.
            if not isinstance(error, StoreError):
                logger.exception("the limits of %s could not be read", self.subject)
            self._unused[:0], self._settled[:0] = exchange.unused, exchange.settled
            for waiter in waiting:
                waiter.error = error
        else:
            self._spare_until = began_at + self._lease_ms / 1000
            self._adopt(found, exchange.running)
            for waiter, refusal in zip(asking, found.refusals, strict=True):
                self._decide(waiter, refusal, found.now_ms)
        for waiter in waiting:
            waiter.decided.set()

    def _to_exchange(self, asked: list[int]) -> Exchange:
        now = monotonic()
        if self._spare_requests:
            self._unused.append((self._spare_at_ms, self._spare_requests))
        if self._spare_tokens:
            self._settled.append((self._spare_at_ms, -self._spare_tokens))
        self._spare_requests = self._spare_tokens = 0
        leases = self._lease_ms / 1000 / max(now - self._exchanged_at, self._lease_ms / 10_000)
        unused, self._unused = self._unused, []
        settled, self._settled = self._settled, []
        self._settled_since = self._idle_since = math.inf
        return Exchange(
            self.subject,
            self.limits,
            self._gateway_id(),
            asked,
            0 if self.limits.concurrent_runs is None else self._running,
            int(self._recent_requests * leases),
            int(self._recent_tokens * leases),
            self._lease_ms,
            unused,
            settled,
            self._window_ms,
        )

    def _adopt(self, found: Exchanged, running: int) -> None:
        now = monotonic()
        self._requests, self._tokens = found.requests, found.tokens
        self._exchanged_at, self._offset_ms = now, found.now_ms - now * 1000
        self._spare_requests, self._spare_tokens = found.spare_requests, found.spare_tokens
        self._spare_at_ms = found.spare_until_ms
        self._counted = running + found.refusals.count(None)
        self._elsewhere = found.runs - self._counted
        self._recent_requests = self._recent_tokens = 0
        self._refused = None

    def _decide(self, waiter: _Waiter, refusal: LimitReached | None, now_ms: int) -> None:
        tokens = waiter.tokens or 0
        waiter.refusal = refusal
        if refusal is not None:
            seconds = min((refusal.room_at_ms - now_ms) / 1000, _REFUSAL_SECONDS)
            seconds = _RUNS_PAUSE_SECONDS if refusal.limit == "runs" else seconds
            self._refused = refusal, tokens, monotonic() + seconds
            return
        waiter.admission = self._begin(tokens, now_ms)
        if waiter.has_left:
            waiter.admission.give_back()

    def _due_at(self) -> float:
        """Return the monotonic time at which the other gateways need news of this one."""
        lease_ends_at = self._spare_until if self._spare_requests or self._spare_tokens else math.inf
        return min(self._settled_since + _SETTLE_SECONDS, self._idle_since + _IDLE_SECONDS, lease_ends_at)

    def _flush_later(self) -> None:
        if not self._is_flushing and self._due_at() < math.inf:
            self._is_flushing = True
            spawn(self._flush)

    def _flush(self) -> None:
        try:
            while (due_at := self._due_at()) < math.inf:
                if due_at <= (now := monotonic()):
                    self._ask(None)
                else:
                    sleep(due_at - now)
        except StoreError:  # logged; the next request sends it
            pass
        finally:
            self._is_flushing = False
