"""Logging of a serving process: standard error, and the access log with one logfmt line per request.

An access line says what was requested and how it ended, never any content: no query, headers or body. Whatever a
client puts into a value, the entry stays one line of bounded length.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import MutableMapping
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
        second, text = self._cached
        if second != int(record.created):
            text = time.strftime(self.default_time_format, self.converter(record.created))
            self._cached = int(record.created), text
        return f"{text},{int(record.msecs):03d}"


def configure_logging(*, with_process: bool = False) -> None:
    """Send every logger's lines to standard error; `with_process` adds the process id to each."""
    name = "%(name)s[%(process)d]" if with_process else "%(name)s"
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter(f"%(asctime)s %(levelname)s {name} %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
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

    `status` replaces the one that was sent, `error` is an error code, `replaced_tools` are the agent's tools that the
    caller's functions replaced.
    """

    client: str | None = None
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
    # Equivalent to `info(line)`, without searching the stack for the calling line.
    _access_log.handle(logging.LogRecord(_access_log.name, logging.INFO, __file__, 0, line, None, None))


def to_logfmt(value: str | float) -> str:
    """Format a logfmt value: cut to `MAX_VALUE_CHARACTERS`, quoted and escaped where it is not plain."""
    if not isinstance(value, str):
        return str(value)
    text = value[:MAX_VALUE_CHARACTERS]
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
