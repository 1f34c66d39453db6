"""Load and check the configuration file, and apply what the command line and the environment add.

The file is JSON5. `${NAME}` in its strings is replaced from the environment, which is an argument; `$${NAME}` is a
literal `${NAME}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, get_args

from service.config.gateway import GatewayConfig
from service.config.key_paths import KeyPath, format_path
from service.config.saving import create_file
from service.config.schema import Config, parse_config
from service.config.source import (
    DEV_PORT,
    ConfigError,
    Locations,
    check_port,
    escape_variables,
    parse_json5,
    port_of_environment,
    read_config_text,
    substitute,
)
from service.core.dataclass import record

_SECTIONS = frozenset(field.alias or name for name, field in Config.model_fields.items())
_BIND_HOSTS = {"loopback": "127.0.0.1", "auto": "127.0.0.1", "lan": "0.0.0.0"}  # noqa: S104 - what "lan" means

_DEV_FILE = """// Configuration of `openclaw gateway --dev`. Edit it as you like: it is written only once.
{
  gateway: {
    port: %(port)d,
    bind: "loopback", // only programs on this machine reach it
    auth: {
      mode: "token",
      token: %(token)s, // clients send it as `Authorization: Bearer <token>`
    },
    http: { endpoints: { chatCompletions: { enabled: true } } },
    controlUi: { enabled: true }, // the page at /
  },
  // A provider and the model of the agent; ${NAME} is replaced from the environment:
  // models: {
  //   providers: { openai: { baseUrl: "https://api.openai.com/v1", apiKey: "${OPENAI_API_KEY}" } },
  // },
  // agents: { defaults: { model: "openai/gpt-5", instructions: "You are a helpful assistant." } },
}
"""


@record
class LoadedConfig:
    """A configuration from disk, and a notice for each ignored key."""

    config: Config
    notices: tuple[str, ...]


class ValidationResult(NamedTuple):
    """The problems of a file, or else notices about what has no effect.

    `complete`: every check was made, as each value was valid by itself.
    """

    problems: tuple[str, ...]
    complete: bool
    notices: tuple[str, ...] = ()


def load_config(locations: Locations, environ: Mapping[str, str]) -> LoadedConfig:
    """Read and check the configuration file. Raises `ConfigError` with its path."""
    return check_config_text(read_config_text(locations), str(locations.config_path), environ)


def load_sections(
    locations: Locations, environ: Mapping[str, str], *, required: Collection[str], optional: Collection[str]
) -> Config:
    """Read some sections of the configuration file, for commands that need no secrets of the others.

    Variables that are not set matter in `required` sections only; elsewhere their keys keep their defaults. Raises
    `ConfigError`.
    """
    source = str(locations.config_path)
    data = parse_json5(read_config_text(locations), source)
    wanted = {*required, *optional}
    sections = {key: value for key, value in data.items() if key in wanted} if isinstance(data, dict) else data
    complete, gaps = substitute(sections, environ)
    if missing := [gap.problem for gap in gaps if gap.path[0] in required]:
        raise ConfigError(missing, source)
    for gap in gaps:
        _remove(complete, gap.path)
    try:
        return parse_config(complete)[0]
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None


def _remove(data: Any, path: KeyPath) -> None:
    """Remove the key at `path`; in a list, the key of the list."""
    keys = list(path)
    while not isinstance(keys[-1], str):
        keys.pop()
    for step in keys[:-1]:
        data = data[step]
    data.pop(keys[-1], None)


def check_config_text(text: str, source: str, environ: Mapping[str, str]) -> LoadedConfig:
    """Check the `text` of the file `source`. Raises `ConfigError`."""
    data, gaps = substitute(parse_json5(text, source), environ, _SECTIONS)
    if gaps:
        raise ConfigError([gap.problem for gap in gaps], source)
    try:
        return LoadedConfig(*parse_config(data))
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None


def validate_text(
    text: str, source: str, environ: Mapping[str, str], check: Callable[[Config], tuple[str, ...]]
) -> ValidationResult:
    """Find the problems of the file's `text` that do not depend on the environment.

    For edits in another environment than the gateway's: values whose variables are not set are not judged. `check`
    makes further checks of the configuration and returns notices. Raises `ConfigError` for what is not JSON5.
    """
    data, gaps = substitute(parse_json5(text, source), environ, _SECTIONS)
    complete = False
    try:
        config, notices = parse_config(data)
        complete = True
        notices = (*notices, *check(config))
    except ConfigError as error:
        skipped = tuple(f"{format_path(gap.path)}:" for gap in gaps)
        return ValidationResult(tuple(one for one in error.problems if not one.startswith(skipped)), complete)
    return ValidationResult((), complete, notices)


def create_dev_config(locations: Locations, token: str) -> bool:
    """Write the development configuration with `token` unless the file exists; return whether it was written.

    Raises `ConfigError` if the file cannot be written.
    """
    # A token that looks like a variable must not be replaced.
    quoted = json.dumps(escape_variables(token))
    return create_file(locations, _DEV_FILE % {"port": DEV_PORT, "token": quoted})


def resolve_port(flag: int | None, environ: Mapping[str, str], config: Config, dev: bool) -> int:
    """Return the port to listen on: --port, else OPENCLAW_GATEWAY_PORT, else the file's. 0 is any free one.

    Raises `ConfigError` for an invalid port.
    """
    if flag is not None:
        return check_port(flag, "--port")
    if (port := port_of_environment(environ)) is not None:
        return port
    if dev and "port" not in config.gateway.model_fields_set:
        return DEV_PORT
    return config.gateway.port


def resolve_state_url(environ: Mapping[str, str], config: Config) -> str | None:
    """Return the URL of the database: `state.url`, else OPENCLAW_STATE_URL, else `None` for SQLite."""
    if config.state.url is not None:
        return config.state.url.get_secret_value()
    return environ.get("OPENCLAW_STATE_URL") or None


def resolve_bind(flag: str | None, config: Config) -> str:
    """Return the IP address to listen on: of --bind, else of the file. Raises `ConfigError` if there is none."""
    bind = flag if flag is not None else config.gateway.bind
    if bind in _BIND_HOSTS:
        return _BIND_HOSTS[bind]
    if bind != "custom":
        known = ", ".join(get_args(GatewayConfig.model_fields["bind"].annotation))
        raise ConfigError([f"must be one of {known}"], "--bind")
    if config.gateway.custom_bind_host is None:
        raise ConfigError(["custom needs gateway.customBindHost, the IP address to listen on"], "--bind")
    return config.gateway.custom_bind_host
