"""Which tools an agent may use: profiles, allow lists and deny lists, as OpenClaw spells them.

A profile, or the careful default, is what an agent begins with; `alsoAllow` adds to it, `allow` narrows it, and a
denial always wins. Where nothing is configured an agent can look, but not
write, execute or reach the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from service.config.tools import GlobalToolsConfig, ToolLists, ToolsConfig

_FILES_READ = ("read", "ls", "find", "grep")
_SESSIONS_READ = ("session_status", "sessions_list", "sessions_history", "agents_list")

_OF_MCP_SERVERS = ("*__*",)

#: Groups that lists may name. OpenClaw's groups without tools here are known: naming them is no mistake.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "group:fs": (*_FILES_READ, "write", "edit"),
    "group:runtime": ("exec",),
    "group:web": ("web_fetch",),
    "group:sessions": _SESSIONS_READ,
    "group:agents": ("agents_list",),
    "group:openclaw": ("web_fetch", *_SESSIONS_READ),
    "group:plugins": _OF_MCP_SERVERS,
    "bundle-mcp": _OF_MCP_SERVERS,
    "group:automation": (),
    "group:media": (),
    "group:memory": (),
    "group:messaging": (),
    "group:nodes": (),
    "group:ui": (),
}

#: What an agent has before the lists are applied. `full` is every tool there is.
PROFILES: Mapping[str, tuple[str, ...]] = {
    "minimal": ("session_status",),
    "coding": ("group:fs", "group:runtime", "group:web", "group:sessions"),
    "messaging": ("group:messaging", "sessions_list", "sessions_history", "session_status"),
    "full": ("*",),
}

#: What an agent has when no profile and no allow list is configured for it.
DEFAULT_TOOLS = (*_FILES_READ, *_SESSIONS_READ)

_ALIASES = {"bash": "exec"}

#: What a denial includes: OpenClaw has no tool of its own to search in files.
_DENIED_WITH: Mapping[str, tuple[str, ...]] = {"read": ("grep",)}


def allowed_tools(
    global_config: GlobalToolsConfig, agent_config: ToolsConfig, names: Iterable[str], models: Iterable[str] = ()
) -> list[str]:
    """Return those of `names` that an agent may use in a run that may ask any of `models`, in their order.

    The agent's profile replaces the global one; without either, allow lists pick from all tools, and without those
    there is the careful default. `also_allow` adds to that. An unknown profile and an empty allow list allow nothing.
    """
    granted, denies = _lists(global_config, agent_config, models)
    return [
        name
        for name in names
        if all(_matches(entries, name) for entries in granted)
        and not any(_matches(entries, name) for entries in denies)
    ]


def may_allow(global_config: GlobalToolsConfig, agent_config: ToolsConfig, prefix: str) -> bool:
    """Whether a tool whose name begins with `prefix` could be allowed; what it is called otherwise is not known yet."""
    granted, denies = _lists(global_config, agent_config)
    any_tool = f"{prefix}\0"  # only what is meant for all of them matches it
    return all(any(_may_name(entry, prefix) for entry in entries) for entries in granted) and not any(
        _matches(entries, any_tool) for entries in denies
    )


def policy_notices(
    global_config: ToolsConfig,
    agent_configs: Mapping[str, ToolsConfig],
    names: Iterable[str],
    prefixes: Iterable[str] = (),
) -> tuple[str, ...]:
    """What the configuration says of tools that has no effect, a sentence each, naming its key.

    `agent_configs` are by the path of the agent's `tools` key; `names` are all tools there are, for any agent, and
    `prefixes` begin the names of those that are not known yet.
    """
    known = _Known(tuple(names), tuple(prefixes))
    notices = list(_notices_of("tools", global_config, global_config.profile, known))
    for path, config in agent_configs.items():
        notices += _notices_of(path, config, config.profile or global_config.profile, known)
    return tuple(notices)


class _Known(NamedTuple):
    names: tuple[str, ...]
    prefixes: tuple[str, ...]

    def matched(self, entry: str) -> list[str]:
        """The tools, or beginnings of tools, that `entry` may mean."""
        named = [name for name in self.names if _matches([entry], name)]
        return named + [prefix for prefix in self.prefixes if _may_name(entry, prefix)]


def _lists(
    global_config: GlobalToolsConfig, agent_config: ToolsConfig, models: Iterable[str] = ()
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The lists of which each has to name a tool, and those of which none may."""
    both = (global_config, agent_config)
    allows = [config.allow for config in both if config.allow is not None]
    base = _base(agent_config.profile or global_config.profile, has_allow_list=bool(allows))
    also = (*(global_config.also_allow or ()), *(agent_config.also_allow or ()))
    granted, denies = [(*base, *also), *allows], [config.deny for config in both if config.deny is not None]
    denies.append(_switched_off(global_config, agent_config))
    for limits in _limits(global_config, agent_config, models):
        if limits.profile is not None:
            granted.append((*_base(limits.profile, has_allow_list=True), *(limits.also_allow or ())))
        granted += [limits.allow] if limits.allow is not None else []
        denies += [limits.deny] if limits.deny is not None else []
    return granted, [_with_included(entries) for entries in denies]


def _with_included(entries: tuple[str, ...]) -> tuple[str, ...]:
    included = (name for entry in entries for name in _DENIED_WITH.get(entry.strip().lower(), ()))
    return (*entries, *included)


def _switched_off(global_config: GlobalToolsConfig, agent_config: ToolsConfig) -> tuple[str, ...]:
    """The tools that their own settings take away."""
    of_agent = agent_config.exec.mode is not None or agent_config.exec.security is not None
    setting = agent_config.exec if of_agent else global_config.exec
    host = agent_config.exec.host or global_config.exec.host
    runs = {setting.mode, setting.security} <= {None, "full"} and host in (None, "auto", "gateway")
    return (*(() if runs else ("exec",)), *(() if global_config.web.fetch.enabled else ("web_fetch",)))


def _limits(global_config: GlobalToolsConfig, agent_config: ToolsConfig, models: Iterable[str]) -> Iterator[ToolLists]:
    """The further limits on a run's tools: of callers, who have no sender's id, and of the models it may ask."""
    sender = agent_config.tools_by_sender.get("*") or global_config.tools_by_sender.get("*")
    if sender is not None:
        yield sender
    for model in models:
        of_all, of_agent = global_config.entry_for(model), agent_config.entry_for(model)
        if of_all is not None and of_agent is not None and of_agent.profile is not None:
            of_all = of_all.model_copy(update={"profile": None})  # the agent's replaces it
        yield from (entry for entry in (of_all, of_agent) if entry is not None)


def _base(profile: str | None, *, has_allow_list: bool) -> tuple[str, ...]:
    if profile is not None:
        return PROFILES.get(profile.strip().lower(), ())
    return ("*",) if has_allow_list else DEFAULT_TOOLS


def _matches(entries: Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for entry in entries for pattern in _expand(entry))


def _expand(entry: str) -> tuple[str, ...]:
    entry = entry.strip().lower()
    # In fnmatch's language [ would begin a set; here only * has a meaning.
    return GROUPS.get(entry) or (_ALIASES.get(entry, entry).replace("[", "[[]").replace("?", "[?]"),)


def _may_name(entry: str, prefix: str) -> bool:
    """Whether `entry` may match a name that begins with `prefix` and goes on."""
    for pattern in _expand(entry):
        head, star, _ = pattern.partition("*")
        if head.startswith(prefix.lower()) or (star and prefix.lower().startswith(head)):
            return True
    return False


def _notices_of(path: str, config: ToolsConfig, profile: str | None, known: _Known) -> Iterator[str]:
    if config.profile is not None and config.profile.strip().lower() not in PROFILES:
        yield f'{path}.profile: "{config.profile}" is not a profile, so no tool is allowed; use {", ".join(PROFILES)}'
    for key, entries in (("allow", config.allow), ("alsoAllow", config.also_allow), ("deny", config.deny)):
        for entry in entries or ():
            if entry.strip().lower() not in GROUPS and not known.matched(entry):
                yield f'{path}.{key}: "{entry}" names no tool of this gateway, ignored'
    base = _base(profile, has_allow_list=True)
    for entry in config.allow or ():
        matched = known.matched(entry)
        if matched and not any(_matches(base, name) for name in matched):
            yield (
                f'{path}.allow: "{entry}" is not part of the profile "{profile}", which allow only narrows; '
                "name it in alsoAllow to add it"
            )
