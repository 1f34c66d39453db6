"""Credentials, lockouts, client addresses, and the Host header of a gateway without authentication."""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import Clock

from service.api.auth import Authenticator, Credentials, LoginLimiter, is_generated, resolve_credentials
from service.api.client_address import ClientAddresses, check_host, is_loopback
from service.config.gateway import AuthConfig, LoginLimitConfig
from service.config.schema import parse_config
from service.config.source import ConfigError
from service.core.errors import GatewayError
from service.core.principal import ADMINISTRATOR
from service.core.signals import LoginFailed, login_failed

TOKEN = "right-token-日本-à"  # its last byte in UTF-8, 0xA0, is white space to str.strip()
CLIENT = "203.0.113.7"


def authenticator(clock: Clock, **limits: object) -> Authenticator:
    limiter = LoginLimiter(LoginLimitConfig.model_validate(limits), clock)
    return Authenticator(Credentials("token", TOKEN), limiter)


def header(secret: str, scheme: str = "Bearer ") -> str:
    """Return the Authorization header as WSGI has it."""
    return scheme + secret.encode().decode("latin-1")


def refused(call: Callable[[], object]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value


def auth(**keys: object) -> AuthConfig:
    return parse_config({"gateway": {"auth": keys}})[0].gateway.auth


@pytest.mark.parametrize(
    ("config", "environ", "expected"),
    [
        (auth(token="t"), {}, Credentials("token", "t")),
        (auth(password="p w"), {}, Credentials("password", "p w")),
        (auth(), {"OPENCLAW_GATEWAY_TOKEN": "e"}, Credentials("token", "e")),
        (auth(), {"OPENCLAW_GATEWAY_PASSWORD": "e"}, Credentials("password", "e")),
        (auth(token="t"), {"OPENCLAW_GATEWAY_TOKEN": "e"}, Credentials("token", "t")),
        (auth(mode="password", token="t"), {"OPENCLAW_GATEWAY_PASSWORD": "e"}, Credentials("password", "e")),
        (auth(mode="token", token="t", password="p"), {}, Credentials("token", "t")),
        (auth(mode="none", token="t"), {}, Credentials("none")),
        (auth(token="t"), {"OPENCLAW_GATEWAY_PASSWORD": ""}, Credentials("token", "t")),
    ],
)
def test_credentials_come_from_file_then_environment(
    config: AuthConfig, environ: dict[str, str], expected: Credentials
) -> None:
    assert resolve_credentials(config, environ, "127.0.0.1") == expected


@pytest.mark.parametrize(
    ("config", "environ", "words"),
    [
        (auth(), {}, "set gateway.auth.token or OPENCLAW_GATEWAY_TOKEN"),
        (auth(token="t", password="p"), {}, "both a token and a password"),
        (auth(token="t"), {"OPENCLAW_GATEWAY_PASSWORD": "p"}, "both a token and a password"),
        (auth(mode="token", password="p"), {}, 'gateway.auth.token: is required with mode "token"'),
        (auth(mode="password"), {"OPENCLAW_GATEWAY_TOKEN": "t"}, "gateway.auth.password: is required"),
        (auth(token=""), {"OPENCLAW_GATEWAY_TOKEN": "e"}, "is blank"),
        (auth(), {"OPENCLAW_GATEWAY_TOKEN": " \n"}, "is blank"),
        (auth(token="hunter2 "), {}, "white space"),
        (auth(token="\u00a0hunter2"), {}, "white space"),
        (auth(token="hunter2\nx"), {}, "control character"),
        (auth(token="hunter2\x85x"), {}, "control character"),
        (auth(), {"OPENCLAW_GATEWAY_TOKEN": "hunter2\udcff"}, "not UTF-8"),
    ],
)
def test_ambiguous_or_unusable_secrets_are_refused_without_quoting_them(
    config: AuthConfig, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_credentials(config, environ, "127.0.0.1")
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_mode_none_is_refused_beyond_loopback(host: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.auth\.mode"):
        resolve_credentials(auth(mode="none"), {}, host)


def test_repr_of_credentials_omits_secret() -> None:
    assert TOKEN not in repr(Credentials("token", TOKEN))


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER    ", "Bearer \t "])
def test_right_secret_is_admitted_with_any_spelling_of_bearer(clock: Clock, scheme: str) -> None:
    guard = authenticator(clock)
    assert guard.check(header(TOKEN, scheme), CLIENT) is ADMINISTRATOR
    assert guard.check(header(TOKEN, scheme) + "  ", CLIENT) is ADMINISTRATOR


@given(st.text(min_size=1))
def test_any_usable_secret_is_admitted_and_its_extension_is_not(secret: str) -> None:
    config = AuthConfig.model_validate({"token": secret})
    try:
        credentials = resolve_credentials(config, {}, "127.0.0.1")
    except ConfigError:
        return
    guard = Authenticator(credentials, LoginLimiter(LoginLimitConfig(), Clock()))
    assert guard.check(header(secret), CLIENT) is ADMINISTRATOR
    assert refused(lambda: guard.check(header(secret + "x"), CLIENT)).code == "invalid_api_key"


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer   ", "Basic dXNlcjpwYXNz", header(TOKEN, ""), "Bearerx y"]
)
def test_missing_bearer_secret_is_not_counted(clock: Clock, sent: str | None) -> None:
    guard = authenticator(clock, maxAttempts=1)
    for _ in range(5):
        error = refused(lambda: guard.check(sent, CLIENT))
        assert (error.code, error.status, error.headers) == ("missing_credentials", 401, {"WWW-Authenticate": "Bearer"})
    assert guard.check(header(TOKEN), CLIENT) is ADMINISTRATOR


@pytest.mark.parametrize("sent", ["wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), "日本", "Bearer " + TOKEN])
def test_wrong_secret_is_refused_and_not_quoted(clock: Clock, sent: str) -> None:
    error = refused(lambda: authenticator(clock).check(header(sent), CLIENT))
    assert (error.code, error.status) == ("invalid_api_key", 401)
    assert error.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    assert sent not in error.message
    assert TOKEN not in error.message


def test_header_outside_latin_1_is_wrong_secret(clock: Clock) -> None:
    assert refused(lambda: authenticator(clock).check("Bearer \u65e5\ud800", CLIENT)).code == "invalid_api_key"


def test_mode_none_admits_everyone(clock: Clock) -> None:
    guard = Authenticator(Credentials("none"), LoginLimiter(LoginLimitConfig(max_attempts=1), clock))
    assert [guard.check(sent, CLIENT) for sent in (None, "Bearer x", "Bearer y")] == [ADMINISTRATOR] * 3


def fail(guard: Authenticator, times: int, address: str = CLIENT) -> list[str]:
    return [refused(lambda: guard.check("Bearer wrong", address)).code for _ in range(times)]


def test_too_many_failures_lock_address_out_even_for_right_secret(clock: Clock) -> None:
    guard = authenticator(clock, maxAttempts=3, lockoutMs=10_500)
    assert fail(guard, 4) == ["invalid_api_key"] * 3 + ["too_many_failed_attempts"]
    error = refused(lambda: guard.check(header(TOKEN), CLIENT))
    assert (error.code, error.status, error.headers) == ("too_many_failed_attempts", 429, {"Retry-After": "11"})
    assert guard.check(header(TOKEN), "203.0.113.8") is ADMINISTRATOR
    clock.now += 10.4
    assert refused(lambda: guard.check(header(TOKEN), CLIENT)).headers == {"Retry-After": "1"}
    clock.now += 0.2
    assert guard.check(header(TOKEN), CLIENT) is ADMINISTRATOR


def test_every_attempt_with_secret_is_reported_also_while_address_is_locked_out(clock: Clock) -> None:
    guard, reported = authenticator(clock, maxAttempts=2), Counter[str]()

    def count(event: LoginFailed) -> None:
        reported[event.outcome] += 1

    login_failed.connect(count)
    try:
        for secret in (*["wrong"] * 5, TOKEN):
            refused(partial(guard.check, header(secret), CLIENT))
        refused(lambda: guard.check(None, CLIENT))
        guard.check(header(TOKEN), "198.51.100.1")
    finally:
        login_failed.disconnect(count)
    assert reported == {"invalid_api_key": 3, "too_many_failed_attempts": 3}


def test_network_of_ipv6_is_one_address(clock: Clock) -> None:
    """Who has one can send each guess from another address of it."""
    guard = authenticator(clock, maxAttempts=3)
    codes = [code for number in range(4) for code in fail(guard, 1, f"2001:db8::{number}")]
    assert codes == ["invalid_api_key"] * 3 + ["too_many_failed_attempts"]
    assert fail(guard, 1, "[2001:db8::5:6:7:8]:4711") == ["too_many_failed_attempts"]
    for address in ("2001:db8:0:1::1", "::1", "::ffff:192.0.2.1"):
        assert guard.check(header(TOKEN), address) is ADMINISTRATOR


def test_failure_count_restarts_after_lockout(clock: Clock) -> None:
    guard = authenticator(clock, maxAttempts=2, windowMs=3_600_000, lockoutMs=1000)
    fail(guard, 3)
    clock.now += 1.0
    assert fail(guard, 3) == ["invalid_api_key"] * 2 + ["too_many_failed_attempts"]


def test_failure_window_slides(clock: Clock) -> None:
    guard = authenticator(clock, maxAttempts=2, windowMs=1000)
    codes = []
    for _ in range(10):
        codes += fail(guard, 1)
        clock.now += 0.5
    assert set(codes) == {"invalid_api_key"}
    clock.now -= 0.1
    assert fail(guard, 2)[-1] == "too_many_failed_attempts"


def test_success_clears_failure_count(clock: Clock) -> None:
    guard = authenticator(clock, maxAttempts=2)
    for _ in range(4):
        assert fail(guard, 2) == ["invalid_api_key"] * 2
        guard.check(header(TOKEN), CLIENT)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_exempt_if_configured(clock: Clock, address: str) -> None:
    assert set(fail(authenticator(clock, maxAttempts=1), 5, address)) == {"invalid_api_key"}
    strict = authenticator(clock, maxAttempts=1, exemptLoopback=False)
    assert fail(strict, 2, address)[-1] == "too_many_failed_attempts"


def test_updated_authenticator_takes_the_new_secret_and_keeps_failures(clock: Clock) -> None:
    before = authenticator(clock, maxAttempts=2)
    fail(before, 2)
    after = before.updated(Credentials("token", "another"), LoginLimitConfig(max_attempts=2))
    assert not after.has_same_secret(before)
    assert before.check(header(TOKEN), "198.51.100.7") == after.check(header("another"), "198.51.100.8")
    assert fail(after, 1) == ["too_many_failed_attempts"]
    with pytest.raises(ValueError, match="switched on or off"):
        before.updated(Credentials("none"), LoginLimitConfig())


def test_oldest_of_ten_thousand_addresses_is_dropped_first(clock: Clock) -> None:
    limiter = LoginLimiter(LoginLimitConfig(max_attempts=1), clock)
    for address in ("old", "old", "kept", "kept"):
        limiter.record_failure(address)
    for number in range(9_999):
        limiter.record_failure(f"address {number}")
    assert limiter.lockout_seconds("old") == 0
    assert limiter.lockout_seconds("kept") == 300


PROXY = "10.0.0.1"


@pytest.fixture
def addresses() -> ClientAddresses:
    return ClientAddresses([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])


def test_client_is_peer_without_forwarding_headers(addresses: ClientAddresses) -> None:
    environ = {"HTTP_HOST": "x", "wsgi.url_scheme": "http", "HTTP_X_REQUEST_ID": "1"}
    assert addresses.check(CLIENT, environ) == CLIENT
    assert addresses.check(PROXY, environ) == PROXY


@pytest.mark.parametrize("name", ["FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_REAL_IP"])
@pytest.mark.parametrize("peer", [CLIENT, "127.0.0.1", "::1", ""])
def test_forwarding_headers_of_untrusted_peers_are_refused(addresses: ClientAddresses, name: str, peer: str) -> None:
    error = refused(lambda: addresses.check(peer, {f"HTTP_{name}": ""}))
    assert (error.code, error.status) == ("untrusted_proxy_headers", 403)
    assert "gateway.trustedProxies" in error.message


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X_FORWARDED_FOR": "203.0.113.7"}, "203.0.113.7"),
        ({"X_FORWARDED_FOR": "6.6.6.6, 203.0.113.7"}, "203.0.113.7"),
        ({"X_FORWARDED_FOR": "6.6.6.6,203.0.113.7:4711 , 10.9.9.9"}, "203.0.113.7"),
        ({"X_FORWARDED_FOR": "[2a00::1]:80"}, "2a00::1"),
        ({"X_FORWARDED_FOR": "2a00::1, 2001:db8::5"}, "2a00::1"),
        ({"X_FORWARDED_FOR": "::ffff:203.0.113.7"}, "203.0.113.7"),
        ({"X_FORWARDED_FOR": "10.0.0.9, 10.0.0.8"}, "10.0.0.9"),
        ({"X_FORWARDED_FOR": "6.6.6.6, unknown"}, PROXY),
        ({"X_FORWARDED_FOR": "6.6.6.6, unknown, 10.0.0.8"}, "10.0.0.8"),
        ({"X_FORWARDED_FOR": ""}, PROXY),
        ({"X_FORWARDED_FOR": "6.6.6.6, 203.0.113.7", "X_REAL_IP": "203.0.113.7"}, "203.0.113.7"),
        ({"X_FORWARDED_FOR": "203.0.113.7", "FORWARDED": "for=203.0.113.7"}, "203.0.113.7"),
        ({"FORWARDED": "for=6.6.6.6, for=203.0.113.7;proto=https"}, "203.0.113.7"),
        ({"FORWARDED": 'proto=http; For="[2a00::1]:4711"'}, "2a00::1"),
        ({"FORWARDED": "for=_hidden"}, PROXY),
        ({"FORWARDED": "for=6.6.6.6, proto=https"}, PROXY),
        ({"X_REAL_IP": "203.0.113.7", "X_FORWARDED_PROTO": "https"}, "203.0.113.7"),
        ({"X_FORWARDED_PROTO": "https"}, PROXY),
    ],
)
def test_trusted_proxy_sets_client_address(addresses: ClientAddresses, headers: dict[str, str], expected: str) -> None:
    environ = {f"HTTP_{name}": value for name, value in headers.items()}
    assert addresses.check(PROXY, environ) == expected
    assert addresses.check(f"::ffff:{PROXY}", environ) == (expected if expected != PROXY else f"::ffff:{PROXY}")


CONFLICTING = {"X_FORWARDED_FOR": "6.6.6.6", "FORWARDED": "for=203.0.113.7", "X_REAL_IP": "9.9.9.9"}


@pytest.mark.parametrize("absent", ["X_FORWARDED_FOR", "FORWARDED", "X_REAL_IP", None])
def test_headers_of_trusted_proxy_that_disagree_are_refused(addresses: ClientAddresses, absent: str | None) -> None:
    environ = {f"HTTP_{name}": value for name, value in CONFLICTING.items() if name != absent}
    error = refused(lambda: addresses.check(PROXY, environ))
    assert error.code == "untrusted_proxy_headers"
    assert "gateway.trustedProxyHeader" in error.message


@pytest.mark.parametrize(
    ("header", "expected"),
    [("x-forwarded-for", "6.6.6.6"), ("forwarded", "203.0.113.7"), ("x-real-ip", "9.9.9.9")],
)
def test_configured_proxy_header_is_the_only_one_read(header: Any, expected: str) -> None:
    addresses = ClientAddresses([ip_network("10.0.0.0/8")], header)
    environ = {f"HTTP_{name}": value for name, value in CONFLICTING.items()}
    assert addresses.check(PROXY, environ) == expected
    del environ[f"HTTP_{header.upper().replace('-', '_')}"]
    assert addresses.check(PROXY, environ) == PROXY
    assert refused(lambda: addresses.check(CLIENT, environ)).code == "untrusted_proxy_headers"


@pytest.mark.parametrize(
    "make", [secrets.token_urlsafe, secrets.token_hex, lambda: str(uuid.uuid4()), lambda: secrets.token_hex().upper()]
)
def test_generated_token_is_recognised(make: Callable[[], str]) -> None:
    recognised = [is_generated(make()) for _ in range(1000)]
    assert sum(recognised) > 990


@pytest.mark.parametrize(
    "secret",
    [
        "short-Token-1",
        "a" * 64,
        "0123456789" * 5,
        "0123456789abcdef" * 3,
        "ab1" * 20,
        "correct horse battery staple correct horse",
        "CorrectHorseBatteryStaple2024AndSomeMoreWords",
        "my-company-gateway-token-for-production-2024",
        "this is a long passphrase, 32 characters and more",
        "oPYNuyf9nKLQ47UD44D-vw",
        "P@ssw0rd-P@ssw0rd-P@ssw0rd-2026!!",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol",
        "Qwertyuiop123Asdfghjkl456Zxcvbnm789",
    ],
)
def test_guessable_token_is_not_taken_for_generated(secret: str) -> None:
    assert not is_generated(secret)


def test_generated_token_is_admitted_while_address_is_locked_out(clock: Clock) -> None:
    token = secrets.token_urlsafe(32)
    limiter = LoginLimiter(LoginLimitConfig.model_validate({"maxAttempts": 2}), clock)
    guard = Authenticator(Credentials("token", token), limiter)
    assert fail(guard, 3)[-1] == "too_many_failed_attempts"
    assert guard.check(header(token), CLIENT) is ADMINISTRATOR
    assert fail(guard, 1) == ["too_many_failed_attempts"]
    assert refused(lambda: guard.check(None, CLIENT)).code == "too_many_failed_attempts"


def test_generated_password_is_locked_out(clock: Clock) -> None:
    password = secrets.token_urlsafe(32)
    limiter = LoginLimiter(LoginLimitConfig.model_validate({"maxAttempts": 2}), clock)
    guard = Authenticator(Credentials("password", password), limiter)
    fail(guard, 3)
    assert refused(lambda: guard.check(header(password), CLIENT)).code == "too_many_failed_attempts"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:18789",
        "localhost.",
        "a.b.localhost:1",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]",
        "[::1]:443",
    ],
)
def test_local_host_is_served(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        ":80",
        "evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "192.168.1.1",
        "0.0.0.0",
        "[::]",
        "[::1].evil.example",
        "::1",
        "localhost:port",
        "localhost:80:80",
        "localhost/x",
    ],
)
def test_foreign_host_is_refused(host: str | None) -> None:
    error = refused(lambda: check_host(host))
    assert (error.code, error.status) == ("host_not_allowed", 403)


def test_only_loopback_addresses_are_loopback() -> None:
    assert [is_loopback(text) for text in ("127.0.0.1", "::1", "0.0.0.0", "::", "localhost", "")] == [True] * 2 + [
        False
    ] * 4
