"""Tool policy: profiles, allow lists and deny lists, with OpenClaw's keys.

An agent starts with its profile or the read-only default; `alsoAllow` adds to it, `allow` narrows it, and `deny` always
wins. Without configuration an agent can read, but not write, execute or reach the network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

from service.config.tools import GlobalToolsConfig, ToolLists, ToolsConfig
from service.tools.built_in import BUILT_IN_TOOLS

_OF_MCP_SERVERS = ("*__*",)

#: OpenClaw's groups that have no tools here.
_EMPTY_GROUPS = ("group:automation", "group:media", "group:memory", "group:messaging", "group:nodes", "group:ui")


def _groups_of_tools() -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for tool in BUILT_IN_TOOLS:
        for group in tool.access.groups:
            groups[group] = (*groups.get(group, ()), tool.name)
    return groups


#: Groups that lists may name.
GROUPS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_EMPTY_GROUPS, ()),
    **_groups_of_tools(),
    "group:plugins": _OF_MCP_SERVERS,
    "bundle-mcp": _OF_MCP_SERVERS,
}

#: The tools of each profile, before the lists are applied. `full` is every tool.
PROFILES: Mapping[str, tuple[str, ...]] = {
    "minimal": ("session_status",),
    "coding": ("group:fs", "group:runtime", "group:web", "group:sessions"),
    "messaging": ("group:messaging", "sessions_list", "sessions_history", "session_status"),
    "full": ("*",),
}

#: The tools of an agent without a profile and an allow list.
DEFAULT_TOOLS = tuple(tool.name for tool in BUILT_IN_TOOLS if tool.access.by_default)

_ALIASES = {"bash": "exec"}

#: A tool's name, or all names that lists may call it by.
ToolName = str | tuple[str, ...]
_Name = TypeVar("_Name", bound=ToolName)


class ApprovalPolicy(IntEnum):
    """Requirement of the calls of a tool, from the least to the most restrictive.

    `ASK` may be decided for a whole session, `ASK_ALWAYS` only call by call.
    """

    NONE = 0
    ASK = 1
    ASK_ALWAYS = 2
    DENIED = 3


_APPROVALS = {"allow": ApprovalPolicy.NONE, "ask": ApprovalPolicy.ASK, "deny": ApprovalPolicy.DENIED}
_EXEC_APPROVALS = {
    "off": ApprovalPolicy.NONE,
    "on-miss": ApprovalPolicy.ASK,
    "always": ApprovalPolicy.ASK_ALWAYS,
}


def approval_for(global_config: ToolsConfig, agent_config: ToolsConfig, name: ToolName) -> ApprovalPolicy:
    """Return what the calls of the tool `name` need: the strictest of the global and the agent's settings."""
    needed = [_listed_approval(config, name) for config in (global_config, agent_config)]
    is_exec = _matches(("exec",), name)
    return max(*needed, _exec_approval(global_config, agent_config) if is_exec else ApprovalPolicy.NONE)


def _listed_approval(config: ToolsConfig, name: ToolName) -> ApprovalPolicy:
    for entry, rule in reversed(config.approvals.items()):
        if _matches((entry,) if rule == "allow" else _with_included((entry,)), name):
            return _APPROVALS[rule]
    return ApprovalPolicy.NONE


def _exec_approval(global_config: ToolsConfig, agent_config: ToolsConfig) -> ApprovalPolicy:
    """Return what commands need by `exec.ask` and `exec.mode`; an agent's own setting replaces the global one."""
    ask = agent_config.exec.ask or global_config.exec.ask or "off"
    mode = agent_config.exec.mode or global_config.exec.mode
    return max(_EXEC_APPROVALS[ask], ApprovalPolicy.ASK if mode == "ask" else ApprovalPolicy.NONE)


def allowed_tools(
    global_config: GlobalToolsConfig, agent_config: ToolsConfig, names: Iterable[_Name], models: Iterable[str] = ()
) -> list[_Name]:
    """Return those of `names` that an agent may use in a run that may use any of `models`, in their order.

    The agent's profile replaces the global one. Without a profile, allow lists select from all tools; without those,
    `DEFAULT_TOOLS` apply. `also_allow` adds to them. An unknown profile and an empty allow list allow nothing.
    """
    granted, denies = _lists(global_config, agent_config, models)
    return [
        name
        for name in names
        if all(_matches(one.entries, name) for one in granted)
        and not any(_matches(one.entries, name) for one in denies)
        and approval_for(global_config, agent_config, name) is not ApprovalPolicy.DENIED
    ]


def explain_tool(
    global_config: GlobalToolsConfig, agent_config: ToolsConfig, name: str, models: Iterable[str] = ()
) -> tuple[bool, str]:
    """Return whether `allowed_tools` has `name`, and the list that decides."""
    granted, denies = _lists(global_config, agent_config, models)
    denied = next((one.label for one in denies if _matches(one.entries, name)), None)
    missing = next((one.label for one in granted if not _matches(one.entries, name)), None)
    approval = approval_for(global_config, agent_config, name)
    if denied is not None or approval is ApprovalPolicy.DENIED:
        return False, f"denied by {denied or 'approvals'}"
    if missing is not None:
        return False, f"not in {missing}"
    asks = {
        ApprovalPolicy.ASK: "; a person is asked first",
        ApprovalPolicy.ASK_ALWAYS: "; a person is asked each time",
    }
    return True, f"in {' and '.join(one.label_for(name) for one in granted)}{asks.get(approval, '')}"


def listed_tools(entries: Iterable[str], names: Iterable[_Name]) -> tuple[_Name, ...]:
    """Return those of `names` that a deny list has, by name, pattern or group."""
    included = _with_included(tuple(entries))
    return tuple(name for name in names if _matches(included, name))


def may_allow(global_config: GlobalToolsConfig, agent_config: ToolsConfig, prefixes: Collection[str]) -> bool:
    """Return whether a tool whose names begin with `prefixes` could be allowed, before the full names are known."""
    granted, denies = _lists(global_config, agent_config)
    any_tool = tuple(f"{prefix}\0" for prefix in prefixes)  # matched only by patterns that cover every such name
    return (
        all(any(_may_name(entry, prefixes) for entry in one.entries) for one in granted)
        and not any(_matches(one.entries, any_tool) for one in denies)
        and not any(_all_denied(config, prefixes, any_tool) for config in (global_config, agent_config))
    )


def _all_denied(config: ToolsConfig, prefixes: Collection[str], any_tool: ToolName) -> bool:
    """Return whether the approvals of `config` deny every tool whose names begin with `prefixes`."""
    for entry, rule in reversed(config.approvals.items()):
        if rule != "deny" and _may_name(entry, prefixes):
            return False
        if rule == "deny" and _matches((entry,), any_tool):
            return True
    return False


def policy_warnings(
    global_config: ToolsConfig,
    agent_configs: Mapping[str, ToolsConfig],
    names: Iterable[str],
    prefixes: Iterable[str] = (),
) -> tuple[str, ...]:
    """Return a warning for each tool rule without effect, with its key.

    `agent_configs` is keyed by the path of the agent's `tools` key. `names` are all existing tools of any agent;
    `prefixes` are name prefixes of tools that are not listed yet.
    """
    known = _KnownTools(tuple(names), tuple(prefixes))
    warnings = list(_warnings_for("tools", global_config, global_config.profile, known))
    for path, config in agent_configs.items():
        warnings += _warnings_for(path, config, config.profile or global_config.profile, known)
    return tuple(warnings)


class _KnownTools(NamedTuple):
    names: tuple[str, ...]
    prefixes: tuple[str, ...]

    def matched(self, entry: str) -> list[str]:
        """Return the tools and prefixes that `entry` may match."""
        named = [name for name in self.names if _matches([entry], name)]
        return named + [prefix for prefix in self.prefixes if _may_name(entry, (prefix,))]


class _ToolList(NamedTuple):
    """Names, patterns and groups, and the list's name in messages; `parts` are the lists that it was made of."""

    label: str
    entries: tuple[str, ...]
    parts: tuple[_ToolList, ...] = ()

    def label_for(self, name: str) -> str:
        """Return the name of the part that has the tool `name`."""
        return next((part.label for part in self.parts if _matches(part.entries, name)), self.label)


def _lists(
    global_config: GlobalToolsConfig, agent_config: ToolsConfig, models: Iterable[str] = ()
) -> tuple[list[_ToolList], list[_ToolList]]:
    """Return the lists that must all contain a tool, and the lists that must not."""
    both = (("tools", global_config), ("the agent's tools", agent_config))
    allows = [_ToolList(f"{place}.allow", config.allow) for place, config in both if config.allow is not None]
    also = [_ToolList(f"{place}.alsoAllow", config.also_allow) for place, config in both if config.also_allow]
    granted = [_union(_first_list(agent_config.profile or global_config.profile, allows), also), *allows]
    denies = [_ToolList(f"{place}.deny", config.deny) for place, config in both if config.deny is not None]
    denies.append(_ToolList("its own settings", _disabled_tools(global_config, agent_config)))
    for label, limits in _limits(global_config, agent_config, models):
        if limits.profile is not None:
            base = (*_base(limits.profile, has_allow_list=True), *(limits.also_allow or ()))
            granted.append(_ToolList(f"{label}.profile", base))
        granted += [_ToolList(f"{label}.allow", limits.allow)] if limits.allow is not None else []
        denies += [_ToolList(f"{label}.deny", limits.deny)] if limits.deny is not None else []
    return granted, [_ToolList(one.label, _with_included(one.entries)) for one in denies]


def _first_list(profile: str | None, allows: list[_ToolList]) -> _ToolList:
    label = "all tools" if allows else "the default tools"
    label = label if profile is None else f'the profile "{profile}"'
    return _ToolList(label, _base(profile, has_allow_list=bool(allows)))


def _union(first: _ToolList, also: list[_ToolList]) -> _ToolList:
    if not also:
        return first
    parts = (first, *also)
    entries = tuple(entry for part in parts for entry in part.entries)
    return _ToolList(f"{first.label} or alsoAllow", entries, parts)


def _with_included(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Add the tools that are denied together with one that `entries` match."""
    together = ((tool.name, tool.access.denied_with) for tool in BUILT_IN_TOOLS)
    return (*entries, *(name for name, other in together if other is not None and _matches(entries, other)))


def _disabled_tools(global_config: GlobalToolsConfig, agent_config: ToolsConfig) -> tuple[str, ...]:
    """Return the tools that are disabled by their own settings."""
    of_agent = agent_config.exec.mode is not None or agent_config.exec.security is not None
    setting = agent_config.exec if of_agent else global_config.exec
    host = agent_config.exec.host or global_config.exec.host
    places = (None, "auto", "gateway", *(() if global_config.exec.sandbox == "off" else ("sandbox",)))
    runs = {setting.mode, setting.security} <= {None, "full", "ask"} and host in places
    return (*(() if runs else ("exec",)), *(() if global_config.web.fetch.enabled else ("web_fetch",)))


def _limits(
    global_config: GlobalToolsConfig, agent_config: ToolsConfig, models: Iterable[str]
) -> Iterator[tuple[str, ToolLists]]:
    """Yield the additional limits of a run: for callers (who have no sender id), and for the models it may use."""
    sender = agent_config.tools_by_sender.get("*") or global_config.tools_by_sender.get("*")
    if sender is not None:
        yield "toolsBySender", sender
    for model in models:
        of_all, of_agent = global_config.entry_for(model), agent_config.entry_for(model)
        if of_all is not None and of_agent is not None and of_agent.profile is not None:
            of_all = of_all.model_copy(update={"profile": None})  # the agent's replaces it
        yield from ((f"byProvider for {model}", entry) for entry in (of_all, of_agent) if entry is not None)


def _base(profile: str | None, *, has_allow_list: bool) -> tuple[str, ...]:
    if profile is not None:
        return PROFILES.get(profile.strip().lower(), ())
    return ("*",) if has_allow_list else DEFAULT_TOOLS


def _matches(entries: Iterable[str], name: ToolName) -> bool:
    names = [one.lower() for one in ((name,) if isinstance(name, str) else name)]
    patterns = (pattern for entry in entries for pattern in _expand(entry))
    return any(fnmatchcase(one, pattern) for pattern in patterns for one in names)


def _expand(entry: str) -> tuple[str, ...]:
    entry = entry.strip().lower()
    # fnmatch would take [ and ? as wildcards; here only * is one.
    return GROUPS.get(entry) or (_ALIASES.get(entry, entry).replace("[", "[[]").replace("?", "[?]"),)


def _may_name(entry: str, prefixes: Collection[str]) -> bool:
    """Return whether `entry` may match a longer name that begins with one of `prefixes`."""
    for pattern in _expand(entry):
        head, star, _ = pattern.partition("*")
        for prefix in map(str.lower, prefixes):
            if head.startswith(prefix) or (star and prefix.startswith(head)):
                return True
    return False


def _warnings_for(path: str, config: ToolsConfig, profile: str | None, known: _KnownTools) -> Iterator[str]:
    if config.profile is not None and config.profile.strip().lower() not in PROFILES:
        yield f'{path}.profile: "{config.profile}" is not a profile, so no tool is allowed; use {", ".join(PROFILES)}'
    lists = {"allow": config.allow, "alsoAllow": config.also_allow, "deny": config.deny, "approvals": config.approvals}
    for key, entries in lists.items():
        for entry in entries or ():
            if entry.strip().lower() not in GROUPS and not known.matched(entry):
                yield f'{path}.{key}: "{entry}" matches no tool of this gateway, ignored'
    base = _base(profile, has_allow_list=True)
    for entry in config.allow or ():
        matched = known.matched(entry)
        if matched and not any(_matches(base, name) for name in matched):
            yield (
                f'{path}.allow: "{entry}" is not part of the profile "{profile}", which allow only narrows; '
                "use alsoAllow to add it"
            )
