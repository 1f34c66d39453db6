"""The configuration as it may be shown: everything but what is secret."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from service.config.schema import Config
from service.config.secrets import MASK, SECRET_SECTIONS, URL_SECRETS

_SECRET_WORDS = ("token", "password", "secret", "apikey", "authorization", "credential")
_PYDANTICS_MASK = "**********"


def describe_config(config: Config, path: Path | None) -> dict[str, Any]:
    """`config` as it is in force, defaults included, and where it comes from; secrets are replaced by `MASK`.

    `hash` stands for what is shown: a changed secret does not change it.
    """
    shown = _masked(config.model_dump(mode="json", by_alias=True))
    whole = orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)
    view: dict[str, Any] = {
        "exists": path is not None and path.exists(),
        "valid": True,
        "config": shown,
        "hash": hashlib.sha256(whole).hexdigest(),
        "issues": [],
    }
    if path is not None:
        view["path"] = str(path)
    return view


def _masked(value: Any, *, secret: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            key: _masked(item, secret=secret or key in SECRET_SECTIONS or (_is_secret(key) and isinstance(item, str)))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item, secret=secret) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if secret or value == _PYDANTICS_MASK:
        return MASK
    return URL_SECRETS.sub(MASK, value) if isinstance(value, str) else value


def _is_secret(key: str) -> bool:
    return any(word in key.lower().replace("_", "").replace("-", "") for word in _SECRET_WORDS)
