"""The typed configuration: what the file may say, what each key means and what holds where it says nothing.

Names, shapes and defaults are OpenClaw's, so that its file can be used as it is. A `Config` is a frozen value that
has been checked as a whole; durations carry their unit in their name.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from service.config.key_paths import KeyPath, format_path
from service.config.mcp import McpConfig
from service.config.models import ModelsConfig
from service.config.problems import Section, describe_failures, find_unknown_keys
from service.config.sessions import SessionConfig
from service.config.source import ConfigError
from service.config.types import (
    AgentId,
    Bool,
    Count,
    Directory,
    GatewayUrl,
    ModelReference,
    Network,
    Origin,
    Port,
    Positive,
    Seconds,
)

DEFAULT_PORT = 18789


class RateLimitConfig(Section):
    """How many failed authentications an address has: more than `max_attempts` in the window lock it out."""

    max_attempts: Positive = 10
    window_ms: Positive = 60_000
    lockout_ms: Positive = 300_000
    exempt_loopback: Bool = True


class AuthConfig(Section):
    """Who is let in. Without a mode, whichever of the two secrets there is decides."""

    mode: Literal["token", "password", "none"] | None = None
    token: SecretStr | None = None
    password: SecretStr | None = None
    rate_limit: RateLimitConfig = RateLimitConfig()

    @field_validator("mode", mode="before")
    @classmethod
    def _refuse_trusted_proxy(cls, value: object) -> object:
        if value == "trusted-proxy":
            raise ValueError('"trusted-proxy" is not supported by this gateway; use "token" or "password"')
        return value


class TlsConfig(Section):
    """TLS is not served here; the section exists to say so."""

    enabled: Bool = False

    @field_validator("enabled")
    @classmethod
    def _refuse_tls(cls, enabled: bool) -> bool:
        if enabled:
            raise ValueError("this gateway serves plain HTTP: let a reverse proxy end TLS, and set this to false")
        return enabled


class ImagesConfig(Section):
    """Which pictures a request may carry, and whether the gateway fetches those given by address."""

    allow_url: Bool = False
    url_allowlist: tuple[str, ...] = ()
    allowed_mimes: tuple[str, ...] = ("image/jpeg", "image/png", "image/gif", "image/webp")
    max_bytes: Positive = 10 * 1024 * 1024
    max_redirects: Count = 3
    timeout_ms: Positive = 10_000


class ChatCompletionsConfig(Section):
    """The OpenAI-compatible endpoint, off until it is switched on."""

    enabled: Bool = False
    images: ImagesConfig = ImagesConfig()


class EndpointsConfig(Section):
    """The HTTP endpoints that can be switched."""

    chat_completions: ChatCompletionsConfig = ChatCompletionsConfig()


class HttpConfig(Section):
    """The HTTP door."""

    endpoints: EndpointsConfig = EndpointsConfig()


class RemoteConfig(Section):
    """The gateway on another host that the command line talks to with mode "remote"."""

    url: GatewayUrl | None = None
    token: SecretStr | None = None
    password: SecretStr | None = None


class ControlUiConfig(Section):
    """Pages in browsers: the origins, such as "https://ui.example.com", that may open a WebSocket; "*" is any."""

    openclaw_only: ClassVar[frozenset[str]] = frozenset(
        {"enabled", "basePath", "root", "embedSandbox", "allowInsecureAuth", "dangerouslyDisableDeviceAuth"}
        | {"dangerouslyAllowHostHeaderOriginFallback", "allowExternalEmbedUrls", "chatMessageMaxWidth"}
    )

    allowed_origins: tuple[Origin, ...] = ()


class GatewayConfig(Section):
    """Where the gateway listens and whom it serves. `mode` "remote" says that another host runs it."""

    port: Port = DEFAULT_PORT
    mode: Literal["local", "remote"] = "local"
    bind: Literal["loopback", "lan", "auto", "custom"] = "loopback"
    custom_bind_host: Annotated[str | None, Field(validate_default=True)] = None
    auth: AuthConfig = AuthConfig()
    trusted_proxies: tuple[Network, ...] = ()
    tls: TlsConfig = TlsConfig()
    remote: RemoteConfig = RemoteConfig()
    http: HttpConfig = HttpConfig()
    control_ui: ControlUiConfig = ControlUiConfig()

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


class ModelChoice(Section):
    """The model an agent asks and those it turns to when that one fails, in order."""

    primary: ModelReference
    fallbacks: tuple[ModelReference, ...] = ()


class IdentityConfig(Section):
    """Who an agent says it is."""

    name: str | None = None
    theme: str | None = None
    emoji: str | None = None


class SessionToolsConfig(Section):
    """Which sessions the session tools show: the one that asks, all of its agent, or all there are."""

    visibility: Literal["self", "agent", "all"] = "self"


class ToolsConfig(Section):
    """Which tools an agent has: `also_allow` adds to the profile, `allow` narrows it or stands in its place."""

    sessions: SessionToolsConfig = SessionToolsConfig()

    profile: str | None = None
    allow: tuple[str, ...] | None = None
    also_allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None

    @field_validator("also_allow")
    @classmethod
    def _check_one_list(cls, also_allow: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if also_allow and info.data.get("allow") is not None:
            raise ValueError("adds to the profile, while allow names all there is; keep one of the two lists")
        return also_allow


def _model_choice(value: object) -> object:
    return {"primary": value} if isinstance(value, str) else value


#: In the file either "provider/model" or {primary, fallbacks}.
Model = Annotated[ModelChoice | None, BeforeValidator(_model_choice, json_schema_input_type=str | ModelChoice | None)]


class AgentDefaults(Section):
    """What holds for every agent that does not say otherwise. `instructions` is the agent's system prompt.

    `max_turns` is how often the model is asked in one run, `max_concurrent` how many runs of all agents go on at once.
    """

    openclaw_only: ClassVar[frozenset[str]] = frozenset({"models", "imageModel", "pdfModel"})

    model: Model = None
    workspace: Directory | None = None
    instructions: str | None = None
    timeout_seconds: Seconds = 600
    max_concurrent: Positive | None = None
    max_turns: Positive = 32


class AgentConfig(Section):
    """One agent of the roster."""

    openclaw_only: ClassVar[frozenset[str]] = frozenset({"models"})

    default: Bool = False
    name: str | None = None
    workspace: Directory | None = None
    model: Model = None
    identity: IdentityConfig = IdentityConfig()
    instructions: str | None = None
    tools: ToolsConfig = ToolsConfig()


class ListedAgent(AgentConfig):
    """One agent of the older spelling, a list whose items carry their id."""

    id: AgentId


class AgentsConfig(Section):
    """The agents, spelt as a list or as entries under their ids."""

    defaults: AgentDefaults = AgentDefaults()
    listed: Annotated[tuple[ListedAgent, ...], Field(alias="list")] = ()
    entries: dict[AgentId, AgentConfig] = Field(default_factory=dict)

    @property
    def roster(self) -> dict[str, AgentConfig]:
        """Every agent by its id in lower case, in the order of the file, however the roster was spelt."""
        listed = {agent.id.lower(): agent for agent in self.listed}
        return listed | {agent_id.lower(): agent for agent_id, agent in self.entries.items()}

    def path_of(self, agent_id: str) -> KeyPath:
        """Where the agent with this id, in lower case, stands in the file; `KeyError` for one that does not."""
        paths: dict[str, KeyPath] = {
            agent.id.lower(): ("agents", "list", index) for index, agent in enumerate(self.listed)
        }
        return (paths | {key.lower(): ("agents", "entries", key) for key in self.entries})[agent_id]

    @field_validator("listed")
    @classmethod
    def _check_listed(cls, agents: tuple[ListedAgent, ...]) -> tuple[ListedAgent, ...]:
        _check_distinct([agent.id for agent in agents])
        _check_one_default([agent.id for agent in agents if agent.default])
        return agents

    @field_validator("entries")
    @classmethod
    def _check_entries(cls, agents: dict[str, AgentConfig], info: ValidationInfo) -> dict[str, AgentConfig]:
        if agents and info.data.get("listed"):
            raise ValueError("agents are given in agents.list too; keep one of the two spellings")
        _check_distinct(list(agents))
        _check_one_default([agent_id for agent_id, agent in agents.items() if agent.default])
        return agents


def _check_distinct(agent_ids: list[str]) -> None:
    lowered = [agent_id.lower() for agent_id in agent_ids]
    repeated = sorted({agent_id for agent_id in lowered if lowered.count(agent_id) > 1})
    if repeated:
        raise ValueError(f"ids must differ, upper and lower case aside; repeated: {', '.join(repeated)}")


def _check_one_default(agent_ids: list[str]) -> None:
    if len(agent_ids) > 1:
        raise ValueError(f"one agent can be marked `default: true`, not {len(agent_ids)}: {', '.join(agent_ids)}")


class StateConfig(Section):
    """Where the state is kept: by default in SQLite under the state directory; `url` names a PostgreSQL database."""

    url: SecretStr | None = None


class Config(Section):
    """The whole configuration. Without a file's help: loopback, no endpoint, no provider."""

    gateway: GatewayConfig = GatewayConfig()
    agents: AgentsConfig = AgentsConfig()
    models: ModelsConfig = ModelsConfig()
    tools: ToolsConfig = ToolsConfig()
    mcp: McpConfig = McpConfig()
    session: SessionConfig = SessionConfig()
    state: StateConfig = StateConfig()


def parse_config(data: object) -> tuple[Config, tuple[str, ...]]:
    """The configuration `data` (a decoded JSON document) describes, and a notice for each key that is ignored.

    A key that resembles nothing known is ignored, since OpenClaw's file has parts this gateway does not; a misspelt
    one is refused. Raises `ConfigError` with every problem found.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(["it must be an object in {braces}"])
    unknown = list(find_unknown_keys(Config, data))
    problems = [
        f"{format_path(key.path)}: is not a key of the configuration; did you mean `{key.nearest}`?"
        for key in unknown
        if key.nearest is not None
    ]
    try:
        config = Config.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigError([*problems, *describe_failures(error)]) from None
    if problems:
        raise ConfigError(problems)
    return config, tuple(f"{format_path(key.path)}: not used by this gateway, ignored" for key in unknown)
