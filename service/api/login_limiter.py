"""Limit failed logins across gateways that share a database."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Self

from service.api.auth import LoginLimiter
from service.config.gateway import LoginLimitConfig
from service.core import concurrency
from service.core.dataclass import record
from service.storage.cluster.login_failures import LoginFailures, LoginLimit
from service.storage.database.errors import StoreError

_REFRESH_SECONDS = 1.0
_MAX_ADDRESSES = 10_000


@record
class _Lockout:
    """The end of a lockout in seconds: `until` by the shared wall clock, `ends_at` by the monotonic clock."""

    until: float
    ends_at: float


class SharedLoginLimiter:
    """Count failed attempts in the database, and in this process in case the database is unavailable.

    A right secret never waits for the database. Counts of other gateways are read once a second while requests arrive
    and `has_peers` returns True; a wrong secret reads them at once. A success clears the count at the gateway that saw
    it, and in the database. `clock` returns seconds since 1970.
    """

    def __init__(
        self,
        config: LoginLimitConfig,
        failures: LoginFailures,
        *,
        has_peers: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._local = LoginLimiter(config, monotonic)
        self._failures = failures
        self._has_peers = has_peers
        self._clock = clock
        self._limit = _to_login_limit(config)
        self._lockouts: OrderedDict[str, _Lockout] = OrderedDict()  # every address with a known failure
        self._refresh_at = -math.inf

    def with_config(self, config: LoginLimitConfig) -> Self:
        """Return a limiter with another configuration that shares the failures counted so far."""
        limiter = copy.copy(self)
        limiter._local = self._local.with_config(config)  # noqa: SLF001  # the copy, before anybody else has it
        limiter._limit = _to_login_limit(config)  # noqa: SLF001
        return limiter

    def lockout_seconds(self, address: str) -> float:
        """Return the remaining lockout of `address`, 0 if it is not locked out."""
        if monotonic() >= self._refresh_at:
            self._refresh_if_shared()
        lockout = self._lockouts.get(address)
        # The earlier end counts: by the monotonic clock a lockout ends even if the wall clock was set back.
        shared = 0.0 if lockout is None else min(lockout.until - self._clock(), lockout.ends_at - monotonic())
        return max(shared, self._local.lockout_seconds(address), 0.0)

    def record_failure(self, address: str) -> None:
        """Count a failed attempt from `address`; returns when it is visible to all gateways."""
        if self._local.exempts(address):
            return
        self._local.record_failure(address)  # first, because concurrent attempts must see it
        try:
            locked_until_ms = self._failures.record(address, int(self._clock() * 1000), self._limit)
        except StoreError:  # logged; this process has counted it
            return
        self._note(address, locked_until_ms)

    def record_success(self, address: str) -> None:
        """Forget the failures of `address`."""
        self._local.record_success(address)
        if self._lockouts.pop(address, None) is not None:
            concurrency.spawn(self._forget, address)

    def _refresh_if_shared(self) -> None:
        first, self._refresh_at = self._refresh_at == -math.inf, monotonic() + _REFRESH_SECONDS
        if first or self._has_peers():
            concurrency.spawn(self._refresh)

    def _refresh(self) -> None:
        try:
            changes = self._failures.read_changes(int(self._clock() * 1000))
        except StoreError:  # logged
            return
        for address, locked_until_ms in changes.items():
            self._note(address, locked_until_ms)

    def _note(self, address: str, locked_until_ms: int) -> None:
        until, known = locked_until_ms / 1000, self._lockouts.get(address)
        if known is None or known.until != until:  # else its end by the monotonic clock stays
            left = min(max(until - self._clock(), 0.0), self._limit.lockout_ms / 1000)
            self._lockouts[address] = _Lockout(until, monotonic() + left)
        self._lockouts.move_to_end(address)
        if len(self._lockouts) > _MAX_ADDRESSES:
            self._lockouts.popitem(last=False)

    def _forget(self, address: str) -> None:
        try:
            self._failures.clear(address)
        except StoreError:  # logged
            return


def _to_login_limit(config: LoginLimitConfig) -> LoginLimit:
    return LoginLimit(config.max_attempts, config.window_ms, config.lockout_ms)
