"""Who may speak to the gateway: its secret, the limit on wrong guesses, the proxies it believes.

Everything is decided from headers alone, before a body is read. No message, log line or `repr` holds a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import SecretStr

from service.api.client_address import is_loopback
from service.config.schema import AuthConfig, RateLimitConfig
from service.config.source import ConfigError
from service.config.types import secret_fault
from service.core.dataclass import record
from service.core.errors import GatewayError

AuthMode = Literal["token", "password", "none"]


_MOST_ADDRESSES = 10_000


@record
class Credentials:
    """How callers prove who they are; `secret` is empty with mode "none"."""

    mode: AuthMode
    secret: str = field(default="", repr=False)


@record
class Principal:
    """A caller who was let in, and how."""

    mode: AuthMode


def resolve_credentials(auth: AuthConfig, environ: Mapping[str, str], host: str) -> Credentials:
    """The credentials the configuration and, where it is silent, the environment ask for.

    `host` is the address to be listened on. Raises `ConfigError` for a choice that is ambiguous, incomplete or open
    to the network.
    """
    secrets = {
        "token": _secret(auth.token, environ, "OPENCLAW_GATEWAY_TOKEN"),
        "password": _secret(auth.password, environ, "OPENCLAW_GATEWAY_PASSWORD"),
    }
    mode = auth.mode or _only_mode(secrets)
    if mode == "none":
        if not is_loopback(host):
            problem = (
                f'gateway.auth.mode: "none" lets everyone in who can reach {host}; '
                'use "token" or "password", or gateway.bind "loopback"'
            )
            raise ConfigError([problem])
        return Credentials("none")
    secret = secrets[mode]
    if secret is None:
        raise ConfigError(
            [f'gateway.auth.{mode}: is required with mode "{mode}"; set it or OPENCLAW_GATEWAY_{mode.upper()}']
        )
    fault = secret_fault(secret)
    if fault is not None:
        raise ConfigError([f"gateway.auth.{mode} (or OPENCLAW_GATEWAY_{mode.upper()}): {fault}"])
    return Credentials(mode, secret)


def _secret(configured: SecretStr | None, environ: Mapping[str, str], variable: str) -> str | None:
    if configured is not None:
        return configured.get_secret_value()
    return environ.get(variable) or None


def _only_mode(secrets: Mapping[str, str | None]) -> Literal["token", "password"]:
    if None not in secrets.values():
        raise ConfigError(["gateway.auth.mode: there are both a token and a password; say which with this key"])
    if secrets["token"] is not None:
        return "token"
    if secrets["password"] is not None:
        return "password"
    problem = (
        "gateway.auth: callers need a secret; set gateway.auth.token or OPENCLAW_GATEWAY_TOKEN to a long random text. "
        'On a machine of your own, gateway.auth.mode "none" does without'
    )
    raise ConfigError([problem])


@dataclass(slots=True)
class _Failures:
    at_seconds: deque[float] = field(default_factory=deque)
    locked_until_seconds: float = -math.inf


class FailureLimits(Protocol):
    """Counts wrong secrets by client address and says who has sent too many. Only `record_failure` may wait."""

    def lockout_seconds(self, address: str) -> float:
        """How long `address` is still locked out; 0 when it is not."""

    def record_failure(self, address: str) -> None:
        """Count a wrong secret from `address`."""

    def record_success(self, address: str) -> None:
        """Forget the failures of `address`."""

    def reconfigure(self, config: RateLimitConfig) -> None:
        """Apply another limit to what fails from now on."""


class LoginLimiter:
    """Counts wrong secrets by client address and locks out addresses that send too many.

    More than `max_attempts` failures within the window lock the address for the lockout's time. At most 10,000
    addresses are remembered; the one whose last failure is oldest is forgotten first. `clock` returns seconds and
    never goes back.
    """

    def __init__(self, config: RateLimitConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def reconfigure(self, config: RateLimitConfig) -> None:
        """Apply another limit to what fails from now on."""
        self._config = config

    def lockout_seconds(self, address: str) -> float:
        """How long `address` is still locked out; 0 when it is not."""
        failures = self._failures.get(address)
        return max(failures.locked_until_seconds - self._clock(), 0.0) if failures else 0.0

    def record_failure(self, address: str) -> None:
        """Count a wrong secret from `address`."""
        if self.exempts(address):
            return
        now = self._clock()
        failures = self._failures.setdefault(address, _Failures())
        self._failures.move_to_end(address)
        while failures.at_seconds and failures.at_seconds[0] <= now - self._config.window_ms / 1000:
            failures.at_seconds.popleft()
        failures.at_seconds.append(now)
        if len(failures.at_seconds) > self._config.max_attempts:
            failures.locked_until_seconds = now + self._config.lockout_ms / 1000
            failures.at_seconds.clear()
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)

    def exempts(self, address: str) -> bool:
        """Whether wrong secrets from `address` are not counted."""
        return self._config.exempt_loopback and is_loopback(address)

    def record_success(self, address: str) -> None:
        """Forget the failures of `address`."""
        self._failures.pop(address, None)


class Authenticator:
    """Lets callers in who send the right secret, and not too many wrong ones before it."""

    def __init__(self, credentials: Credentials, limiter: FailureLimits) -> None:
        self._limiter = limiter
        self._set(credentials)

    def reconfigure(self, credentials: Credentials, rate_limit: RateLimitConfig) -> bool:
        """Ask for other credentials from now on, within another limit; whether they are others.

        Failures so far still count. Raises `ValueError` when that would begin or end doing without: it needs another
        contract, hence a restart.
        """
        if (credentials.mode == "none") != (self.mode == "none"):
            raise ValueError("a running gateway cannot begin or cease to do without authentication")
        self._limiter.reconfigure(rate_limit)
        before = self.mode, self._digest
        self._set(credentials)
        return before != (self.mode, self._digest)

    def _set(self, credentials: Credentials) -> None:
        self.mode = credentials.mode
        self._principal = Principal(credentials.mode)
        self._digest = None if credentials.mode == "none" else _digest(credentials.secret.encode())

    def check(self, authorization: str | None, client_address: str) -> Principal:
        """The caller behind an Authorization header, given as WSGI gives it (each character one byte).

        Raises `GatewayError`: `too_many_failed_attempts` while the address is locked out, whatever it sends;
        `missing_credentials` without a Bearer secret, which is no attempt; `invalid_api_key` for a wrong one.
        """
        sent = f"This gateway needs its {self._principal.mode}, sent as `Authorization: Bearer <secret>`."
        return self.check_secret(_parse_bearer(authorization or ""), client_address, "authorization", sent)

    def check_secret(self, secret: bytes, client_address: str, param: str, missing: str) -> Principal:
        """The caller who sent `secret` in `param`; raises as `check` does, with the text `missing` if it is empty."""
        if self._digest is None:
            return self._principal
        self._check_lockout(client_address)
        if not secret:
            headers = {"WWW-Authenticate": "Bearer"}
            raise GatewayError("missing_credentials", missing, param=param, headers=headers)
        # Digests are all of one length, so that comparing them takes the same time for every guess.
        if hmac.compare_digest(_digest(secret), self._digest):
            self._limiter.record_success(client_address)
            return self._principal
        self._limiter.record_failure(client_address)
        self._check_lockout(client_address)
        raise GatewayError(
            "invalid_api_key",
            f"This is not the gateway's {self._principal.mode}.",
            param=param,
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )

    def _check_lockout(self, client_address: str) -> None:
        seconds = math.ceil(self._limiter.lockout_seconds(client_address))
        if seconds > 0:
            raise GatewayError(
                "too_many_failed_attempts",
                f"Too many wrong secrets came from this address. Try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )


def _parse_bearer(authorization: str) -> bytes:
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return b""
    # Not a bare strip(): in a secret's UTF-8, bytes such as 0xA0 look like white space.
    return secret.strip(" \t").encode("latin-1", "replace")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
