"""Suggestions for unknown paths: spelling variants of known ones, and paths of OpenAI's API that are not offered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_API = "/v1"
_COMPLETIONS = "/v1/chat/completions"
#: The first part of paths of OpenAI's API that this gateway does not have.
_NOT_OFFERED = frozenset(
    [
        "assistants",
        "audio",
        "batches",
        "completions",
        "containers",
        "conversations",
        "edits",
        "engines",
        "evals",
        "files",
        "fine_tuning",
        "images",
        "moderations",
        "organization",
        "projects",
        "realtime",
        "responses",
        "threads",
        "uploads",
        "vector_stores",
        "videos",
    ]
)
#: Those that return a model's text, as chat completions do.
_REPLACED = frozenset(["assistants", "completions", "conversations", "edits", "engines", "responses", "threads"])


def suggest_path(path: str, is_known: Callable[[str], bool]) -> str | None:
    """Return a sentence that names the path which was probably meant, if there is one.

    `is_known` returns True for a path of this gateway.
    """
    for candidate in _variants(path):
        if candidate != path and is_known(candidate):
            return f"Use {candidate}."
    part = next(iter(_relative(path).strip("/").split("/")))
    if part in _NOT_OFFERED:
        remedy = f"Use {_COMPLETIONS}." if part in _REPLACED else "Send such requests to a model provider."
        return f"OpenAI's {_API}/{part} is not offered. {remedy}"
    return None


def _variants(path: str) -> Iterator[str]:
    yield _normalize(path)
    yield _API + _relative(path)
    yield _relative(path)


def _normalize(path: str) -> str:
    return re.sub("/+", "/", path[:1000]).rstrip("/") or "/"


def _relative(path: str) -> str:
    """Return what follows the last `/v1`, which may be absent, doubled, or behind a prefix such as `/api`."""
    normalized = _normalize(path)
    start = f"{normalized}/".rfind(f"{_API}/")
    return normalized if start < 0 else normalized[start + len(_API) :] or "/"
