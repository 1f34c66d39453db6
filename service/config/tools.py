"""The configuration's section on tools: which of them an agent may use, and what they may do."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from service.config.approvals import ApprovalRule
from service.config.problems import Section
from service.config.types import Bool, Count, HostPattern, Positive

#: No command runs for longer.
MAX_COMMAND_SECONDS = 1800


class ToolLists(Section):
    """Allowed and denied tools. A denial always wins."""

    profile: str | None = None
    """The starting set: "minimal", "coding", "messaging" or "full". Unset: the read-only tools."""
    allow: tuple[str, ...] | None = None
    """Narrows the profile to these tools or groups. Without a profile these are all there is."""
    also_allow: tuple[str, ...] | None = None
    """Adds tools or groups to the profile. Cannot be combined with `allow`."""
    deny: tuple[str, ...] | None = None
    """Takes tools or groups away, whatever else allows them."""

    @field_validator("also_allow")
    @classmethod
    def _check_one_list(cls, also_allow: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if also_allow and info.data.get("allow") is not None:
            raise ValueError("adds to the profile, while allow names all there is; keep one of the two lists")
        return also_allow


class ExecConfig(Section):
    """Permission to run commands. An agent's own setting replaces the global one."""

    mode: Literal["deny", "allowlist", "ask", "auto", "full"] | None = None
    """"full" runs every command, "ask" asks a person first, "deny" takes the tool `exec` away. The other modes are
    refused."""
    security: Literal["deny", "allowlist", "full"] | None = None
    """An older name of `mode`: "full" or "deny". An allow list is refused."""
    ask: Literal["off", "on-miss", "always"] | None = None
    """Ask a person first: "always" for every command, "on-miss" unless it is allowed for the session. "off": as `mode`
    and `tools.approvals` say."""
    host: Literal["auto", "gateway", "sandbox", "node"] | None = None
    """The place of commands. There are no nodes here: "node" takes the tool `exec` away, and so does "sandbox" while
    `sandbox` is "off"."""


class ExecLimitsConfig(Section):
    """Limits of one command. Processes and memory are those of everything it starts."""

    max_processes: Positive = 512
    """Processes and threads at once."""
    max_memory_mb: Positive = 4096
    """Memory in MiB."""
    max_file_mb: Positive = 4096
    """Size of a file it writes, in MiB."""
    max_cpu_seconds: Positive = 3600
    """CPU time of one process in seconds."""


class GlobalExecConfig(ExecConfig):
    """Commands, and the sandbox they run in."""

    sandbox: Literal["auto", "landlock", "bwrap", "off"] = "auto"
    """"landlock" or "bwrap" (bubblewrap); "auto" takes bubblewrap if it works here, else Landlock. "off" runs commands
    with the gateway's own rights. Without a sandbox that works, commands are refused."""
    network: Bool = False
    """`true` gives commands the network."""
    timeout_sec: Annotated[int, Field(ge=1, le=MAX_COMMAND_SECONDS)] = MAX_COMMAND_SECONDS
    """The longest time of a command, in seconds. A command that does not ask for more gets 120."""
    limits: ExecLimitsConfig = ExecLimitsConfig()
    """Limits of one command."""

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        if self.sandbox == "off" and not self.network and "network" in self.model_fields_set:
            raise ValueError('network: false needs a sandbox; remove it, or set sandbox to "auto"')
        return self


class ToolsConfig(ToolLists):
    """Tools of an agent."""

    by_provider: dict[str, ToolLists] = Field(default_factory=dict)
    """Further limits while one of a run's models is of the provider ("openai") or is the model ("openai/gpt-5")."""
    tools_by_sender: dict[str, ToolLists] = Field(default_factory=dict)
    """Further limits by sender. Callers have no sender's id, so that only the entry "*" applies."""
    exec: ExecConfig = ExecConfig()
    """Commands."""
    approvals: dict[str, ApprovalRule] = Field(default_factory=dict)
    """Tools, patterns or groups whose calls are allowed, asked about or denied. The last one that matches counts; the
    stricter of the global and the agent's answer applies."""

    def entry_for(self, model: str) -> ToolLists | None:
        """Return the entry of `by_provider` for `model` ("provider/model"), else the one for its provider."""
        entries = {key.strip().lower(): entry for key, entry in self.by_provider.items()}
        model = model.lower()
        return entries.get(model, entries.get(model.partition("/")[0]))


def _visibility(value: object) -> object:
    # There are no subagents, so that a session's tree is the session itself.
    return "self" if value == "tree" else value


class SessionToolsConfig(Section):
    """Sessions that are visible to the session tools."""

    visibility: Annotated[Literal["self", "agent", "all"], BeforeValidator(_visibility)] = "self"
    """"self" (also "tree"): the session of the run. "agent": the agent's sessions. "all": every agent's sessions."""


class AgentToAgentConfig(Section):
    """Access to the sessions of other agents."""

    enabled: Bool = True
    """`false` limits the session visibility "all" to the agent's own sessions."""
    allow: tuple[str, ...] | None = None
    """Agents that may reach each other. Without "*" in it the session visibility "all" counts as "agent"."""


class WebFetchConfig(Section):
    """The tool `web_fetch`."""

    enabled: Bool = True
    """`false` takes the tool away from every agent."""
    allow_hosts: tuple[HostPattern, ...] = ()
    """Hosts that may be fetched from, redirects included: "example.com", or "*.example.com" for all below. Empty: any
    public host."""
    deny_hosts: tuple[HostPattern, ...] = ()
    """Hosts that are never fetched from, even if `allowHosts` names them. An address is refused under any name."""
    max_redirects: Count = 5
    """Redirects to follow; more than 5 count as 5."""
    max_response_bytes: Positive = 8 * 1024 * 1024
    """Size of a page that is read; more than 8 MiB count as 8 MiB."""
    timeout_seconds: Positive = 30
    """Time limit for fetching a page; more than 30 count as 30."""


class WebConfig(Section):
    """Tools that reach the web."""

    fetch: WebFetchConfig = WebFetchConfig()
    """The tool `web_fetch`."""


class GlobalToolsConfig(ToolsConfig):
    """Tools of every agent, and settings of the tools themselves."""

    exec: GlobalExecConfig = GlobalExecConfig()
    """Commands."""
    sessions: SessionToolsConfig = SessionToolsConfig()
    """The tools that show sessions."""
    agent_to_agent: AgentToAgentConfig = AgentToAgentConfig()
    """Access to the sessions of other agents."""
    web: WebConfig = WebConfig()
    """Tools that reach the web."""
    caller_conflicts: Literal["caller", "refuse"] = "caller"
    """A caller's function with the name of one of the agent's tools: "caller" takes that tool away for the run,
    "refuse" refuses the request."""

    @property
    def session_visibility(self) -> Literal["self", "agent", "all"]:
        """The sessions that the session tools may show, `agent_to_agent` considered."""
        limited = not self.agent_to_agent.enabled or "*" not in (self.agent_to_agent.allow or ("*",))
        return "agent" if limited and self.sessions.visibility == "all" else self.sessions.visibility
