"""Logging of a serving process: standard error, and the access log with one logfmt line per request.

An access line says what was requested and how it ended, never any content: no query, headers or body. Whatever a
client puts into a value, the entry stays one line of bounded length.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

MAX_VALUE_CHARACTERS = 256

_access_log = logging.getLogger("openclaw.access")
_PLAIN = re.compile(r"[\w.,:;/@%+*~!?&-]+", re.ASCII)


class _LineFormatter(logging.Formatter):
    """The standard format, with the time formatted once per second."""

    _cached = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        del datefmt
        return self.format_time(record.created)

    def format_time(self, created: float) -> str:
        second, text = self._cached
        if second != int(created):
            text = time.strftime(self.default_time_format, self.converter(created))
            self._cached = int(created), text
        return f"{text},{int(created % 1 * 1000):03d}"


class _AccessHandler(logging.StreamHandler[Any]):
    """Writes access lines like other lines, but without a record for each."""

    def __init__(self, formatter: _LineFormatter, *, with_process: bool) -> None:
        super().__init__()
        self.formatter: _LineFormatter = formatter
        self._with_process = with_process

    def write(self, line: str) -> None:
        """Write `line`. What cannot be written is lost, as other lines are."""
        process = f"[{os.getpid()}]" if self._with_process else ""
        with suppress(OSError, ValueError):
            self.stream.write(f"{self.formatter.format_time(time.time())} INFO {_access_log.name}{process} {line}\n")
            self.stream.flush()


def configure_logging(*, with_process: bool = False) -> None:
    """Send every logger's lines to standard error; `with_process` adds the process id to each."""
    name = "%(name)s[%(process)d]" if with_process else "%(name)s"
    handler = logging.StreamHandler()
    formatter = _LineFormatter(f"%(asctime)s %(levelname)s {name} %(message)s")
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    _access_log.handlers, _access_log.propagate = [_AccessHandler(formatter, with_process=with_process)], False
    logging.logThreads = logging.logMultiprocessing = False  # the format uses neither
    logging.logProcesses = with_process
    for repeating in ("connexion", "werkzeug"):  # they repeat the access log and the responses
        logging.getLogger(repeating).setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # the steps of a first start are noise


#: The key of a request's `AccessEntry` in its WSGI environ.
ENTRY_KEY = "openclaw.access_entry"


@dataclass(slots=True)
class AccessEntry:
    """The application's part of an access line.

    `route` is the path as in the contract, `status` replaces the one that was sent, `error` is an error code,
    `key` is the id of the caller's API key, `replaced_tools` are the agent's tools that the caller's functions
    replaced.
    """

    client: str | None = None
    key: str | None = None
    route: str | None = None
    agent: str | None = None
    run: str | None = None
    status: int | None = None
    error: str | None = None
    replaced_tools: str | None = None


def access_entry(environ: MutableMapping[str, Any]) -> AccessEntry:
    """The entry of the request with this WSGI environ."""
    entry = environ.get(ENTRY_KEY)
    if entry is None:  # another server than ours
        entry = environ[ENTRY_KEY] = AccessEntry()
    return entry


def write_access_line(**fields: str | float | None) -> None:
    """Log `fields` in the order given, without those that are None."""
    if not _access_log.isEnabledFor(logging.INFO):
        return
    line = " ".join([f"{key}={to_logfmt(value)}" for key, value in fields.items() if value is not None])
    handler = _access_log.handlers[0] if _access_log.handlers else None
    if isinstance(handler, _AccessHandler):
        handler.write(line)
    else:
        _access_log.info("%s", line)


def to_logfmt(value: str | float) -> str:
    """Format a logfmt value: cut to `MAX_VALUE_CHARACTERS`, quoted and escaped where it is not plain."""
    if not isinstance(value, str):
        return str(value)
    text = value[:MAX_VALUE_CHARACTERS]
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
