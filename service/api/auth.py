"""Authenticate callers by the gateway's secret or a named key, and limit failed attempts.

Decisions use headers only, before a body is read. No message, log line or `repr` contains a secret.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import math
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, Protocol, Self

from pydantic import SecretStr

from service.api.client_address import is_loopback, network_of
from service.config.gateway import AuthConfig, AuthMode, LoginLimitConfig
from service.config.source import ConfigError
from service.config.types import secret_fault
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.principal import ADMINISTRATOR, Principal
from service.core.signals import LoginFailed, login_failed

#: How named keys begin.
KEY_PREFIX = b"ocgw_"

_WRONG_KEY = "Wrong API key. Send one that exists, and is neither expired nor revoked."

_NO_USER = "No trusted proxy names a user. Log in there, or send an API key as `Authorization: Bearer <key>`."


_MIN_GENERATED_LENGTH = 32
_MIN_DISTINCT_CHARACTERS = 10
_MAX_STEP_SHARE = 0.3
_MIN_CHANGE_SHARE = 0.4
_REPEATED_CHARACTERS = 5
_MAX_WALK_SHARE = 0.35
_WALKS = "qwertyuiop asdfghjkl zxcvbnm 1qaz 2wsx 3edc 4rfv 5tgb 6yhn 7ujm 8ik 9ol !qaz @wsx #edc $rfv"
_HEXADECIMAL = re.compile(r"[0-9a-f-]+|[0-9A-F-]+")
_MAX_ADDRESSES = 10_000


@record
class Credentials:
    """The authentication mode and its secret, which is empty with the modes "none" and "trusted-proxy"."""

    mode: AuthMode
    secret: str = field(default="", repr=False)


def resolve_credentials(auth: AuthConfig, environ: Mapping[str, str], host: str) -> Credentials:
    """Resolve the credentials from the configuration, then the environment.

    `host` is the listen address. Raises `ConfigError` if they are ambiguous, incomplete or open to the network.
    """
    secrets = {
        "token": _secret(auth.token, environ, "OPENCLAW_GATEWAY_TOKEN"),
        "password": _secret(auth.password, environ, "OPENCLAW_GATEWAY_PASSWORD"),
    }
    mode = auth.mode or _only_mode(secrets)
    if mode == "none":
        if not is_loopback(host):
            problem = (
                f'gateway.auth.mode: "none" admits everyone who can reach {host}; '
                'use "token" or "password", or gateway.bind "loopback"'
            )
            raise ConfigError([problem])
        return Credentials("none")
    if mode == "trusted-proxy":
        return Credentials("trusted-proxy")
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
        raise ConfigError(["gateway.auth.mode: there are both a token and a password; choose one with this key"])
    if secrets["token"] is not None:
        return "token"
    if secrets["password"] is not None:
        return "password"
    problem = (
        "gateway.auth: no secret is configured; set gateway.auth.token or OPENCLAW_GATEWAY_TOKEN to a random string. "
        'On a private machine, gateway.auth.mode "none" disables authentication'
    )
    raise ConfigError([problem])


@dataclass(slots=True)
class _Failures:
    at_seconds: deque[float] = field(default_factory=deque)
    locked_until_seconds: float = -math.inf


class FailureLimits(Protocol):
    """A limit on failed attempts per client address. Only `record_failure` may wait."""

    def lockout_seconds(self, address: str) -> float:
        """Return the remaining lockout of `address`, 0 if it is not locked out."""

    def record_failure(self, address: str) -> None:
        """Count a failed attempt from `address`."""

    def record_success(self, address: str) -> None:
        """Forget the failures of `address`."""

    def with_config(self, config: LoginLimitConfig) -> Self:
        """Return a limiter with another configuration that shares the failures counted so far."""


class LoginLimiter:
    """Count failed attempts per client address and lock out addresses with too many.

    More than `max_attempts` failures within the window lock the address out for `lockout_ms`. At most 10,000 addresses
    are kept; the one with the oldest last failure is dropped first. `clock` returns monotonic seconds.
    """

    def __init__(self, config: LoginLimitConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def with_config(self, config: LoginLimitConfig) -> Self:
        """Return a limiter with another configuration that shares the failures counted so far."""
        limiter = copy.copy(self)
        limiter._config = config  # noqa: SLF001  # the copy, before anybody else has it
        return limiter

    def lockout_seconds(self, address: str) -> float:
        """Return the remaining lockout of `address`, 0 if it is not locked out."""
        failures = self._failures.get(address)
        return max(failures.locked_until_seconds - self._clock(), 0.0) if failures else 0.0

    def record_failure(self, address: str) -> None:
        """Count a failed attempt from `address`."""
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
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def exempts(self, address: str) -> bool:
        """Return True if failures from `address` are not counted."""
        return self._config.exempt_loopback and is_loopback(address)

    def record_success(self, address: str) -> None:
        """Forget the failures of `address`."""
        self._failures.pop(address, None)


class NamedKeys(Protocol):
    """The named keys. Both methods may wait, and raise `StoreError`."""

    def authenticate(self, key: bytes) -> Principal | None:
        """Return the caller with `key`, `None` for one that is not valid."""

    def renew(self, principal: Principal) -> Principal | None:
        """Return a caller that was accepted before with what its key may do now, `None` if that is not valid."""


class Authenticator:
    """Admit callers that send the secret or one of `keys`.

    Those whose address, or /64 network of IPv6, is locked out are refused.
    """

    def __init__(self, credentials: Credentials, limiter: FailureLimits, keys: NamedKeys | None = None) -> None:
        self._limiter = limiter
        self._keys = keys
        self.mode = credentials.mode
        self._digest = _digest(credentials.secret.encode()) if credentials.secret else b""  # equal to no digest
        self._is_unguessable = credentials.mode == "token" and is_generated(credentials.secret)

    def updated(self, credentials: Credentials, rate_limit: LoginLimitConfig) -> Authenticator:
        """Return an authenticator for other credentials and limits; earlier failures still count.

        Raises `ValueError` for a change from or to mode "none", which needs another contract and therefore a restart.
        """
        if (credentials.mode == "none") != (self.mode == "none"):
            raise ValueError("authentication cannot be switched on or off in a running gateway")
        return Authenticator(credentials, self._limiter.with_config(rate_limit), self._keys)

    def has_same_secret(self, other: Authenticator) -> bool:
        """Return True if both accept the same secret in the same mode."""
        return (self.mode, self._digest) == (other.mode, other._digest)

    def check(self, authorization: str | None, client_address: str) -> Principal:
        """Authenticate an Authorization header, given as WSGI has it (each character one byte).

        Raises `GatewayError`: `too_many_failed_attempts` while the address is locked out, except for named keys and for
        the right token if it is a generated one, which cannot be guessed; `missing_credentials` without a Bearer
        secret, which is no attempt; `invalid_api_key` for a wrong one. `StoreError` if a named key cannot be read.
        """
        missing = f"Send the gateway's {self.mode} or an API key as `Authorization: Bearer <secret>`."
        if self.mode == "trusted-proxy":
            missing = _NO_USER
        return self.check_secret(_parse_bearer(authorization or ""), client_address, "authorization", missing)

    def check_secret(self, secret: bytes, client_address: str, param: str, missing: str) -> Principal:
        """Authenticate `secret`, sent in `param`; raises as `check` does, with the message `missing` if it is empty."""
        if self.mode == "none":
            return ADMINISTRATOR
        # Digests have one length: the comparison takes the same time for every guess.
        is_right = hmac.compare_digest(_digest(secret), self._digest)
        if is_right and self._is_unguessable:
            return ADMINISTRATOR
        if not is_right and self._keys is not None and secret.startswith(KEY_PREFIX):
            principal = self._keys.authenticate(secret)
            if principal is not None:
                return principal
        client = network_of(client_address)
        try:
            self._check_lockout(client)
        except GatewayError as error:
            if secret:
                login_failed.emit(LoginFailed(error.code))
            raise
        if not secret:
            headers = {"WWW-Authenticate": "Bearer"}
            raise GatewayError("missing_credentials", missing, param=param, headers=headers)
        if is_right:
            self._limiter.record_success(client)
            return ADMINISTRATOR
        login_failed.emit(LoginFailed("invalid_api_key"))
        self._limiter.record_failure(client)
        self._check_lockout(client)
        raise GatewayError(
            "invalid_api_key",
            self._wrong(secret),
            param=param,
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )

    def _wrong(self, secret: bytes) -> str:
        if secret.startswith(KEY_PREFIX):
            return _WRONG_KEY
        return _NO_USER if self.mode == "trusted-proxy" else f"Wrong {self.mode}. Send the gateway's {self.mode}."

    def renew(self, principal: Principal) -> Principal | None:
        """Return a caller that was authenticated earlier as it is now, `None` if it is not valid any more."""
        if principal.key_id is None:
            return principal
        return None if self._keys is None else self._keys.renew(principal)

    def _check_lockout(self, client: str) -> None:
        seconds = math.ceil(self._limiter.lockout_seconds(client))
        if seconds > 0:
            raise GatewayError(
                "too_many_failed_attempts",
                f"Too many failed attempts from this address. Try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )


def is_generated(secret: str) -> bool:
    """Return True for a secret that a random generator made, of at least 32 characters.

    Words, repetitions, sequences and walks over a keyboard are not: characters must be hexadecimal and diverse, or
    change between upper case, lower case, digits and symbols as often as random ones do.
    """
    if len(secret) < _MIN_GENERATED_LENGTH or len(set(secret)) < _MIN_DISTINCT_CHARACTERS:
        return False
    if max(map(_common_step_share, (secret, secret[::2]))) > _MAX_STEP_SHARE or _has_repetition(secret.lower()):
        return False
    if _HEXADECIMAL.fullmatch(secret):
        return True
    kinds = ["a" if one.islower() else "A" if one.isupper() else "0" if one.isdigit() else "-" for one in secret]
    changes = sum(before != after for before, after in pairwise(kinds))
    return changes >= _MIN_CHANGE_SHARE * len(secret)


def _common_step_share(text: str) -> float:
    """Return the share of the commonest distance between neighbours: high in sequences such as 0123 or abab."""
    steps = Counter(ord(after) - ord(before) for before, after in pairwise(text))
    return steps.most_common(1)[0][1] / len(text)


def _has_repetition(text: str) -> bool:
    """Return True if `text` has a piece twice, or much of it is neighbours on a keyboard."""
    pieces = [text[start : start + _REPEATED_CHARACTERS] for start in range(len(text) - _REPEATED_CHARACTERS + 1)]
    walked = sum(before + after in _WALKS or after + before in _WALKS for before, after in pairwise(text))
    return len(set(pieces)) < len(pieces) or walked > _MAX_WALK_SHARE * len(text)


def is_named_key(authorization: str | None) -> bool:
    """Return True if an Authorization header has a named API key, valid or not."""
    return authorization is not None and _parse_bearer(authorization).startswith(KEY_PREFIX)


def _parse_bearer(authorization: str) -> bytes:
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return b""
    # Not a bare strip(): in a secret's UTF-8, bytes such as 0xA0 look like white space.
    return secret.strip(" \t").encode("latin-1", "replace")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
