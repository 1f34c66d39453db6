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


def write_access_line(**fields: object) -> None:
    """Log `fields` in their order; those that are None are left out."""
    if _log.isEnabledFor(logging.INFO):
        _log.info(" ".join([f"{key}={to_logfmt(value)}" for key, value in fields.items() if value is not None]))


def to_logfmt(value: object) -> str:
    """`value` cut to `MAX_VALUE_CHARACTERS`, in quotes and escaped where it is not plain."""
    text = str(value)[:MAX_VALUE_CHARACTERS]
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
