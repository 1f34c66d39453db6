"""Read-only tools for sessions and agents, limited to the sessions that are visible to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import orjson

from service.config.roster import Roster
from service.core.dataclass import record
from service.core.messages import Message, Role
from service.storage.sessions.keys import owner_of
from service.storage.sessions.queries import RecentMessage, SessionOverview
from service.storage.sessions.transcripts import TranscriptStore
from service.tools.tool import ToolAccess, ToolContext, ToolError

#: The visible sessions: the calling one, all of the calling agent, or all.
Visibility = Literal["self", "agent", "all"]

MAX_SESSIONS = 100
MAX_MESSAGES = 100
MAX_MESSAGE_CHARACTERS = 4_000
MAX_HISTORY_CHARACTERS = 40_000

_DEFAULT_LIMIT = 20
_TIMEOUT_SECONDS = 20.0
_ACCESS = ToolAccess(("group:sessions", "group:openclaw"), by_default=True)
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_KEY = {"type": "string", "minLength": 1, "description": "The key of a session, as returned by sessions_list."}


@record
class VisibleSessions:
    """The sessions of `store` that the caller of a tool may see: of a named key, those of that key."""

    store: TranscriptStore
    visibility: Visibility

    def list(self, context: ToolContext, limit: int) -> tuple[SessionOverview, ...]:
        """Return at most `limit` sessions, most recently used first."""
        if self.visibility == "self":
            own = self.store.get_session(context.session_key)
            return () if own is None else (own,)
        agent_id = None if self.visibility == "all" else context.agent_id
        return self.store.list_sessions(agent_id, limit, owner=owner_of(context.session_key))

    def get(self, key: str, context: ToolContext) -> SessionOverview:
        """Return the session `key`. Raises the same `ToolError` for unknown and for invisible sessions."""
        session = self.store.get_session(key)
        if session is None or not self._may_see(session, context):
            raise ToolError(f'No visible session "{key[:200]}" with messages. Use sessions_list.')
        return session

    def _may_see(self, session: SessionOverview, context: ToolContext) -> bool:
        if session.key == context.session_key:
            return True
        if owner_of(context.session_key) not in (None, owner_of(session.key)):
            return False
        if self.visibility == "all":
            return True
        return self.visibility == "agent" and session.agent_id == context.agent_id


class SessionStatusTool:
    """`session_status`: a summary of one session."""

    name: ClassVar = "session_status"
    access: ClassVar = _ACCESS
    description = "Show the length of a session, the model that answered last, and its token usage."
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"session_key": {**_KEY, "description": "The session key; the current session by default."}},
        "additionalProperties": False,
    }
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = True

    def __init__(self, sessions: VisibleSessions) -> None:
        self._sessions = sessions

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the session as JSON. Raises `ToolError`."""
        key = arguments.get("session_key", context.session_key)
        if key == context.session_key and self._sessions.store.get_session(key) is None:
            return _to_text({"session_key": key, "agent": context.agent_id, "messages": 0})
        return _to_text(_describe(self._sessions.get(key, context)))


class SessionsListTool:
    """`sessions_list`: the visible sessions."""

    name: ClassVar = "sessions_list"
    access: ClassVar = _ACCESS
    description = "List sessions, most recently used first."
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_SESSIONS,
                "description": f"Maximum number of sessions; {_DEFAULT_LIMIT} by default.",
            }
        },
        "additionalProperties": False,
    }
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = True

    def __init__(self, sessions: VisibleSessions) -> None:
        self._sessions = sessions

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the sessions as JSON."""
        found = self._sessions.list(context, int(arguments.get("limit", _DEFAULT_LIMIT)))
        return _to_text({"sessions": [_describe(session) for session in found]})


class SessionsHistoryTool:
    """`sessions_history`: the latest messages of a session."""

    name: ClassVar = "sessions_history"
    access: ClassVar = _ACCESS
    description = "Return the last messages of a session, oldest first. Long messages are cut, images omitted."
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "session_key": _KEY,
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_MESSAGES,
                "description": f"Maximum number of messages; {_DEFAULT_LIMIT} by default.",
            },
            "include_tools": {"type": "boolean", "description": "Include tool calls and results; false by default."},
        },
        "required": ["session_key"],
        "additionalProperties": False,
    }
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = True

    def __init__(self, sessions: VisibleSessions) -> None:
        self._sessions = sessions

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the messages as JSON. Raises `ToolError`."""
        session = self._sessions.get(arguments["session_key"], context)
        limit, with_tools = int(arguments.get("limit", _DEFAULT_LIMIT)), bool(arguments.get("include_tools", False))
        recent = self._sessions.store.load_recent_messages(session.key, limit)
        entries: list[dict[str, Any]] = []
        room = MAX_HISTORY_CHARACTERS
        for stored in recent:
            if with_tools or not _is_about_tools(stored):
                entries.append(_to_entry(stored, with_tools=with_tools))
                room -= len(_to_text(entries[-1]))
            if room < 0 and len(entries) > 1:
                entries.pop()
                break
        return _to_text({"session_key": session.key, "of": session.message_count, "messages": entries[::-1]})


class AgentsListTool:
    """`agents_list`: the agents of this gateway."""

    name: ClassVar = "agents_list"
    access: ClassVar = ToolAccess((*_ACCESS.groups, "group:agents"), by_default=True)
    description = "List the agents of this gateway."
    parameters = _NO_ARGUMENTS
    timeout_seconds = _TIMEOUT_SECONDS
    parallel = True

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Return the agents as JSON."""
        del arguments
        agents = [
            {
                "id": agent.id,
                "name": agent.name,
                "default": agent is self._roster.default,
                "you": agent.id == context.agent_id,
            }
            for agent in self._roster.agents
            if context.agents is None or agent.id in context.agents
        ]
        return _to_text({"agents": agents})


def _describe(session: SessionOverview) -> dict[str, Any]:
    return {
        "session_key": session.key,
        "session_id": session.session_id,
        "agent": session.agent_id,
        "messages": session.message_count,
        "model": session.model,
        "input_tokens": session.usage.input_tokens,
        "output_tokens": session.usage.output_tokens,
        "started": _to_time(session.created_at_ms),
        "last_used": _to_time(session.updated_at_ms),
    }


def _is_about_tools(stored: RecentMessage) -> bool:
    return stored.role == Role.TOOL or (stored.message is not None and not stored.message.parts)


def _to_entry(stored: RecentMessage, *, with_tools: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": stored.role, "at": _to_time(stored.at_ms)}
    if stored.message is None:
        return {**entry, "text": "[a message that is too long to show]"}
    entry["text"] = _shown_text(stored.message)
    if with_tools and stored.message.tool_calls:
        entry["tool_calls"] = [
            {"name": call.name, "arguments": _cut(call.arguments)} for call in stored.message.tool_calls
        ]
    return entry


def _shown_text(message: Message) -> str:
    return _cut(message.text) + (" [with an image]" if message.has_image else "")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[:MAX_MESSAGE_CHARACTERS]} [cut]"


def _to_time(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _to_text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
