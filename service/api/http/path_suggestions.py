"""Suggestions for unknown paths: spelling variants of known ones, and paths of OpenAI's API that are not offered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_API = "/v1"
_MAX_CHARACTERS = 1000
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
        "threads",
        "uploads",
        "vector_stores",
        "videos",
    ]
)
_PROVIDERS = "Send such requests to a model provider."
#: What does the same.
_REMEDIES = {
    **dict.fromkeys(("assistants", "completions", "edits", "engines", "threads"), f"Use {_COMPLETIONS}."),
    "conversations": "Name a session in `conversation` of POST /v1/responses.",
}
#: Operations of OpenAI's API whose paths are like that of a response.
_BESIDE_RESPONSES = {
    f"{_API}/responses/compact": "The gateway summarises conversations by itself.",
    f"{_API}/responses/input_tokens": "The usage of a response has its tokens.",
}


def suggest_path(path: str, is_known: Callable[[str], bool]) -> str | None:
    """Return a sentence that names the path which was probably meant, if there is one.

    `is_known` returns True for a path of this gateway.
    """
    for candidate in _variants(path) if len(path) <= _MAX_CHARACTERS else ():
        # What follows these is one of a few names, which the router does not look at.
        if candidate not in (path, "/") and not candidate.startswith(("/docs/", "/ui/")) and is_known(candidate):
            return f"Use {candidate}."
    part = next(iter(_relative(path).strip("/").split("/")))
    if part in _NOT_OFFERED:
        return f"OpenAI's {_API}/{part} is not offered. {_REMEDIES.get(part, _PROVIDERS)}"
    return None


def explain_path(path: str) -> str | None:
    """Return why an operation of OpenAI's API at a path of another operation is not offered, if `path` is one's."""
    remedy = _BESIDE_RESPONSES.get(_normalize(path))
    return None if remedy is None else f"OpenAI's {_normalize(path)} is not offered. {remedy}"


def _variants(path: str) -> Iterator[str]:
    yield _normalize(path)
    yield _API + _relative(path)
    yield _relative(path)


def _normalize(path: str) -> str:
    return re.sub("/+", "/", path[:_MAX_CHARACTERS]).rstrip("/") or "/"


def _relative(path: str) -> str:
    """Return what follows the last `/v1`, which may be absent, doubled, or behind a prefix such as `/api`."""
    normalized = _normalize(path)
    start = f"{normalized}/".rfind(f"{_API}/")
    return normalized if start < 0 else normalized[start + len(_API) :] or "/"
