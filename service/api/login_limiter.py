"""The limit on failed logins where several gateways share a database: an address has one allowance with all of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from service.api.auth import LoginLimiter
from service.config.schema import RateLimitConfig
from service.core import concurrency
from service.storage.cluster.login_failures import Allowance, LoginFailures
from service.storage.database.errors import StoreError

_REFRESH_SECONDS = 1.0
_MOST_ADDRESSES = 10_000


class SharedLoginLimiter:
    """Counts wrong secrets in the database, and in this process in case the database cannot.

    A right secret never waits for the database. What others have counted is known a second later, while requests come
    and `has_others` says that there are any; a wrong secret learns of it at once. A success is forgiven at the gateway
    that saw it, and in the database. `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        config: RateLimitConfig,
        failures: LoginFailures,
        *,
        has_others: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._here = LoginLimiter(config, monotonic)
        self._failures = failures
        self._has_others = has_others
        self._clock = clock
        self._allowance = _to_allowance(config)
        self._locked_until_ms: OrderedDict[str, int] = OrderedDict()  # of every address known to have failed
        self._refresh_at = -math.inf

    def reconfigure(self, config: RateLimitConfig) -> None:
        """Apply another limit to what fails from now on."""
        self._here.reconfigure(config)
        self._allowance = _to_allowance(config)

    def lockout_seconds(self, address: str) -> float:
        """How long `address` is still locked out; 0 when it is not."""
        self._refresh_when_due()
        locked_ms = self._locked_until_ms.get(address, 0) - self._clock() * 1000
        # No longer than a lockout lasts, should the clock have been set back meanwhile.
        shared = min(max(locked_ms, 0.0), float(self._allowance.lockout_ms)) / 1000
        return max(shared, self._here.lockout_seconds(address))

    def record_failure(self, address: str) -> None:
        """Count a wrong secret from `address`; returns once all gateways can know of it."""
        if self._here.exempts(address):
            return
        self._here.record_failure(address)  # at once, for those that come side by side
        try:
            locked_until_ms = self._failures.record(address, int(self._clock() * 1000), self._allowance)
        except StoreError:  # told in the log; this process has counted it
            return
        self._note(address, locked_until_ms)

    def record_success(self, address: str) -> None:
        """Forget the failures of `address`."""
        self._here.record_success(address)
        if self._locked_until_ms.pop(address, None) is not None:
            concurrency.spawn(self._forget, address)

    def _refresh_when_due(self) -> None:
        now = monotonic()
        if now >= self._refresh_at:
            first, self._refresh_at = self._refresh_at == -math.inf, now + _REFRESH_SECONDS
            if first or self._has_others():
                concurrency.spawn(self._refresh)

    def _refresh(self) -> None:
        try:
            news = self._failures.read_news()
        except StoreError:  # told in the log
            return
        for address, locked_until_ms in news.items():
            self._note(address, locked_until_ms)

    def _note(self, address: str, locked_until_ms: int) -> None:
        self._locked_until_ms[address] = locked_until_ms
        self._locked_until_ms.move_to_end(address)
        if len(self._locked_until_ms) > _MOST_ADDRESSES:
            self._locked_until_ms.popitem(last=False)

    def _forget(self, address: str) -> None:
        try:
            self._failures.forget(address)
        except StoreError:  # told in the log
            return


def _to_allowance(config: RateLimitConfig) -> Allowance:
    return Allowance(config.max_attempts, config.window_ms, config.lockout_ms)
