"""Find, read and parse the configuration file, before anything in it is checked.

Commands that need only an address or one key import nothing else. The environment is an argument, never the process's
own.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple

import pyjson5

from service.config.key_paths import KeyPath, format_path
from service.core.dataclass import record

DEV_PORT = 19001
_HIGHEST_PORT = 65535
_DIGITS = re.compile(r"[0-9]{1,5}")

#: Where the systemd unit in deploy/ reads the environment from.
DEPLOYED_ENVIRONMENT = Path("/etc/openclaw/environment")

_LARGEST_FILE_BYTES = 4 * 1024 * 1024
PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_REFERENCE = re.compile(r"(?P<literal>\$)?\$\{(?P<name>[^{}]*)\}")
_REFERENCE_KEYS = {"source", "provider", "id"}
_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")

_MINIMAL_FILE = """{
  gateway: {
    auth: { mode: "token", token: "<a long random text>" },
    http: { endpoints: { chatCompletions: { enabled: true } } },
  },
}"""


class ConfigError(Exception):
    """A configuration that cannot be used.

    `problems` holds every fault as a sentence for users; `source` names the file or whatever else has them.
    """

    def __init__(self, problems: Iterable[str], source: str = "The configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__(self.problems, source)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.source} cannot be used: {self.problems[0]}"
        listed = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{self.source} cannot be used. It has {len(self.problems)} problems:{listed}"


@record
class Locations:
    """Paths of the configuration file and of the state directory."""

    config_path: Path
    state_dir: Path
    dev: bool
    profile: str | None = field(default=None, compare=False)
    environment_path: Path = field(default=DEPLOYED_ENVIRONMENT, compare=False)

    @property
    def command(self) -> str:
        """The command that calls the program for these locations, without a subcommand."""
        return f"openclaw{' --dev' if self.dev else '' if self.profile is None else f' --profile {self.profile}'}"

    @property
    def private_paths(self) -> tuple[Path, ...]:
        """The files and directories that no agent may reach: they hold the gateway's secrets and all sessions.

        The file with the environment of a service is one of them where this process could read it.
        """
        environment = (self.environment_path,) if os.access(self.environment_path, os.R_OK) else ()
        return self.config_path, self.state_dir, *environment


def locate(environ: Mapping[str, str], *, dev: bool = False, profile: str | None = None) -> Locations:
    """Find the configuration file and the state directory.

    `dev` and `profile` choose a separate directory beside `~/.openclaw`; OPENCLAW_STATE_DIR and OPENCLAW_CONFIG_PATH
    take precedence. Raises `ConfigError` if HOME is needed and not set.
    """
    if dev and profile is not None:
        raise ConfigError(["--dev and --profile exclude each other; give one of them"], "The command line")
    if profile is not None and not PROFILE_NAME.fullmatch(profile):
        raise ConfigError(
            ["--profile is 1 to 64 letters, digits, hyphens and underscores, beginning with a letter or digit"],
            "The command line",
        )
    suffix = "-dev" if dev else f"-{profile}" if profile is not None else ""
    state_dir = _path(environ.get("OPENCLAW_STATE_DIR") or f"~/.openclaw{suffix}", environ)
    given = environ.get("OPENCLAW_CONFIG_PATH")
    return Locations(_path(given, environ) if given else state_dir / "openclaw.json", state_dir, dev, profile)


def check_port(port: object, origin: str) -> int:
    """Return a port, which may be a text; 0 is any free one. Raises `ConfigError` that names its `origin`."""
    text = str(port)
    if not _DIGITS.fullmatch(text) or int(text) > _HIGHEST_PORT:
        raise ConfigError([f"must be a port, a whole number from 0 to {_HIGHEST_PORT}"], origin)
    return int(text)


def port_of_environment(environ: Mapping[str, str]) -> int | None:
    """Return the port in OPENCLAW_GATEWAY_PORT, `None` without it. Raises `ConfigError` for what is no port."""
    text = environ.get("OPENCLAW_GATEWAY_PORT", "").strip()
    return check_port(text, "OPENCLAW_GATEWAY_PORT") if text else None


def _path(text: str, environ: Mapping[str, str]) -> Path:
    if text != "~" and not text.startswith("~/"):
        return Path(text).absolute()
    home = environ.get("HOME")
    if not home:
        raise ConfigError(["HOME is not set; set it, or OPENCLAW_STATE_DIR to a directory"], "The environment")
    return Path(home, text[2:]).absolute()


def read_config_text(locations: Locations) -> str:
    """Read the file. Raises `ConfigError` if it is missing, unreadable, no regular file, too large or not UTF-8."""
    path = locations.config_path
    try:
        # A pipe without a writer would block the event loop.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(["it is not a regular file"], str(path))
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "" if locations.dev else ", start with --dev, which writes one for development"
        text = f"there is no such file. Run `{locations.command} setup`{hint}, or write one, for example:"
        raise ConfigError([f"{text}\n{_MINIMAL_FILE}"], str(path)) from None
    except OSError as error:
        raise ConfigError([f"it cannot be read: {error.strerror}"], str(path)) from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError([f"it is larger than {_LARGEST_FILE_BYTES // 1024 // 1024} MiB"], str(path))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"line {line}: invalid UTF-8"], str(path)) from None


def parse_json5(text: str, source: str) -> Any:
    """Parse `text`. Raises `ConfigError` with line and column; `source` is the name of its file."""
    text = text.removeprefix("\ufeff")
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
        fault = "the object, list, text or comment that begins here is not closed"
    elif isinstance(error, pyjson5.Json5ExtraData):
        fault = "there is text after the end of the configuration"
    elif isinstance(error, pyjson5.Json5NestingTooDeep):
        fault = "objects and lists are nested too deeply"
    else:
        fault = "this is not JSON5; look for a missing comma, quote or bracket here or just before"
    return f"line {line}, column {column}: {fault}"


class Gap(NamedTuple):
    """A text of the file with a variable that cannot be replaced, and the problem."""

    path: KeyPath
    problem: str


def substitute(
    data: Any, environ: Mapping[str, str], sections: Collection[str] | None = None
) -> tuple[Any, tuple[Gap, ...]]:
    """Replace each `${NAME}` in `data` from `environ`, and return the ones that could not be replaced.

    Only the top-level `sections` are searched, if given: the others are ignored, so that their variables may be unset.
    """
    gaps: list[Gap] = []
    if sections is None or not isinstance(data, dict):
        return _substitute(data, (), environ, gaps), tuple(gaps)
    complete = {
        key: _substitute(value, (key,), environ, gaps) if key in sections else value for key, value in data.items()
    }
    return complete, tuple(gaps)


def escape_variables(text: str) -> str:
    """Escape `text` so that `substitute` returns it unchanged."""
    return _REFERENCE.sub(r"$\g<0>", text)


def _substitute(value: Any, path: KeyPath, environ: Mapping[str, str], gaps: list[Gap]) -> Any:
    if isinstance(value, dict) and _is_environment_reference(value):
        value = f"${{{value['id']}}}"
    if isinstance(value, dict):
        return {key: _substitute(item, (*path, key), environ, gaps) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, (*path, index), environ, gaps) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        if match["literal"]:
            return match[0][1:]
        found = environ.get(match["name"], "")
        fault = _reference_fault(match["name"], found)
        if fault is None:
            return found
        gaps.append(Gap(path, f"{format_path(path)}: {fault}"))
        return match[0]

    return _REFERENCE.sub(replacement, value)


def _is_environment_reference(value: Mapping[Any, Any]) -> bool:
    """Return True if `value` is OpenClaw's object for a secret in the environment: {source: "env", provider, id}."""
    return value.get("source") == "env" and isinstance(value.get("id"), str) and value.keys() <= _REFERENCE_KEYS


def _reference_fault(name: str, found: str) -> str | None:
    """Return why `${name}` cannot be replaced by `found`, or `None`."""
    if not _VARIABLE_NAME.fullmatch(name):
        # The name is not repeated: it may be a part of a secret.
        return (
            "${...} must contain the name of an environment variable (upper-case letters, digits, underscores); write "
            "$${...} for a literal ${...}"
        )
    if not found:
        return f"the environment variable {name} is not set, or is empty"
    return None if _is_text(found) else f"the environment variable {name} is not UTF-8 text"


def _is_text(value: str) -> bool:
    # Bytes of the environment that are not UTF-8 arrive as lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in value)
