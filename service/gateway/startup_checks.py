"""Check the configuration before the gateway serves.

Settings that can never work are errors; those that may work later (a key missing from the environment, a directory
that does not exist yet) are notices.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from service.config.agents import AgentConfig
from service.config.key_paths import format_path
from service.config.loading import resolve_state_url
from service.config.roster import Agent, Roster
from service.config.schema import Config
from service.config.source import ConfigError, Locations
from service.core.symlinks import find_links, is_inside
from service.gateway.exec_approvals_file import find_restrictions
from service.models.catalog import ModelCatalog
from service.models.dialects import DIALECTS, OFFERED_APIS
from service.models.known_hosts import KNOWN_HOSTS
from service.tools.policy_checks import may_run_commands, tool_warnings
from service.tools.workspace.hidden_files import HiddenFiles

_LONGEST_SHOWN_API = 40

#: In a message: what could be named instead, which changes with everything else.
_OFFER = " Available: "


def check_mode(config: Config) -> None:
    """Raises `ConfigError` for a configuration that says another host runs the gateway."""
    if config.gateway.mode == "remote":
        problem = 'gateway.mode: "remote" says that the gateway runs on another host; set it to "local" to serve here'
        raise ConfigError([problem])


def check_traces(config: Config) -> None:
    """Raises `ConfigError` for traces without the packages that send them."""
    if not config.diagnostics.sends_traces:
        return
    try:
        is_there = find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise ConfigError(["diagnostics.otel.enabled: traces need OpenTelemetry; pip install '.[otel]'"])


def check_state(config: Config, environ: Mapping[str, str]) -> None:
    """Raises `ConfigError` for a database of an unsupported kind. Nothing is contacted."""
    url = resolve_state_url(environ, config)
    if url is None:
        return
    from service.storage.database.errors import StoreError  # noqa: PLC0415 - half a second that SQLite's users need not wait
    from service.storage.database.open import check_url  # noqa: PLC0415

    try:
        check_url(url)
    except StoreError as error:
        origin = "state.url" if config.state.url is not None else "OPENCLAW_STATE_URL"
        raise ConfigError([f"{origin}: {error}"]) from None


def check_startable(config: Config, locations: Locations, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the notices of `check_agents` without a gateway. Raises `ConfigError` with every fatal problem."""
    problems: list[str] = []
    notices: tuple[str, ...] = ()
    for check in (partial(check_state, config, environ), partial(check_traces, config)):
        try:
            check()
        except ConfigError as error:
            problems += error.problems
    with closing(ModelCatalog(config, locations.state_dir, environ)) as catalog:
        try:
            notices = check_agents(config, Roster.from_config(config), catalog, locations.private_paths)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return notices


def new_problems(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """The problems of `after` that `before` does not have, whatever else there is to choose from by now."""
    had = {problem.partition(_OFFER)[0] for problem in before}
    return [problem for problem in after if problem.partition(_OFFER)[0] not in had]


def check_agents(
    config: Config, roster: Roster, catalog: ModelCatalog, private_paths: Iterable[Path]
) -> tuple[str, ...]:
    """Notices about models and directories that agents need and that are not there, and of rules without effect.

    Providers are opened, none is contacted. Raises `ConfigError` with each model that cannot be asked whatever the
    environment has, and each workspace that is no directory.
    """
    private_paths = tuple(private_paths)
    findings = list(_unspoken(config))
    if may_run_commands(config, roster):
        findings += [_Finding(problem, refused=True) for problem in find_restrictions(private_paths)]
    hidden = HiddenFiles(private_paths)
    log_path = None if config.logging.file is None else Path(config.logging.file).expanduser()
    log_paths = (
        () if log_path is None or not log_path.is_absolute() else (log_path,)
    )  # others are in the state directory
    if _is_sandboxed(config, roster) and (problem := hidden.link_problem()) is not None:
        findings.append(_Finding(f"tools.exec.sandbox: {problem}; commands are refused until then"))
    for name, fault in roster.unusable_aliases().items():
        findings.append(_Finding(f"{format_path(('gateway', 'http', 'models', name))}: {fault}", refused=True))
    waiting = KNOWN_HOSTS.keys() - config.models.providers.keys()
    if config.tasks.model is not None:
        findings += _check_model("tasks.model", config.tasks.model, catalog, waiting)
    if config.embeddings.model is not None:
        findings += _check_model("embeddings.model", config.embeddings.model, catalog, waiting)
    for agent in roster.agents:
        entry = config.agents.roster.get(agent.id, AgentConfig())
        place = _place_of(config, agent, "model", is_own=entry.model is not None)
        findings += _check_models(place, agent, catalog, waiting)
        findings += _check_choice(agent)
        place = _place_of(config, agent, "workspace", is_own=entry.workspace is not None)
        if agent.workspace is not None:
            findings += _check_workspace(place, agent.workspace)
            findings += _check_hidden(place, agent.workspace, hidden)
            findings += _check_links(place, agent.workspace, (*private_paths, *log_paths))
            for path in log_paths:
                findings += _check_log(path, agent, private_paths)
    distinct = dict.fromkeys(findings)
    problems = [finding.text for finding in distinct if finding.refused]
    if problems:
        raise ConfigError(problems)
    return (*(finding.text for finding in distinct), *tool_warnings(config, roster))


def _is_sandboxed(config: Config, roster: Roster) -> bool:
    servers = config.mcp.servers.values()
    has_commands = config.tools.exec.sandbox != "off" and may_run_commands(config, roster)
    return has_commands or any(server.sandbox != "off" for server in servers)


def _place_of(config: Config, agent: Agent, key: str, *, is_own: bool) -> str:
    return format_path((*(config.agents.path_of(agent.id) if is_own else ("agents", "defaults")), key))


class _Finding(NamedTuple):
    text: str
    refused: bool = False


def _check_models(place: str, agent: Agent, catalog: ModelCatalog, waiting: Container[str]) -> Iterator[_Finding]:
    """`waiting` are the providers that only lack a key in the environment."""
    if agent.model is not None:
        yield from _check_model(place, agent.model, catalog, waiting)
    for ref in agent.fallbacks:
        if (error := catalog.problem_of(ref)) is not None:
            yield _Finding(f"{place}.fallbacks: {error.message} It is left out.")


def _check_choice(agent: Agent) -> Iterator[_Finding]:
    for pattern in agent.allowed_models or ():
        if "/" not in pattern:
            text = "is neither a provider/model nor a provider/* nor an alias, and allows nothing"
            yield _Finding(f'modelPolicy.allow: "{pattern}" {text} (agent {agent.id})')


def _check_model(place: str, ref: str, catalog: ModelCatalog, waiting: Container[str]) -> Iterator[_Finding]:
    if (error := catalog.problem_of(ref)) is not None:
        refused = error.code == "model_not_found" and ref.partition("/")[0] not in waiting
        if error.code != "model_not_installed":  # the catalog logs that itself
            yield _Finding(f"{place}: {error.message}", refused)


def _check_workspace(place: str, path: Path) -> Iterator[_Finding]:
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        yield _Finding(f"{place}: the directory {path} does not exist; create it")
        return
    except OSError as error:
        yield _Finding(f"{place}: the directory {path} cannot be used: {error.strerror}")
        return
    if not is_directory:
        yield _Finding(f"{place}: {path} is not a directory", refused=True)
    elif not os.access(path, os.R_OK | os.X_OK):
        yield _Finding(f"{place}: the directory {path} cannot be read by the user that runs the gateway")


def _check_hidden(place: str, path: Path, hidden: HiddenFiles) -> Iterator[_Finding]:
    if inside := hidden.inside(path):
        listed = ", ".join(inside)
        yield _Finding(
            f"{place}: {path} holds files of the gateway itself ({listed}), which tools do not reach; name a directory "
            "without them"
        )


def _check_log(path: Path, agent: Agent, private_paths: Sequence[Path]) -> Iterator[_Finding]:
    """Refuse a log file where an agent could change it."""
    real = path.resolve()
    if any(is_inside(real, private) for private in private_paths):
        return  # in the state directory, which is hidden
    if agent.workspace is not None and is_inside(real, agent.workspace):
        text = f"logging.file: {path} is in the workspace of the agent {agent.id}, which could change it; move the file"
        yield _Finding(text, refused=True)


def _check_links(place: str, workspace: Path, private_paths: Sequence[Path]) -> Iterator[_Finding]:
    """Refuse a workspace that holds a link to the gateway's own files: an agent could make it lead elsewhere."""
    for path in private_paths:
        for link in find_links(path):
            if is_inside(link, workspace):
                yield _Finding(
                    f"{place}: {workspace} holds the symbolic link {link}, through which the gateway finds {path}; an "
                    "agent could replace it. Name a directory without it, or give the gateway the real path",
                    refused=True,
                )


def _unspoken(config: Config) -> Iterator[_Finding]:
    for provider_id, provider in config.models.providers.items():
        if provider.api not in DIALECTS:
            known = len(provider.api) <= _LONGEST_SHOWN_API and provider.api.isprintable()
            shown = f'"{provider.api}"' if known else "this"
            spoken = ", ".join(OFFERED_APIS)
            place = format_path(("models", "providers", provider_id, "api"))
            yield _Finding(f"{place}: {shown} is not supported ({spoken} are); the provider is ignored")
        elif provider.base_url is None and (path := DIALECTS[provider.api].path):
            place = format_path(("models", "providers", provider_id, "baseUrl"))
            problem = f'is required with api "{provider.api}": the URL that ends before {path}'
            yield _Finding(f"{place}: {problem}", refused=True)
