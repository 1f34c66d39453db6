"""The section `agents`: the keys of each agent, and their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from service.config.agent_sandbox import SandboxConfig, SandboxSection, find_sandbox_problems
from service.config.key_paths import KeyPath, format_path
from service.config.memory import MemoryConfig, MemorySearchConfig
from service.config.model_settings import ModelEntry, ModelParams, ThinkingLevel
from service.config.problems import Section
from service.config.tools import ToolsConfig
from service.config.types import AgentId, Bool, Directory, ModelName, Positive, Seconds


class ModelChoice(Section):
    """The model of an agent and the ones to fall back on."""

    primary: ModelName
    """The model, as "provider/model" or by its alias."""
    fallbacks: tuple[ModelName, ...] = ()
    """Models to ask when that one fails, in order."""


class ModelPolicyConfig(Section):
    """The models that callers may choose for a run."""

    allow: tuple[str, ...] | None = None
    """Models such as "openai/gpt-5" and "openai/*", and aliases. Unset or empty: any. The agent's own model is always
    allowed."""


class IdentityConfig(Section):
    """The identity that opens an agent's system prompt."""

    name: str | None = None
    """Name of the agent."""
    theme: str | None = None
    """Character of the agent."""
    emoji: str | None = None
    """Emoji of the agent."""


def _model_choice(value: object) -> object:
    return {"primary": value} if isinstance(value, str) else value


#: In the file either "provider/model" or {primary, fallbacks}.
Model = Annotated[ModelChoice | None, BeforeValidator(_model_choice, json_schema_input_type=str | ModelChoice | None)]


class AgentDefaults(Section):
    """Settings of every agent that has none of its own."""

    model: Model = None
    """The model, as "provider/model" or with fallbacks. Unset: the embedded demo model."""
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    """Models by "provider/model". Without a `modelPolicy` these are the only ones that callers may choose."""
    params: ModelParams = ModelParams()
    """Sampling parameters of requests that do not set them."""
    thinking_default: ThinkingLevel | None = None
    """Reasoning effort of requests that do not set one; "off" is "none". "adaptive" leaves it to the model."""
    model_policy: ModelPolicyConfig = ModelPolicyConfig()
    """The models that callers may choose for a run."""
    workspace: Directory | None = None
    """Directory that the file tools and commands work in. Unset: the agent has neither."""
    instructions: str | None = None
    """The system prompt."""
    timeout_seconds: Seconds = 600
    """Time limit of one run."""
    max_concurrent: Positive | None = None
    """Runs of all agents together; further ones wait. Unset: no limit."""
    max_turns: Positive = 32
    """Calls of the model in one run."""
    memory_search: MemorySearchConfig = MemorySearchConfig()
    """The former name of `memory.search`, which takes precedence."""
    sandbox: SandboxConfig = SandboxConfig()
    """OpenClaw's sandbox."""


class AgentConfig(Section):
    """One agent."""

    default: Bool = False
    """Answer requests that name no agent."""
    name: str | None = None
    """Name for people. Unset: the name of the identity, else the id."""
    workspace: Directory | None = None
    """Directory that the file tools and commands work in."""
    model: Model = None
    """The model, as "provider/model" or with fallbacks. Replaces the default one together with its fallbacks."""
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    """Models by "provider/model": settings for this agent only."""
    params: ModelParams = ModelParams()
    """Sampling parameters of requests that do not set them."""
    thinking_default: ThinkingLevel | None = None
    """Reasoning effort of requests that do not set one; "off" is "none". "adaptive" leaves it to the model."""
    model_policy: ModelPolicyConfig = ModelPolicyConfig()
    """The models that callers may choose for a run."""
    identity: IdentityConfig = IdentityConfig()
    """The identity that opens the system prompt."""
    instructions: str | None = None
    """The system prompt."""
    tools: ToolsConfig = ToolsConfig()
    """The tools that the agent may use."""
    memory: MemoryConfig = MemoryConfig()
    """OpenClaw's memory."""
    memory_search: MemorySearchConfig = MemorySearchConfig()
    """The former name of `memory.search`, which takes precedence."""
    sandbox: SandboxConfig = SandboxConfig()
    """OpenClaw's sandbox."""


class ListedAgent(AgentConfig):
    """One agent of a list."""

    id: AgentId
    """Name of the agent in requests."""


class AgentsConfig(Section):
    """Agents, either as a list or as entries under their ids."""

    defaults: AgentDefaults = AgentDefaults()
    """Settings of every agent that has none of its own."""
    listed: Annotated[tuple[ListedAgent, ...], Field(alias="list")] = ()
    """The agents as a list."""
    entries: dict[AgentId, AgentConfig] = Field(default_factory=dict)
    """The agents by id."""

    @property
    def roster(self) -> dict[str, AgentConfig]:
        """Every agent by its id in lower case, in the order of the file."""
        listed = {agent.id.lower(): agent for agent in self.listed}
        return listed | {agent_id.lower(): agent for agent_id, agent in self.entries.items()}

    def path_of(self, agent_id: str) -> KeyPath:
        """Return the key of the agent with this lower-case id. Raises `KeyError`."""
        paths: dict[str, KeyPath] = {
            agent.id.lower(): ("agents", "list", index) for index, agent in enumerate(self.listed)
        }
        return (paths | {key.lower(): ("agents", "entries", key) for key in self.entries})[agent_id]

    def aliases_of(self, agent: AgentConfig) -> dict[str, str]:
        """Return the models ("provider/model") by their aliases in lower case; the agent's own come first."""
        entries = [*self.defaults.models.items(), *agent.models.items()]
        return {entry.alias.lower(): ref for ref, entry in entries if entry.alias is not None}

    def sandbox_problems(self, data: Mapping[str, Any], *, is_off: bool) -> Iterator[str]:
        """Yield the settings of the agents' sandboxes that cannot be enforced; `data` is this section in the file.

        `is_off`: `tools.exec.sandbox` is "off".
        """

        def section(path: KeyPath, sandbox: SandboxConfig) -> SandboxSection:
            given: Any = data
            for step in path[1:]:
                given = given.get(step, {}) if isinstance(given, Mapping) else given[step]
            return SandboxSection((*path, "sandbox"), sandbox, given.get("sandbox") or {})

        defaults = section(("agents", "defaults"), self.defaults.sandbox)
        own = [section(self.path_of(agent_id), agent.sandbox) for agent_id, agent in self.roster.items()]
        for agent in own or [defaults]:
            yield from find_sandbox_problems(agent, defaults, is_off=is_off)

    def unknown_aliases(self) -> list[str]:
        """Describe each model that is named neither by "provider/model" nor by an alias."""
        found = []
        places: list[tuple[KeyPath, AgentDefaults | AgentConfig, AgentConfig]]
        places = [(self.path_of(agent_id), agent, agent) for agent_id, agent in self.roster.items()]
        for path, holder, agent in [(("agents", "defaults"), self.defaults, AgentConfig()), *places]:
            names = () if holder.model is None else (holder.model.primary, *holder.model.fallbacks)
            if any("/" not in name and name.lower() not in self.aliases_of(agent) for name in names):
                problem = 'a model is named "provider/model", for example "openai/gpt-5", or by an alias of'
                found.append(f"{format_path((*path, 'model'))}: {problem} agents.defaults.models")
        return found

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
