"""Which values of the configuration are secrets, by their keys alone: enough for showing a file to somebody."""

from __future__ import annotations

import re
from typing import Any

MASK = "__OPENCLAW_REDACTED__"

_SECRET_KEY = re.compile(
    r"(?:token|password|passwd|passphrase|secret|credentials?|(?:api|private|secret)_?key)$", re.IGNORECASE
)
#: Objects whose every value may be a secret.
SECRET_SECTIONS = frozenset({"headers", "env", "args"})
#: In an address: who asks, and what is asked.
URL_SECRETS = re.compile(r"(?<=://)[^/?#\s]*(?=@)|(?<=\?)[^#\s]+")
_VARIABLE = re.compile(r"\$\{[A-Z_][A-Z0-9_]*\}")


def mask_secrets(value: Any, key: str = "") -> Any:
    """`value`, which stands under `key`, with a mask for each text that may be a secret.

    A `${NAME}` alone is shown: it says where the secret is, not what it is.
    """
    if isinstance(value, dict):
        inside = key in SECRET_SECTIONS or _SECRET_KEY.search(key)
        return {name: mask_secrets(item, "secret" if inside else str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [mask_secrets(item, "secret" if key in SECRET_SECTIONS else key) for item in value]
    if not _SECRET_KEY.search(key) or value is None or isinstance(value, bool):
        return URL_SECRETS.sub(MASK, value) if isinstance(value, str) else value
    return value if isinstance(value, str) and _VARIABLE.fullmatch(value) else MASK
