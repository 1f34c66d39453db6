"""Mask the secrets in configuration data, by their keys alone."""

from __future__ import annotations

import re
from typing import Any

MASK = "__OPENCLAW_REDACTED__"

_SECRET_KEY = re.compile(
    r"(?:token|password|passwd|passphrase|secret|credentials?|authorization|(?:api|private|secret)_?key)$",
    re.IGNORECASE,
)
#: Objects and lists whose every value may be a secret.
_SECRET_SECTIONS = frozenset({"headers", "env", "args"})
#: In a URL: the user information and the query.
_URL_SECRETS = re.compile(r"(?<=://)[^/?#\s]*(?=@)|(?<=\?)[^#\s]+")
_VARIABLE = re.compile(r"\$\{[A-Z_][A-Z0-9_]*\}")
#: What pydantic writes in place of a secret.
_PYDANTICS_MASK = "**********"


def mask_secrets(value: Any, key: str = "") -> Any:
    """Return `value`, which is at `key`, with `MASK` in place of every text and number that may be a secret.

    A `${NAME}` alone is shown: it is the place of a secret, not the secret.
    """
    return _masked(value, secret=_is_secret(key))


def _is_secret(key: str) -> bool:
    return key in _SECRET_SECTIONS or _SECRET_KEY.search(key) is not None


def _masked(value: Any, *, secret: bool) -> Any:
    if isinstance(value, dict):
        return {name: _masked(item, secret=secret or _is_secret(str(name))) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, secret=secret) for item in value]
    if value == _PYDANTICS_MASK:
        return MASK
    if secret and value is not None and not isinstance(value, bool):
        return value if isinstance(value, str) and _VARIABLE.fullmatch(value) else MASK
    return _URL_SECRETS.sub(MASK, value) if isinstance(value, str) else value
