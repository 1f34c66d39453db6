"""The configuration's section on the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from service.config.problems import Section
from service.config.types import Bool, LogPath, Positive
from service.core.logs import SILENT, LogSettings

Level = Literal["silent", "fatal", "error", "warn", "info", "debug", "trace"]

_LEVELS: dict[str, int] = {
    "silent": SILENT,
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}


class LoggingConfig(Section):
    """The log: standard error and, where one is named, a file."""

    level: Level = "info"
    """Least level of the lines. "warn" leaves out requests, tool calls and runs that succeed, "silent" everything."""
    format: Literal["text", "json"] | None = None
    """Lines on standard error: text with `key=value`, or a JSON object each. Unset: as `consoleStyle` says."""
    file: LogPath | None = None
    """File for the same lines as JSON, which `openclaw logs` reads. A relative path begins in the state directory."""
    max_file_bytes: Positive = 100 * 1024 * 1024
    """Size at which the file is moved to `FILE.1`, and earlier ones up to `FILE.5`."""
    console_level: Level | None = None
    """Least level on standard error. Unset: `level`."""
    console_style: Literal["pretty", "compact", "json"] = "pretty"
    """OpenClaw's key for `format`; "pretty" and "compact" are text."""
    tool_arguments: Bool = False
    """Write the arguments of tool calls into their lines. They may be private: models copy them from messages."""
    redact_sensitive: Literal["off", "tools"] = "tools"
    """"tools" masks arguments with the names of secrets, such as `password` and `apiKey`."""
    redact_patterns: tuple[str, ...] = ()
    """Patterns that OpenClaw masks. Without `toolArguments` no line has such texts; together they are refused."""

    @model_validator(mode="after")
    def _check_patterns(self) -> LoggingConfig:
        if self.tool_arguments and self.redact_patterns:
            raise ValueError("toolArguments cannot be combined with redactPatterns, which this gateway does not apply")
        return self

    def to_settings(self, state_dir: Path) -> LogSettings:
        """Return where and what to log; a relative `file` is below `state_dir`."""
        return LogSettings(
            level=_LEVELS[self.level],
            console_level=_LEVELS[self.console_level or self.level],
            as_json=self.format == "json" or (self.format is None and self.console_style == "json"),
            file=self.path_in(state_dir),
            max_file_bytes=self.max_file_bytes,
        )

    def path_in(self, state_dir: Path) -> Path | None:
        """Return the path of the file, `None` if there is none."""
        return None if self.file is None else state_dir / Path(self.file).expanduser()
