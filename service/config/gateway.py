"""The configuration's section on the gateway itself: where it listens, whom it serves, and which endpoints it has."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from service.config.limits import LimitsConfig
from service.config.problems import Section
from service.config.sessions import HttpSessionsConfig
from service.config.types import (
    AddressAndPort,
    Bool,
    Count,
    ExactOrigin,
    GatewayUrl,
    HeaderName,
    HostPattern,
    Network,
    Origin,
    Port,
    Positive,
    PublicName,
    Whole,
)
from service.core.byte_budget import DEFAULT_BYTES

DEFAULT_PORT = 18789

AnyNetwork = IPv4Network | IPv6Network

#: A network of proxies that are trusted with users' names is not wider.
_WIDEST_PREFIX = 8

#: A body of the largest size takes about this much memory.
MIN_IN_FLIGHT_BYTES = 64 * 1024 * 1024


class LoginLimitConfig(Section):
    """Limits on failed authentications from one address."""

    max_attempts: Positive = 10
    """Failures within the window before the address is locked out."""
    window_ms: Positive = 60_000
    """Length of the window in milliseconds."""
    lockout_ms: Positive = 300_000
    """The duration of a lock-out, in milliseconds."""
    exempt_loopback: Bool = True
    """Never lock out addresses of this machine."""


#: Headers that callers, clients and proxies set for other ends, or that say something else about the request.
_NO_USER_HEADERS = frozenset(
    {"authorization", "connection", "content-length", "content-type", "cookie", "forwarded", "host", "origin"}
    | {"referer", "transfer-encoding", "upgrade", "user-agent", "x-forwarded-for", "x-real-ip", "x-request-id"}
    | {"idempotency-key"}
)


class TrustedProxyConfig(Section):
    """Users whom a proxy in front of the gateway authenticates."""

    user_header: HeaderName
    """The header in which the proxy sends the user's name. It must replace the one that a caller sends."""
    required_headers: tuple[HeaderName, ...] = ()
    """Headers that the proxy always sends; requests without them are refused."""
    allow_users: tuple[PublicName, ...] = ()
    """Users that are allowed. Empty: whomever the proxy names."""
    allow_loopback: Bool = True
    """Accept a proxy on this machine. Every other program there can then name any user."""

    @field_validator("user_header")
    @classmethod
    def _check_user_header(cls, name: str) -> str:
        if name.lower() in _NO_USER_HEADERS or name.lower().startswith("x-openclaw-") or "_" in name:
            raise ValueError(
                "must be a header that the proxy alone sets, such as x-forwarded-user, without underscores"
            )
        return name.lower()


AuthMode = Literal["token", "password", "trusted-proxy", "none"]


class AuthConfig(Section):
    """Authentication of callers."""

    mode: AuthMode | None = None
    """The way callers authenticate. "trusted-proxy" leaves it to a proxy in front. Unset: by whichever of `token` and
    `password` is set."""
    token: SecretStr | None = None
    """The shared token. OPENCLAW_GATEWAY_TOKEN sets it from the environment."""
    password: SecretStr | None = None
    """The shared password. OPENCLAW_GATEWAY_PASSWORD sets it from the environment."""
    rate_limit: LoginLimitConfig = LoginLimitConfig()
    """Limits on failed authentications from one address."""
    trusted_proxy: Annotated[TrustedProxyConfig | None, Field(validate_default=True)] = None
    """The headers by which a proxy in front names the user, with `mode` "trusted-proxy"."""

    @field_validator("trusted_proxy")
    @classmethod
    def _check_trusted_proxy(cls, value: TrustedProxyConfig | None, info: ValidationInfo) -> TrustedProxyConfig | None:
        if value is None and info.data.get("mode") == "trusted-proxy":
            raise ValueError('is required with gateway.auth.mode "trusted-proxy": { userHeader: "x-forwarded-user" }')
        return value


class TlsConfig(Section):
    """TLS, which a reverse proxy has to provide."""

    enabled: Bool = False
    """Must be `false`: this gateway serves plain HTTP."""

    @field_validator("enabled")
    @classmethod
    def _refuse_tls(cls, enabled: bool) -> bool:
        if enabled:
            raise ValueError("this gateway serves plain HTTP: let a reverse proxy end TLS, and set this to false")
        return enabled


class ImagesConfig(Section):
    """Images in requests."""

    allow_url: Bool = False
    """Fetch images that a request gives as an http or https URL."""
    url_allowlist: tuple[str, ...] = ()
    """Hosts that images may be fetched from, such as "img.example.com" or "*.example.com". Empty: any public host."""
    allowed_mimes: tuple[str, ...] = ("image/jpeg", "image/png", "image/gif", "image/webp")
    """Accepted media types."""
    max_bytes: Positive = 10 * 1024 * 1024
    """Largest image in bytes."""
    max_redirects: Count = 3
    """Redirects to follow for one image."""
    timeout_ms: Positive = 10_000
    """Time limit for fetching one image, in milliseconds."""


class ChatCompletionsConfig(Section):
    """The OpenAI-compatible endpoint."""

    enabled: Bool = False
    """Serve `POST /v1/chat/completions` and the endpoints beside it."""
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    """The effect of a disconnect on a run, unless the request has `x-openclaw-on-disconnect`."""
    events: tuple[Literal["reasoning", "tools"], ...] = ()
    """Further parts of an answer beside its text, unless the request has `x-openclaw-events`."""
    images: ImagesConfig = ImagesConfig()
    """Images in requests."""


class MetricsConfig(Section):
    """Metrics for Prometheus."""

    enabled: Bool = False
    """Count, and serve `GET /metrics`. With several workers a change needs a restart."""
    port: Annotated[Port, Field(ge=1)] | None = None
    """A further port, of 127.0.0.1, on which `GET /metrics` needs no token; not `gateway.port`. A change needs a
    restart."""


class SwitchConfig(Section):
    """An endpoint that is only on or off."""

    enabled: Bool = False
    """Serve it."""


class ResponsesConfig(Section):
    """OpenAI's Responses API. Pictures and disconnects are treated as `chatCompletions` says."""

    enabled: Bool = False
    """Serve `/v1/responses`."""


class EndpointsConfig(Section):
    """HTTP endpoints that can be switched on."""

    chat_completions: ChatCompletionsConfig = ChatCompletionsConfig()
    """The OpenAI-compatible endpoint."""
    metrics: MetricsConfig = MetricsConfig()
    """Metrics for Prometheus."""
    tools: SwitchConfig = SwitchConfig()
    """`GET /v1/tools` and `POST /tools/invoke`: callers use the agents' tools themselves."""
    embeddings: SwitchConfig = SwitchConfig()
    """`POST /v1/embeddings`: vectors of texts, by the model of `embeddings.model`."""
    responses: ResponsesConfig = ResponsesConfig()
    """OpenAI's Responses API."""

    @property
    def enabled(self) -> frozenset[str]:
        """The names, as in the file, of those that are switched on."""
        fields = type(self).model_fields.items()
        return frozenset(field.alias or name for name, field in fields if getattr(self, name).enabled)


class WebhooksConfig(Section):
    """Webhooks of runs."""

    allow_hosts: tuple[HostPattern, ...] = ()
    """Hosts that webhooks may be sent to, such as "hooks.example.com" or "*.example.com". Empty: any public host."""
    private_addresses: tuple[AddressAndPort, ...] = ()
    """Addresses that webhooks may be sent to although they are not public, or the port is not 80 or 443, such as
    "10.0.0.5:8080" or "[fd00::5]:443"."""


class CorsConfig(Section):
    """Requests of browsers from pages of other origins (CORS)."""

    allowed_origins: tuple[ExactOrigin, ...] = ()
    """Origins whose pages may call the HTTP API, such as "https://ui.example.com". They still need the token."""


class HttpConfig(Section):
    """The HTTP API."""

    endpoints: EndpointsConfig = EndpointsConfig()
    """HTTP endpoints that can be switched on."""
    models: dict[PublicName, str] = Field(default_factory=dict)
    """Further names of agents for the `model` of requests, such as `"gpt-4o": "openclaw/coder"`."""
    cors: CorsConfig = CorsConfig()
    """Requests of browsers from pages of other origins (CORS)."""
    sessions: HttpSessionsConfig = HttpSessionsConfig()
    """The session of a request without `x-openclaw-session-key`."""
    webhooks: WebhooksConfig = WebhooksConfig()
    """Webhooks of runs."""


class RemoteConfig(Section):
    """The gateway on another host that the command line talks to with `gateway.mode` "remote"."""

    url: GatewayUrl | None = None
    """Its address, such as "wss://gateway.example.com"."""
    token: SecretStr | None = None
    """Its token."""
    password: SecretStr | None = None
    """Its password."""


class ReloadConfig(Section):
    """Edits of the file while the gateway runs."""

    mode: Literal["hybrid", "hot", "restart", "off"] = "hybrid"
    """"off" ignores edits until a restart. The other modes apply what can be applied and log what needs a restart."""


class ControlUiConfig(Section):
    """Pages in browsers."""

    enabled: Bool = False
    """Serve the page for people at `/`: chat, sessions, runs, approvals, usage. It asks for the token or an API key."""
    allowed_origins: tuple[Origin, ...] = ()
    """Origins of pages that may open a WebSocket, such as "https://ui.example.com". "*" is any."""


class InvocableToolsConfig(Section):
    """Tools that callers may call themselves (`POST /tools/invoke`): those of the agent, less those listed here."""

    deny: tuple[str, ...] = ()
    """Tools, patterns and groups that callers may not call."""


class GatewayConfig(Section):
    """The gateway's address, authentication and endpoints."""

    port: Port = DEFAULT_PORT
    """Port for HTTP and WebSocket. `--port` and OPENCLAW_GATEWAY_PORT come first; 0 is any free port."""
    mode: Literal["local", "remote"] = "local"
    """"remote": another host runs the gateway, so that this one does not start."""
    bind: Literal["loopback", "lan", "auto", "custom"] = "loopback"
    """Interface to listen on: this machine alone ("loopback", "auto"), all ("lan"), or `customBindHost` ("custom")."""
    custom_bind_host: Annotated[str | None, Field(validate_default=True)] = None
    """The IP address to listen on with `bind` "custom"."""
    auth: AuthConfig = AuthConfig()
    """Authentication of callers."""
    trusted_proxies: Annotated[tuple[Network, ...], Field(validate_default=True)] = ()
    """Addresses and networks of proxies whose forwarding headers count. Others that send such headers are refused."""
    trusted_proxy_header: Literal["x-forwarded-for", "forwarded", "x-real-ip"] | None = None
    """The header in which trusted proxies send the client's address; the others are ignored. Unset: whichever is sent,
    unless several disagree."""
    tls: TlsConfig = TlsConfig()
    """TLS, which a reverse proxy has to provide."""
    remote: RemoteConfig = RemoteConfig()
    """The gateway on another host that the command line talks to with `mode` "remote"."""
    tools: InvocableToolsConfig = InvocableToolsConfig()
    """Tools that callers may call themselves."""
    http: HttpConfig = HttpConfig()
    """The HTTP API."""
    control_ui: ControlUiConfig = ControlUiConfig()
    """Pages in browsers."""
    limits: LimitsConfig = LimitsConfig()
    """Limits of callers and agents."""
    max_in_flight_bytes: Annotated[Whole, Field(ge=MIN_IN_FLIGHT_BYTES)] = DEFAULT_BYTES
    """Memory for data in flight in each process: bodies of requests, messages, and output that is not read yet. Beyond
    it new work waits briefly and is then refused with 503. At least 64 MiB."""
    reload: ReloadConfig = ReloadConfig()
    """Edits of the file while the gateway runs."""

    def find_port_conflicts(self, port: int, origin: str = "gateway.port") -> tuple[str, ...]:
        """Return a problem if metrics have the `port` of the gateway, too, which is from `origin`."""
        metrics = self.http.endpoints.metrics
        if not metrics.enabled or metrics.port != port:
            return ()
        return (f"gateway.http.endpoints.metrics.port: {port} is {origin}, too; choose another for one of them",)

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, networks: tuple[AnyNetwork, ...], info: ValidationInfo) -> tuple[AnyNetwork, ...]:
        auth = info.data.get("auth")
        if auth is None or auth.mode != "trusted-proxy":
            return networks
        if not networks:
            raise ValueError('is required with gateway.auth.mode "trusted-proxy": the addresses of the proxy')
        if any(network.prefixlen < _WIDEST_PREFIX for network in networks):
            raise ValueError('is too wide for gateway.auth.mode "trusted-proxy": everybody there can be any user')
        by_loopback = any(network.is_loopback for network in networks)
        if by_loopback and auth.trusted_proxy is not None and not auth.trusted_proxy.allow_loopback:
            raise ValueError("has a loopback address, which gateway.auth.trustedProxy.allowLoopback forbids")
        on_loopback = info.data.get("bind") in ("loopback", "auto")
        if on_loopback and not by_loopback:
            raise ValueError('has no loopback address, but gateway.bind "loopback" serves only proxies on this machine')
        return networks

    @field_validator("custom_bind_host")
    @classmethod
    def _check_custom_bind_host(cls, host: str | None, info: ValidationInfo) -> str | None:
        if host is None:
            if info.data.get("bind") == "custom":
                raise ValueError('is required with gateway.bind "custom": the IP address to listen on')
            return None
        try:
            return str(ip_address(host))
        except ValueError:
            raise ValueError('must be an IP address to listen on, such as "192.168.1.10"') from None
