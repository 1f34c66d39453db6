"""The access log: one line per request, `key=value` in logfmt's way.

A line tells what was asked and how it went, never what was said: no query, no header, no body. Whatever a client puts
into a value, a line stays one line of bounded length.
"""

from __future__ import annotations

import json
import logging
import re

MAX_VALUE_CHARACTERS = 256

_log = logging.getLogger("openclaw.access")
_PLAIN = re.compile(r"[\w.,:;/@%+*~!?&-]+", re.ASCII)


def write_access_line(**fields: str | float | None) -> None:
    """Log `fields` in their order; those that are None are left out."""
    if not _log.isEnabledFor(logging.INFO):
        return
    line = " ".join([f"{key}={to_logfmt(value)}" for key, value in fields.items() if value is not None])
    # As `_log.info(line)`, but without looking for the line of code that says so: it is this one.
    _log.handle(logging.LogRecord(_log.name, logging.INFO, __file__, 0, line, None, None))


def to_logfmt(value: str | float) -> str:
    """`value` cut to `MAX_VALUE_CHARACTERS`, in quotes and escaped where it is not plain."""
    if not isinstance(value, str):
        return str(value)
    text = value[:MAX_VALUE_CHARACTERS]
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
