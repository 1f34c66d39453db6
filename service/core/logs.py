"""Logging of a serving process: standard error, a file, and events such as requests and runs with named fields.

An event's line says what was requested and how it ended, never any content: no query, headers, body or message.
Whatever a client puts into a value, the entry stays one line of bounded length. Text lines are logfmt behind the time,
the level and the logger; JSON lines have the same as members.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import string
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from service.core.dataclass import record
from service.core.work_context import current_work

MAX_VALUE_CHARACTERS = 256

#: Rotated files that are kept, numbered from 1, the latest.
KEPT_FILES = 5

#: A level above all others: nothing is logged.
SILENT = logging.CRITICAL + 10

_access_log = logging.getLogger("openclaw.access")
_STDERR = 2
_own = logging.getLogger("openclaw")
_PLAIN = re.compile(r"[A-Za-z0-9_.,:;/@%+*~!?&-]+")  # ranges alone: a class such as \w takes three times as long
_PLAIN_BYTES = (string.ascii_letters + string.digits + "_.,:;/@%+*~!?&-").encode()
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_ISO_FORMAT = "%Y-%m-%dT%H:%M:%S"

Fields = Mapping[str, str | float]

_level_name = cache(logging.getLevelName)


@record
class LogSettings:
    """Levels, format and place of the log. `as_json` is the format on standard error; a file has JSON lines.

    `level` is the least one of the file, `console_level` that of standard error. The file is rotated once it has
    `max_file_bytes`.
    """

    level: int = logging.INFO
    console_level: int = logging.INFO
    as_json: bool = False
    file: Path | None = None
    max_file_bytes: int = 100 * 1024 * 1024


class _Stamp:
    """The time of a line, formatted once per second."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._cached = -1.0, ""
        fraction = ".{:03d}Z" if as_json else ",{:03d}"
        self._fractions = [fraction.format(millisecond) for millisecond in range(1000)]

    def format(self, created: float) -> str:
        """Format `created`, seconds since 1970."""
        second = created // 1
        cached, text = self._cached  # together: other threads log, too
        if cached != second:
            moment = (time.gmtime if self._as_json else time.localtime)(created)
            text = time.strftime(_ISO_FORMAT if self._as_json else _TIME_FORMAT, moment)
            self._cached = second, text
        return text + self._fractions[int((created - second) * 1000)]


class _Handler(logging.Handler, ABC):
    """Writes records and events as lines of one format. What cannot be written is lost."""

    def __init__(self, level: int, *, as_json: bool, with_process: bool) -> None:
        super().__init__(level)
        self._as_json = as_json
        self._with_process = with_process
        self._stamp = _Stamp(as_json=as_json)
        self._exceptions = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line for `record` and the current work; its traceback follows in lines of its own, or as a member."""
        try:
            ids = current_work.get().ids
            trace = self._exceptions.formatException(record.exc_info) if record.exc_info else None
            if self._as_json:
                fields = {"message": record.getMessage(), **ids, **({} if trace is None else {"exception": trace})}
                self._write(self._json_line(record.name, record.levelno, fields, record.created))
            else:
                words = "".join([record.getMessage(), *(f" {key}={to_logfmt(ids[key])}" for key in ids)])
                text = words if trace is None else f"{words}\n{trace}"
                self._write(self._text_line(record.name, record.levelno, text, record.created))
        except Exception:  # noqa: BLE001 - as logging does: a line never ends what it reports about
            self.handleError(record)

    def write_event(self, name: str, level: int, fields: Fields, created: float) -> None:
        """Write a line of the logger `name` with `fields`."""
        if self._as_json:
            self._write(self._json_line(name, level, _cut(fields), created))
        else:
            self._write(self._text_line(name, level, to_logfmt_line(fields), created))

    def _text_line(self, name: str, level: int, text: str, created: float) -> str:
        process = f"[{os.getpid()}]" if self._with_process else ""
        return f"{self._stamp.format(created)} {_level_name(level)} {name}{process} {text}\n"

    def _json_line(self, name: str, level: int, fields: Mapping[str, Any], created: float) -> str:
        stamp, level_name = self._stamp.format(created), _level_name(level)
        line: dict[str, Any] = {"time": stamp, "level": level_name, "logger": name}
        if self._with_process:
            line["process"] = os.getpid()
        line.update(fields)
        try:
            return orjson.dumps(line).decode() + "\n"
        except TypeError:  # a lone surrogate
            texts = {
                key: value.encode(errors="replace").decode() for key, value in line.items() if isinstance(value, str)
            }
            return orjson.dumps(line | texts).decode() + "\n"

    @abstractmethod
    def _write(self, line: str) -> None:
        """Write a whole line."""


class _ConsoleHandler(_Handler):
    def _write(self, line: str) -> None:
        try:  # half the instructions of `sys.stderr`
            os.write(_STDERR, line.encode(errors="backslashreplace"))
        except OSError:
            return


class _FileHandler(_Handler):
    """Appends to a file that several processes share, and starts a new one once it is large, or has been moved."""

    def __init__(self, path: Path, max_bytes: int, level: int, *, with_process: bool) -> None:
        super().__init__(level, as_json=True, with_process=with_process)
        self._path = path
        self._max_bytes = max_bytes
        self._file = -1
        self._identity: tuple[int, int] | None = None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        super().close()

    def _open(self) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._file >= 0:
            os.close(self._file)
        status = os.fstat(file)
        self._file, self._identity = file, (status.st_dev, status.st_ino)

    def _write(self, line: str) -> None:
        data = line.encode(errors="backslashreplace")
        with suppress(OSError), self.lock or nullcontext():
            if not self._is_current(len(data)):
                self._open()
            os.write(self._file, data)

    def _is_current(self, more_bytes: int) -> bool:
        """Return True if the open file is the one at the path; rotates it if it has no room for `more_bytes`."""
        if not self._is_at_path():
            return False
        if os.fstat(self._file).st_size + more_bytes <= self._max_bytes:
            return True
        fcntl.flock(self._file, fcntl.LOCK_EX)  # until it is closed: other processes wait, and find another file
        if self._is_at_path():
            for number in range(KEPT_FILES - 1, 0, -1):
                with suppress(FileNotFoundError):
                    rotated_path(self._path, number).replace(rotated_path(self._path, number + 1))
            self._path.replace(rotated_path(self._path, 1))
        return False

    def _is_at_path(self) -> bool:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity


def rotated_path(path: Path, number: int) -> Path:
    """Return where the log file `path` goes when it is rotated; 1 is the latest."""
    return path.with_name(f"{path.name}.{number}")


_handlers: list[_Handler] = []


def configure_logging(settings: LogSettings | None = None, *, console: bool = True, with_process: bool = False) -> None:
    """Log as `settings` say; replaces what an earlier call has set up. Raises `OSError` if there can be no such file.

    `with_process` adds the process id to each line. Without `console` standard error gets nothing.
    """
    settings = settings or LogSettings()
    made: list[_Handler] = []
    if settings.file is not None:
        made.append(_FileHandler(settings.file, settings.max_file_bytes, settings.level, with_process=with_process))
    if console:
        made.append(_ConsoleHandler(settings.console_level, as_json=settings.as_json, with_process=with_process))
    before, _handlers[:] = tuple(_handlers), made
    least = min((handler.level for handler in made), default=SILENT)
    logging.root.handlers = list(made)
    logging.root.setLevel(max(least, logging.INFO))  # libraries write what they handle at lower levels
    _own.setLevel(least)
    for handler in before:
        handler.close()
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False  # no line has them
    for repeating in ("connexion", "werkzeug"):  # they repeat the access log and the responses
        logging.getLogger(repeating).setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # the steps of a first start are noise


def write_event(logger: logging.Logger, fields: Fields, level: int = logging.INFO) -> None:
    """Log `fields` in the order given. At least one."""
    created = time.time()
    for handler in _handlers:
        if level >= handler.level:
            handler.write_event(logger.name, level, fields, created)
    if not _handlers:  # another program than ours
        logger.log(level, "%s", to_logfmt_line(fields))


_ENTRY_FIELDS = ("key", "agent", "run", "session", "replaced_tools", "error", "trace_id")

#: The key of a request's `AccessEntry` in its WSGI environ.
ENTRY_KEY = "openclaw.access_entry"


@dataclass(slots=True)
class AccessEntry:
    """The application's part of an access line.

    `route` is the path as in the contract, `status` replaces the one that was sent, `error` is an error code,
    `key` is the id of the caller's API key, `session` the one that was named or continued, `replaced_tools` are the
    agent's tools that the caller's functions replaced, `trace_id` is the trace of the run. A request that `is_routine`
    is of interest only if it fails.
    """

    client: str | None = None
    key: str | None = None
    route: str | None = None
    agent: str | None = None
    run: str | None = None
    session: str | None = None
    status: int | None = None
    error: str | None = None
    replaced_tools: str | None = None
    trace_id: str | None = None
    is_routine: bool = False


def access_entry(environ: MutableMapping[str, Any]) -> AccessEntry:
    """The entry of the request with this WSGI environ."""
    entry = environ.get(ENTRY_KEY)
    if entry is None:  # another server than ours
        entry = environ[ENTRY_KEY] = AccessEntry()
    return entry


def write_access_line(fields: dict[str, str | float], entry: AccessEntry, level: int = logging.INFO) -> None:
    """Log a request's `fields` in the order given, and what `entry` has."""
    for name in _ENTRY_FIELDS:
        if (value := getattr(entry, name)) is not None:
            fields[name] = value
    write_event(_access_log, fields, level)


def to_logfmt_line(fields: Fields) -> str:
    """Format `fields` as `key=value`."""
    template, template_characters, separators = _template(tuple(fields))
    line = template % tuple(fields.values())
    is_plain = (
        len(line) <= template_characters + MAX_VALUE_CHARACTERS
        and line.encode(errors="backslashreplace").translate(None, _PLAIN_BYTES) == separators
        and "= " not in line
        and line[-1] != "="
    )
    return line if is_plain else " ".join([f"{key}={to_logfmt(value)}" for key, value in fields.items()])


@cache
def _template(keys: tuple[str, ...]) -> tuple[str, int, bytes]:
    """Return the format of a line with values for `keys`, its length without them, and its characters between."""
    return (
        " ".join([f"{key}=%s" for key in keys]),
        sum(map(len, keys)) + 2 * len(keys) - 1,
        b" ".join([b"="] * len(keys)),
    )


def to_logfmt(value: str | float) -> str:
    """Format a logfmt value: cut to `MAX_VALUE_CHARACTERS`, quoted and escaped where it is not plain."""
    if not isinstance(value, str):
        return str(value)
    text = value[:MAX_VALUE_CHARACTERS]
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _cut(fields: Fields) -> dict[str, Any]:
    return {key: value[:MAX_VALUE_CHARACTERS] if isinstance(value, str) else value for key, value in fields.items()}
