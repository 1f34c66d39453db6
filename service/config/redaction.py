"""The configuration in force, without its secrets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from service.config.schema import Config
from service.config.secrets import mask_secrets


def describe_config(config: Config, path: Path | None) -> dict[str, Any]:
    """Return `config` with its defaults and without its secrets, and the file it comes from.

    `hash` is that of the masked values: a changed secret does not change it.
    """
    shown = mask_secrets(config.model_dump(mode="json", by_alias=True))
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
