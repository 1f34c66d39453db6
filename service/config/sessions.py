"""The configuration's sections on sessions: which one a request belongs to, and how long they are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from service.config.problems import Section
from service.config.types import HeaderName, Positive, Span

#: Headers with the id of a chat, by the name of the chat program.
HEADER_PRESETS = {"openwebui": "x-openwebui-chat-id", "librechat": "x-librechat-conversation-id"}

_RESERVED_HEADERS = ("agent", "subagent", "cron", "acp")  # a session key that begins with one has another meaning

_DAY_SECONDS = 24 * 60 * 60


def _or_none(value: object) -> object:
    return None if value is False else value


class MaintenanceConfig(Section):
    """Deletion of old sessions and runs. Times are such as "30d" or "12h"; `false` is never."""

    mode: Literal["enforce", "warn"] = "enforce"
    """"warn" logs what would be deleted, and deletes nothing."""
    prune_after: Span = None
    """Time since its last use after which a named session is deleted."""
    max_entries: Annotated[Positive | None, BeforeValidator(_or_none)] = None
    """Sessions to keep of each agent, the last used first."""
    stateless_after: Span = 7 * _DAY_SECONDS
    """Time since its last use after which the session of a request without a session key or user is deleted."""
    runs_after: Span = 30 * _DAY_SECONDS
    """Time since its end after which the record of a run is deleted."""


def _chat_header(name: str) -> str:
    header = HEADER_PRESETS.get(name.lower(), name.lower())
    if header in _RESERVED_HEADERS or header.startswith("x-openclaw-"):
        raise ValueError("must be a header of the chat program; this name has a meaning of its own")
    return header


class HttpSessionsConfig(Section):
    """The session of an HTTP request without `x-openclaw-session-key`."""

    headers: tuple[Annotated[HeaderName, AfterValidator(_chat_header)], ...] = ()
    """Headers with the id of a chat, most important first: the first one that is present selects the session
    `agent:<id>:<header>:<value>`. "openwebui" means `x-openwebui-chat-id`, "librechat" means
    `x-librechat-conversation-id`."""
    user: Literal["session", "ignore"] = "session"
    """"session": the field `user` selects a session, in which all chats of that user meet. "ignore": it does not."""


class SessionConfig(Section):
    """Sessions."""

    queue_timeout_ms: Positive | None = None
    """Longest wait of a run for its session, in milliseconds; then the answer is 409 `session_busy`. Unset: the
    agent's `timeoutSeconds`."""
    maintenance: MaintenanceConfig = MaintenanceConfig()
    """Deletion of old sessions and runs."""
