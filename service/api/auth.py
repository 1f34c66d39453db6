"""Who may speak to the gateway: its secret, the limit on wrong guesses, the proxies it believes.

Everything is decided from headers alone, before a body is read. No message, log line or `repr` holds a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Literal, Protocol

from pydantic import SecretStr

from service.config.schema import AuthConfig, RateLimitConfig
from service.config.source import ConfigError
from service.config.types import secret_fault
from service.core.dataclass import value
from service.core.errors import GatewayError

AuthMode = Literal["token", "password", "none"]

_HOST = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]{1,5})?")
_FORWARDED_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?(?P<node>[^";]*)', re.IGNORECASE)
_FORWARDING_KEYS = ("HTTP_X_FORWARDED_", "HTTP_FORWARDED", "HTTP_X_REAL_IP")

_MOST_ADDRESSES = 10_000


@value
class Credentials:
    """How callers prove who they are; `secret` is empty with mode "none"."""

    mode: AuthMode
    secret: str = field(default="", repr=False)


@value
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


class FailureLimiter:
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


class ClientAddresses:
    """Tells which address a request comes from, believing forwarding headers only of the trusted proxies."""

    def __init__(self, trusted_proxies: Iterable[IPv4Network | IPv6Network]) -> None:
        self._trusted_proxies = tuple(trusted_proxies)

    def reconfigure(self, trusted_proxies: Iterable[IPv4Network | IPv6Network]) -> None:
        """Believe these proxies from now on, and no others."""
        self._trusted_proxies = tuple(trusted_proxies)

    def check(self, peer: str, headers: Mapping[str, Any]) -> str:
        """The client's address; `headers` has WSGI's names (`HTTP_X_FORWARDED_FOR`), an environ will do.

        Of a trusted proxy's request it is the rightmost address in X-Forwarded-For that is not itself a trusted
        proxy, else in Forwarded, else X-Real-IP, else the peer; only the first header that is there is read. Raises
        `GatewayError` `untrusted_proxy_headers` when any other peer sends such a header.
        """
        for key in headers:
            if key.startswith(_FORWARDING_KEYS):
                return self._forwarded_client(peer, headers)
        return peer

    def _forwarded_client(self, peer: str, headers: Mapping[str, Any]) -> str:
        if not self._is_trusted(_parse_address(peer)):
            raise GatewayError(
                "untrusted_proxy_headers",
                "The request carries forwarding headers, but its sender is not a proxy this gateway trusts. "
                "Whoever runs it can name trusted proxies in gateway.trustedProxies.",
            )
        client = peer
        for node in reversed(_forwarded_nodes(headers)):
            address = _parse_address(node)
            if address is None:  # a trusted proxy did not know its client: the proxy is all that is known
                break
            client = str(address)
            if not self._is_trusted(address):
                break
        return client

    def _is_trusted(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted_proxies)


def _forwarded_nodes(headers: Mapping[str, Any]) -> list[str]:
    if "HTTP_X_FORWARDED_FOR" in headers:
        return str(headers["HTTP_X_FORWARDED_FOR"]).split(",")
    if "HTTP_FORWARDED" in headers:
        found = (_FORWARDED_FOR.search(element) for element in str(headers["HTTP_FORWARDED"]).split(","))
        return [match["node"] if match else "" for match in found]
    return [str(headers["HTTP_X_REAL_IP"])] if "HTTP_X_REAL_IP" in headers else []


def _parse_address(node: str) -> IPv4Address | IPv6Address | None:
    # As proxies write it: 192.0.2.1, 192.0.2.1:4711, 2001:db8::1, [2001:db8::1] or [2001:db8::1]:4711.
    text = node.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(address: str) -> bool:
    """Whether `address` is an IP address of this very machine, IPv4 written as IPv6 included."""
    parsed = _parse_address(address)
    return parsed is not None and parsed.is_loopback


def check_host(host: str | None) -> None:
    """Refuse a Host header that does not name this machine, for a gateway that asks for no secret.

    A page in the operator's browser can make its own name resolve to 127.0.0.1, but it cannot lie about the name.
    Raises `GatewayError` `host_not_allowed`.
    """
    match = _HOST.fullmatch(host or "")
    if match is not None:
        name = (match["name"] or "").lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost") or is_loopback(match["ipv6"] or name):
            return
    raise GatewayError(
        "host_not_allowed",
        "Without authentication this gateway answers only to localhost, 127.0.0.1 or [::1] as its Host.",
        param="host",
    )
