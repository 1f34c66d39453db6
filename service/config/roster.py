"""The roster: the configured agents, and the choice of one for a request.

A request names an agent in its `model` field or in a header. A name that matches no agent is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from service.config.agents import AgentConfig, IdentityConfig
from service.config.memory import EmbeddingSource, embedding_source
from service.config.model_settings import to_sampling
from service.config.schema import Config
from service.config.workspaces import fix_workspaces
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Sampling
from service.core.principal import Principal, matches_model

#: The only agent if none is configured; the default agent if it is configured and none is marked.
MAIN_AGENT_ID = "main"

#: The header that takes precedence over the model field.
AGENT_HEADER = "x-openclaw-agent-id"

_GENERIC_MODEL = "openclaw"
_DEFAULT_MODEL = "openclaw/default"
_PREFIXES = ("openclaw/", "openclaw:", "agent:")
_MOST_SHOWN = 20
_LONGEST_SHOWN_NAME = 80


@record
class Agent:
    """An agent.

    `id` is in lower case. `instructions` is the system prompt, identity included, and may be empty. `model` is
    "provider/model", `None` if none is configured; `fallbacks` are asked in order when it fails. `workspace` is the
    directory as it is configured, `workspace_root` the one that this meant then, without links. `timeout_seconds`
    limits a run. Callers may choose `allowed_models`, `None` for any. `sampling` has the sampling parameters by model,
    under "" those of all others. `aliases` are short names of models, in lower case. `embedding_model` is the one
    of the agent's memory ("provider/model"), `None` if none is configured.
    """

    id: str
    name: str
    instructions: str
    model: str | None
    fallbacks: tuple[str, ...]
    workspace: Path | None
    timeout_seconds: float
    allowed_models: tuple[str, ...] | None = None
    sampling: Mapping[str, Sampling] = field(default_factory=dict, hash=False)
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    workspace_root: Path | None = None
    embedding_model: str | None = None

    def to_ref(self, name: str) -> str:
        """Return the model ("provider/model") that `name` is an alias of, else `name`."""
        return self.aliases.get(name.lower(), name)

    def sampling_of(self, model: str) -> Sampling | None:
        """Return the sampling parameters for requests to `model` that do not set them, `None` if there are none."""
        return self.sampling.get(model) or self.sampling.get("")

    def may_use(self, model: str) -> bool:
        """Return True if a caller may choose `model` ("provider/model") for a run."""
        if self.allowed_models is None or model == self.model:
            return True
        return any(matches_model(pattern.strip().lower(), model.lower()) for pattern in self.allowed_models)


class Roster:
    """The agents of this gateway and the default agent.

    There is at least one, except for a caller who may use none. `aliases` are further names for requests, each of a
    name with "openclaw/" or the like.
    """

    def __init__(
        self, agents: Iterable[Agent], default_id: str | None, aliases: Mapping[str, str] | None = None
    ) -> None:
        self._agents = {agent.id: agent for agent in agents}
        self._aliases = dict(aliases or {})
        self._targets = {name.lower(): target for name, target in self._aliases.items()}
        self._default = None if default_id is None else self._agents[default_id]

    @classmethod
    def from_config(cls, config: Config) -> Roster:
        """Build the roster of `config`.

        Without any agent there is one, `main`. The default is the marked agent, else `main`, else the first.
        """
        roster = config.agents.roster or {MAIN_AGENT_ID: AgentConfig()}
        workspaces = {agent_id: _workspace_of(entry, config) for agent_id, entry in roster.items()}
        roots = fix_workspaces({path for path in workspaces.values() if path is not None})
        agents = [_agent(agent_id, entry, config, workspaces[agent_id], roots) for agent_id, entry in roster.items()]
        marked = [agent_id for agent_id, entry in roster.items() if entry.default]
        default_id = MAIN_AGENT_ID if MAIN_AGENT_ID in roster else agents[0].id
        return cls(agents, marked[0] if marked else default_id, config.gateway.http.models)

    def of(self, principal: Principal) -> Roster:
        """Return the agents that `principal` may use, as if there were no others.

        The default agent is the same if it is among them, else the first that was allowed.
        """
        if principal.agents is None:
            return self
        allowed = [self._agents[agent_id] for agent_id in principal.agents if agent_id in self._agents]
        if not allowed:
            return Roster((), None)
        default_id = self.default.id if self.default in allowed else allowed[0].id
        limited = Roster(allowed, default_id)
        return Roster(allowed, default_id, {name: to for name, to in self._aliases.items() if not limited._refuses(to)})

    @property
    def default(self) -> Agent:
        """The default agent. Raises `GatewayError` (`model_not_found`) for a caller who may use none."""
        if self._default is None:
            raise GatewayError("model_not_found", "This API key may not use any agent of this gateway.", param="model")
        return self._default

    def __contains__(self, agent_id: object) -> bool:
        """Return True if an agent has this id."""
        return agent_id in self._agents

    @property
    def agents(self) -> tuple[Agent, ...]:
        """Every agent, in the order of the configuration."""
        return tuple(self._agents.values())

    def resolve(self, model: str | None, agent_id: str | None) -> Agent:
        """Find the agent for a request. With `agent_id`, its header, the `model` field may be any string.

        Case and surrounding white space do not matter. Without both it is the default agent. Raises `GatewayError`
        (`model_not_found`).
        """
        if agent_id is not None and agent_id.strip():
            return self._get(agent_id.strip().lower(), agent_id, AGENT_HEADER)
        if model is None:
            return self.default
        name = model.strip().lower()
        name = self._targets.get(name, name).strip().lower()
        if name == _GENERIC_MODEL:
            return self.default
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            raise self._not_found(f"{_quoted(model)} is not the name of an agent.", "model")
        return self._get(name.removeprefix(prefix), model, "model")

    def model_ids(self) -> list[str]:
        """Every value of the `model` field that is offered to callers, the general ones first."""
        generic = () if self._default is None else (_GENERIC_MODEL, _DEFAULT_MODEL)
        return [*generic, *(f"openclaw/{agent_id}" for agent_id in self._agents), *self._aliases]

    def unusable_aliases(self) -> dict[str, str]:
        """Return the aliases that cannot be used, each with the reason."""
        lowered = [name.lower() for name in self._aliases]
        faults: dict[str, str] = {}
        for name, target in self._aliases.items():
            if lowered.count(name.lower()) > 1:
                faults[name] = "differs from another name in upper and lower case only"
            elif name.lower() == _GENERIC_MODEL or name.lower().startswith(_PREFIXES):
                faults[name] = 'is a name of an agent already; names that begin with "openclaw" cannot be given away'
            elif self._refuses(target):
                faults[name] = 'must be the name of an agent of this gateway, such as "openclaw/main"'
        return faults

    def _refuses(self, target: str) -> bool:
        try:
            self.resolve(target, None)
        except GatewayError:
            return True
        return target.lower() in self._targets  # an alias of an alias

    def _get(self, agent_id: str, written: str, param: str) -> Agent:
        if agent_id == "default":
            return self.default
        if agent_id not in self._agents:
            raise self._not_found(f"{_quoted(written)} is not an agent of this gateway.", param)
        return self._agents[agent_id]

    def _not_found(self, fault: str, param: str) -> GatewayError:
        shown = list(self._agents)[:_MOST_SHOWN]
        more = f" and {len(self._agents) - _MOST_SHOWN} more" if len(self._agents) > _MOST_SHOWN else ""
        message = (
            f"{fault} Use `openclaw` for the default agent or `openclaw/<agent id>` as the model, or the header "
            f"{AGENT_HEADER}. Agents: {', '.join(shown)}{more}."
        )
        if self._aliases:
            message = f"{message} Aliases: {', '.join(list(self._aliases)[:_MOST_SHOWN])}."
        return GatewayError("model_not_found", message, param=param)


def _quoted(name: str) -> str:
    return f"`{name[:_LONGEST_SHOWN_NAME]}{'...' if len(name) > _LONGEST_SHOWN_NAME else ''}`"


def _workspace_of(entry: AgentConfig, config: Config) -> Path | None:
    workspace = entry.workspace or config.agents.defaults.workspace
    return Path(workspace).expanduser() if workspace else None


def _agent(
    agent_id: str, entry: AgentConfig, config: Config, workspace: Path | None, roots: Mapping[Path, Path]
) -> Agent:
    defaults = config.agents.defaults
    # An agent's model counts as a whole: the fallbacks of the defaults belong to the default model.
    choice = entry.model or defaults.model
    aliases = config.agents.aliases_of(entry)
    source = embedding_source_of(entry, config)
    own_words = entry.instructions if entry.instructions is not None else defaults.instructions
    return Agent(
        id=agent_id,
        name=entry.name or entry.identity.name or agent_id,
        instructions=_instructions(entry.identity, own_words or ""),
        model=aliases.get(choice.primary.lower(), choice.primary) if choice else None,
        fallbacks=tuple(aliases.get(name.lower(), name) for name in choice.fallbacks) if choice else (),
        workspace=workspace,
        timeout_seconds=defaults.timeout_seconds,
        allowed_models=_allowed_models(entry, config, aliases),
        sampling=_sampling(entry, config),
        aliases=aliases,
        workspace_root=None if workspace is None else roots[workspace],
        embedding_model=None if source is None else source.ref,
    )


def embedding_source_of(entry: AgentConfig, config: Config) -> EmbeddingSource | None:
    """Return the model for embeddings that the settings of an agent's memory name, if they do."""
    return embedding_source(
        (entry.memory.search, entry.memory_search, config.memory.search, config.agents.defaults.memory_search)
    )


def _sampling(entry: AgentConfig, config: Config) -> dict[str, Sampling]:
    defaults = config.agents.defaults
    thinking = entry.thinking_default or defaults.thinking_default
    shared, own = defaults.models, entry.models
    found = {}
    for ref in ("", *dict.fromkeys((*shared, *own))):
        of_model = [models[ref].params for models in (shared, own) if ref in models]
        found[ref] = to_sampling((defaults.params, *of_model, entry.params), thinking)
    return {ref: sampling for ref, sampling in found.items() if sampling != Sampling()}


def _allowed_models(entry: AgentConfig, config: Config, aliases: Mapping[str, str]) -> tuple[str, ...] | None:
    """The models that callers may choose for an agent, `None` for any."""
    policies = (entry.model_policy.allow, config.agents.defaults.model_policy.allow, _legacy_allow_list(config))
    allowed = next((allow for allow in policies if allow is not None), None) or None
    allowed = allowed and tuple(aliases.get(pattern.strip().lower(), pattern) for pattern in allowed)
    if config.models.mode == "merge":
        return allowed
    listed = [f"{name}/{model.id}" for name, provider in config.models.providers.items() for model in provider.models]
    if allowed is None:
        return tuple(listed)
    patterns = [pattern.strip().lower() for pattern in allowed]
    return tuple(model for model in listed if any(matches_model(pattern, model.lower()) for pattern in patterns))


def _legacy_allow_list(config: Config) -> tuple[str, ...] | None:
    """The keys of `agents.defaults.models`, which limited callers before OpenClaw had a model policy."""
    defaults = config.agents.defaults
    if config.meta.migrations.model_policy_allowlist or "model_policy" in defaults.model_fields_set:
        return None
    return tuple(defaults.models) or None


def _instructions(identity: IdentityConfig, own_words: str) -> str:
    lines = []
    if identity.name:
        lines.append(f"You are {identity.name}.")
    if identity.theme:
        lines.append(f"Your character: {identity.theme}.")
    if identity.emoji:
        lines.append(f"Your emoji: {identity.emoji}")
    return "\n\n".join(text for text in ("\n".join(lines), own_words.strip()) if text)
