"""What whoever runs the gateway has to hear before anybody is served, rather than each caller afterwards.

What can never work is refused; what may come to work (a key that is not in the environment, a directory that is not
there yet) is a notice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from service.agents import Agent, Roster
from service.config import AgentConfig, Config, ConfigError
from service.configmodels import KNOWN_APIS
from service.models import ModelCatalog
from service.providers.known_hosts import KNOWN_HOSTS

_LONGEST_SHOWN_API = 40


def check_mode(config: Config) -> None:
    """Raises `ConfigError` for a configuration that says another host runs the gateway."""
    if config.gateway.mode == "remote":
        problem = 'gateway.mode: "remote" says that the gateway runs on another host; set it to "local" to serve here'
        raise ConfigError([problem])


def check_agents(config: Config, roster: Roster, catalog: ModelCatalog) -> tuple[str, ...]:
    """Notices about models and directories that agents need and that are not there.

    Providers are opened, none is contacted. Raises `ConfigError` with each model that cannot be asked whatever the
    environment has, and each workspace that is no directory.
    """
    problems: dict[str, None] = {}
    notices: dict[str, None] = {}
    for agent in roster.agents:
        entry = config.agents.roster.get(agent.id, AgentConfig())
        place = f"agents.{'defaults' if entry.model is None else agent.id}.model"
        _check_models(place, agent, catalog, problems, notices)
        place = f"agents.{'defaults' if entry.workspace is None else agent.id}.workspace"
        _check_workspace(place, agent, problems, notices)
    if problems:
        raise ConfigError(problems)
    return (*notices, *_unspoken(config))


def _check_models(
    place: str, agent: Agent, catalog: ModelCatalog, problems: dict[str, None], notices: dict[str, None]
) -> None:
    if agent.model is not None and (error := catalog.problem_of(agent.model)) is not None:
        waits_for_key = agent.model.partition("/")[0] in KNOWN_HOSTS
        refused = error.code == "model_not_found" and not waits_for_key
        if error.code != "model_not_installed":  # the catalog tells of that by itself
            (problems if refused else notices)[f"{place}: {error.message}"] = None
    for ref in agent.fallbacks:
        if (error := catalog.problem_of(ref)) is not None:
            notices[f"{place}.fallbacks: {error.message} It is left out."] = None


def _check_workspace(place: str, agent: Agent, problems: dict[str, None], notices: dict[str, None]) -> None:
    path = agent.workspace
    if path is None:
        return
    if not path.exists():
        notices[f"{place}: there is no directory {path}; nothing is found in it until it is made"] = None
    elif not path.is_dir():
        problems[f"{place}: {path} is not a directory"] = None
    elif not os.access(path, os.R_OK | os.X_OK):
        notices[f"{place}: the directory {path} cannot be read by the user that runs the gateway"] = None


def _unspoken(config: Config) -> Iterator[str]:
    for provider_id, provider in config.models.providers.items():
        if provider.api not in KNOWN_APIS:
            known = len(provider.api) <= _LONGEST_SHOWN_API and provider.api.isprintable()
            shown = f'"{provider.api}"' if known else "this"
            spoken = ", ".join(KNOWN_APIS)
            yield f"models.providers.{provider_id}.api: {shown} is not spoken here ({spoken} are); not used"
