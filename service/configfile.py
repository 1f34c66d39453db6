"""Where the configuration file is, what reading it means, and what the command line and environment add to it.

The file is JSON5 whose texts may take `${NAME}` from the environment; `$${NAME}` is the text itself. Everything comes
in through arguments: the process's own environment is never looked at here.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyjson5

from service.config import Config, ConfigError, GatewayConfig, parse_config
from service.configproblems import KeyPath, format_path

DEV_PORT = 19001

_LARGEST_FILE_BYTES = 4 * 1024 * 1024
_HIGHEST_PORT = 65535
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DIGITS = re.compile(r"[0-9]{1,5}")
_REFERENCE = re.compile(r"(?P<literal>\$)?\$\{(?P<name>[^{}]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_BIND_HOSTS = {"loopback": "127.0.0.1", "auto": "127.0.0.1", "lan": "0.0.0.0"}  # noqa: S104 - what "lan" means

_MINIMAL_FILE = """{
  gateway: {
    auth: { mode: "token", token: "<a long random text>" },
    http: { endpoints: { chatCompletions: { enabled: true } } },
  },
}"""

_DEV_FILE = """// What `openclaw gateway --dev` serves. Yours to edit: it is never written again.
{
  gateway: {
    port: %(port)d,
    bind: "loopback", // only programs on this machine reach it
    auth: {
      mode: "token",
      token: %(token)s, // clients send it as `Authorization: Bearer <token>`
    },
    http: { endpoints: { chatCompletions: { enabled: true } } },
  },
  // A provider and the model the agent asks; ${NAME} comes from the environment:
  // models: {
  //   providers: { openai: { baseUrl: "https://api.openai.com/v1", apiKey: "${OPENAI_API_KEY}" } },
  // },
  // agents: { defaults: { model: "openai/gpt-5", instructions: "You are a helpful assistant." } },
}
"""


@dataclass(frozen=True, slots=True)
class Locations:
    """Where this gateway keeps things: its configuration file, and the directory of its state."""

    config_path: Path
    state_dir: Path
    dev: bool


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration as read from disk, with a notice for each key of the file that is ignored."""

    config: Config
    notices: tuple[str, ...]


def locate(environ: Mapping[str, str], *, dev: bool = False, profile: str | None = None) -> Locations:
    """Where the file and the state are.

    `dev` and `profile` move both to a directory of their own beside `~/.openclaw`. OPENCLAW_STATE_DIR and
    OPENCLAW_CONFIG_PATH beat them. Raises `ConfigError` when neither they nor HOME say where.
    """
    if dev and profile is not None:
        raise ConfigError(["--dev is a profile of its own; give --dev or --profile, not both"], "The command line")
    if profile is not None and not _PROFILE.fullmatch(profile):
        raise ConfigError(
            ["--profile is 1 to 64 letters, digits, hyphens and underscores, beginning with a letter or digit"],
            "The command line",
        )
    suffix = "-dev" if dev else f"-{profile}" if profile is not None else ""
    state_dir = _path(environ.get("OPENCLAW_STATE_DIR") or f"~/.openclaw{suffix}", environ)
    given = environ.get("OPENCLAW_CONFIG_PATH")
    return Locations(_path(given, environ) if given else state_dir / "openclaw.json", state_dir, dev)


def _path(text: str, environ: Mapping[str, str]) -> Path:
    if text != "~" and not text.startswith("~/"):
        return Path(text).absolute()
    home = environ.get("HOME")
    if not home:
        raise ConfigError(["HOME is not set; set it, or OPENCLAW_STATE_DIR to a directory"], "The environment")
    return Path(home, text[2:]).absolute()


def load_config(locations: Locations, environ: Mapping[str, str]) -> LoadedConfig:
    """Read, complete from `environ` and check the configuration file. Raises `ConfigError`, with the file's path."""
    source = str(locations.config_path)
    data = _parse_json5(_read(locations), source)
    problems: list[str] = []
    if isinstance(data, dict):
        data = dict(_substituted_sections(data, environ, problems))
    if problems:
        raise ConfigError(problems, source)
    try:
        return LoadedConfig(*parse_config(data))
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None


def _read(locations: Locations) -> bytes:
    path = locations.config_path
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "" if locations.dev else ", or start with --dev, which makes a configuration for trying things out"
        raise ConfigError(
            [f"there is no such file. Write one, for example{hint}:\n{_MINIMAL_FILE}"], str(path)
        ) from None
    except OSError as error:
        raise ConfigError([f"it cannot be read: {error.strerror}"], str(path)) from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError([f"it is larger than {_LARGEST_FILE_BYTES // 1024 // 1024} MiB"], str(path))
    return content


def _parse_json5(content: bytes, source: str) -> Any:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"line {line}: there are bytes that are not UTF-8 text"], source) from None
    try:
        return pyjson5.decode(text)
    except pyjson5.Json5DecoderException as error:
        raise ConfigError([_describe_syntax_error(error, text)], source) from None


def _describe_syntax_error(error: pyjson5.Json5DecoderException, text: str) -> str:
    found = re.search(r"near (\d+)", error.args[0])
    before = text[: max(int(found[1]) - 1, 0)] if found else ""
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    if not text.strip():
        fault = "the file is empty"
    elif isinstance(error, pyjson5.Json5EOF):
        fault = "what begins here (an object, list, text or comment) has no end"
    elif isinstance(error, pyjson5.Json5ExtraData):
        fault = "something follows the end of the configuration"
    elif isinstance(error, pyjson5.Json5NestingTooDeep):
        fault = "objects and lists are nested too deeply"
    else:
        fault = "this is not JSON5; look for a missing comma, quote or bracket here or just before"
    return f"line {line}, column {column}: {fault}"


def _substituted_sections(
    data: dict[str, Any], environ: Mapping[str, str], problems: list[str]
) -> Iterator[tuple[str, Any]]:
    # Sections this gateway does not read keep their texts: their variables need not be set here.
    known = {field.alias or name for name, field in Config.model_fields.items()}
    for key, value in data.items():
        yield key, _substitute(value, (key,), environ, problems) if key in known else value


def _substitute(value: Any, path: KeyPath, environ: Mapping[str, str], problems: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(item, (*path, key), environ, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, (*path, index), environ, problems) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        if match["literal"]:
            return match[0][1:]
        found = environ.get(match["name"], "")
        if fault := _reference_fault(match["name"], found):
            problems.append(f"{format_path(path)}: {fault}")
        return found

    return _REFERENCE.sub(replacement, value)


def _reference_fault(name: str, found: str) -> str | None:
    """Why `${name}` cannot be replaced by `found`, or `None`."""
    if not _VARIABLE_NAME.fullmatch(name):
        # What stands there is not repeated: it may be a part of a secret.
        return (
            "what stands in ${...} must be the name of an environment variable, upper-case letters, digits and "
            "underscores; write $${...} for a text that is not to be replaced"
        )
    if not found:
        return f"the environment variable {name} is not set, or is empty"
    return None if _is_text(found) else f"the environment variable {name} is not UTF-8 text"


def _is_text(value: str) -> bool:
    # Bytes of the environment that are not UTF-8 arrive as lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in value)


def create_dev_config(locations: Locations, token: str) -> bool:
    """Write the development configuration, with `token` as its secret, unless there is a file already.

    The file is for its owner alone (0600, new directories 0700) and appears whole or not at all. Returns whether it
    was written. Raises `ConfigError` where nothing can be written.
    """
    path = locations.config_path
    # A token that looks like a variable has to be read back as it is.
    quoted = json.dumps(_REFERENCE.sub(r"$\g<0>", token))
    try:
        if path.exists():
            return False
        _create_private_directory(locations.state_dir)
        _create_private_directory(path.parent)
        return _create_file(path, _DEV_FILE % {"port": DEV_PORT, "token": quoted})
    except OSError as error:
        raise ConfigError([f"it cannot be written: {error.strerror}"], str(path)) from None


def _create_file(path: Path, text: str) -> bool:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link never replaces what another process has just written.
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _create_private_directory(directory: Path) -> None:
    for missing in reversed([directory, *directory.parents]):
        if not missing.is_dir():
            missing.mkdir(mode=0o700, exist_ok=True)


def resolve_port(flag: int | None, environ: Mapping[str, str], config: Config, dev: bool) -> int:
    """The port to listen on: --port, else OPENCLAW_GATEWAY_PORT, else the file's, else the default. 0 is any free one.

    Raises `ConfigError` for what is not a port.
    """
    if flag is not None:
        return _check_port(flag, "--port")
    text = environ.get("OPENCLAW_GATEWAY_PORT", "").strip()
    if text:
        return _check_port(int(text) if _DIGITS.fullmatch(text) else -1, "OPENCLAW_GATEWAY_PORT")
    if dev and "port" not in config.gateway.model_fields_set:
        return DEV_PORT
    return config.gateway.port


def _check_port(port: int, origin: str) -> int:
    if not 0 <= port <= _HIGHEST_PORT:
        raise ConfigError([f"must be a port, a whole number from 0 to {_HIGHEST_PORT}"], origin)
    return port


def resolve_bind(flag: str | None, config: Config) -> str:
    """The IP address to listen on: what --bind says, else the file. Raises `ConfigError` for what has no address."""
    bind = flag if flag is not None else config.gateway.bind
    if bind in _BIND_HOSTS:
        return _BIND_HOSTS[bind]
    if bind != "custom":
        known = ", ".join(get_args(GatewayConfig.model_fields["bind"].annotation))
        raise ConfigError([f"must be one of {known}"], "--bind")
    if config.gateway.custom_bind_host is None:
        raise ConfigError(["custom needs gateway.customBindHost, the IP address to listen on"], "--bind")
    return config.gateway.custom_bind_host
