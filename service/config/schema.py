"""The typed configuration: every key of the file, with its meaning and its default.

Names, shapes and defaults are OpenClaw's, so that its file can be used as it is. A `Config` is frozen and has been
checked as a whole. Numbers carry their unit in their name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError

from service.config.agents import AgentsConfig
from service.config.approvals import ApprovalsConfig
from service.config.diagnostics import DiagnosticsConfig
from service.config.gateway import GatewayConfig
from service.config.key_rules import check_keys
from service.config.log_settings import LoggingConfig
from service.config.mcp import McpConfig
from service.config.memory import MemoryConfig
from service.config.models import ModelsConfig
from service.config.problems import Section, describe_failures
from service.config.sessions import SessionConfig
from service.config.source import ConfigError
from service.config.tasks import TasksConfig
from service.config.tools import GlobalToolsConfig
from service.config.types import (
    Bool,
    Count,
    ModelReference,
)


class StructuredOutputConfig(Section):
    """Answers in a format that is checked: `response_format` with a strict schema, or "json_object"."""

    repairs: Annotated[Count, Field(le=10)] = 1
    """Times that an answer without the format is sent back to its model, with the fault. With more than 0, an answer is
    streamed only once it is valid."""


class EmbeddingsConfig(Section):
    """Vectors of texts (`POST /v1/embeddings`)."""

    model: ModelReference | None = None
    """The model that makes them, as "provider/model", unless a request names one. Unset: that of `memory.search`."""


class StateConfig(Section):
    """The database."""

    url: SecretStr | None = None
    """URL of a PostgreSQL database. Unset: OPENCLAW_STATE_URL, else SQLite in the state directory."""
    durability: Literal["normal", "full"] = "normal"
    """"full" flushes each commit to the disk, so that a power cut loses nothing. With "normal", SQLite may lose the
    last moments before a power cut, and PostgreSQL does as its server is set."""


class MigrationsConfig(Section):
    """Changes that OpenClaw made to the file when its format changed."""

    model_policy_allowlist: Bool = False
    """`agents.defaults.models` limits callers no more; `modelPolicy` does."""


class MetaConfig(Section):
    """Notes that OpenClaw keeps in the file."""

    migrations: MigrationsConfig = MigrationsConfig()
    """Changes that OpenClaw made to the file when its format changed."""


class Config(Section):
    """The whole configuration. An empty file means: loopback, no endpoint, no provider."""

    gateway: GatewayConfig = GatewayConfig()
    """The gateway's address and its users."""
    agents: AgentsConfig = AgentsConfig()
    """Agents, either as a list or as entries under their ids."""
    models: ModelsConfig = ModelsConfig()
    """Model providers, and retries."""
    tools: GlobalToolsConfig = GlobalToolsConfig()
    """The tools that every agent may use, and settings of the tools themselves."""
    approvals: ApprovalsConfig = ApprovalsConfig()
    """Tool calls that wait for a person's decision."""
    mcp: McpConfig = McpConfig()
    """MCP servers."""
    session: SessionConfig = SessionConfig()
    """Sessions."""
    tasks: TasksConfig = TasksConfig()
    """Side requests of chat programs."""
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    """Vectors of texts."""
    memory: MemoryConfig = MemoryConfig()
    """OpenClaw's memory."""
    structured_output: StructuredOutputConfig = StructuredOutputConfig()
    """Answers in a format that is checked."""
    state: StateConfig = StateConfig()
    """The database."""
    logging: LoggingConfig = LoggingConfig()
    """The log."""
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    """Traces and other signals that the gateway sends to other systems."""
    meta: MetaConfig = MetaConfig()
    """Notes that OpenClaw keeps in the file."""


def parse_config(data: object) -> tuple[Config, tuple[str, ...]]:
    """Check `data`, a decoded JSON document, and return its configuration and a notice for each ignored key.

    OpenClaw's keys that cannot matter here are ignored. Raises `ConfigError` with every problem found, unknown keys
    and restrictions that this gateway cannot enforce among them.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(["it must be an object in {braces}"])
    problems, notices = check_keys(Config, data)
    try:
        config = Config.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigError([*problems, *describe_failures(error)]) from None
    sandboxes = config.agents.sandbox_problems(data.get("agents") or {}, is_off=config.tools.exec.sandbox == "off")
    conflicts = config.gateway.find_port_conflicts(config.gateway.port)
    problems = (*problems, *conflicts, *config.agents.unknown_aliases(), *dict.fromkeys(sandboxes))
    if problems:
        raise ConfigError(problems)
    return config, notices
