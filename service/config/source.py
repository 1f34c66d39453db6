"""The configuration file before anything in it is checked: where it is, its text, the data that text stands for.

Light on purpose: commands that only want an address or a key of the file need nothing else. Everything comes in
through arguments: the process's own environment is never looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple

import pyjson5

from service.config.key_paths import KeyPath, format_path
from service.core.dataclass import record

DEV_PORT = 19001

_LARGEST_FILE_BYTES = 4 * 1024 * 1024
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
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

    `problems` holds every fault found, each a sentence for people; `source` names what they are problems of.
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
    """Where this gateway keeps things: its configuration file, and the directory of its state."""

    config_path: Path
    state_dir: Path
    dev: bool
    profile: str | None = field(default=None, compare=False)

    @property
    def private_paths(self) -> tuple[Path, ...]:
        """The files and directories that no agent may reach: they hold the gateway's secrets and all sessions."""
        return self.config_path, self.state_dir


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
    return Locations(_path(given, environ) if given else state_dir / "openclaw.json", state_dir, dev, profile)


def _path(text: str, environ: Mapping[str, str]) -> Path:
    if text != "~" and not text.startswith("~/"):
        return Path(text).absolute()
    home = environ.get("HOME")
    if not home:
        raise ConfigError(["HOME is not set; set it, or OPENCLAW_STATE_DIR to a directory"], "The environment")
    return Path(home, text[2:]).absolute()


def read_config_text(locations: Locations) -> str:
    """The file's text. Raises `ConfigError` for a file that is missing, unreadable, too large or not UTF-8."""
    path = locations.config_path
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "" if locations.dev else ", or start with --dev, which makes a configuration for trying things out"
        raise ConfigError(
            [f"there is no such file. Run `openclaw setup`, or write one, for example{hint}:\n{_MINIMAL_FILE}"],
            str(path),
        ) from None
    except OSError as error:
        raise ConfigError([f"it cannot be read: {error.strerror}"], str(path)) from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError([f"it is larger than {_LARGEST_FILE_BYTES // 1024 // 1024} MiB"], str(path))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"line {line}: there are bytes that are not UTF-8 text"], str(path)) from None


def parse_json5(text: str, source: str) -> Any:
    """The data that `text` stands for. Raises `ConfigError` with the place at fault; `source` is its file's name."""
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
        fault = "what begins here (an object, list, text or comment) has no end"
    elif isinstance(error, pyjson5.Json5ExtraData):
        fault = "something follows the end of the configuration"
    elif isinstance(error, pyjson5.Json5NestingTooDeep):
        fault = "objects and lists are nested too deeply"
    else:
        fault = "this is not JSON5; look for a missing comma, quote or bracket here or just before"
    return f"line {line}, column {column}: {fault}"


class Gap(NamedTuple):
    """A text of the file that the environment cannot complete, and why."""

    path: KeyPath
    problem: str


def substitute(
    data: Any, environ: Mapping[str, str], sections: Collection[str] | None = None
) -> tuple[Any, tuple[Gap, ...]]:
    """`data` with each `${NAME}` taken from `environ`, and what could not be; that stays as it was written.

    Only in the given top-level sections, in all without: what nobody reads needs no variables.
    """
    gaps: list[Gap] = []
    if sections is None or not isinstance(data, dict):
        return _substitute(data, (), environ, gaps), tuple(gaps)
    complete = {
        key: _substitute(value, (key,), environ, gaps) if key in sections else value for key, value in data.items()
    }
    return complete, tuple(gaps)


def escape_variables(text: str) -> str:
    """`text` written so that `substitute` gives it back as it is."""
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
    """Whether `value` is OpenClaw's object for a secret in the environment: {source: "env", provider, id}."""
    return value.get("source") == "env" and isinstance(value.get("id"), str) and value.keys() <= _REFERENCE_KEYS


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
