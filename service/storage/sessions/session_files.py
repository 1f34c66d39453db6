"""Read sessions from files: `openclaw sessions export`, and OpenClaw's transcripts.

Whatever is not understood is refused with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import orjson

from service.core.messages import ApprovalDecision, Image, Message, Part, Role, Text, ToolApproval, ToolCall, Usage
from service.core.usage import NANO
from service.storage.runs.rows import to_title
from service.storage.sessions.importing import ImportedMessage, ImportedSession, ImportedSummary
from service.storage.sessions.tree import ROOT


class SessionFileError(Exception):
    """A line of a file is not understood; the text has its number."""


@contextmanager
def at_line(number: int) -> Iterator[None]:
    """Raise `SessionFileError` for what cannot be read in the block, which reads line `number`."""
    try:
        yield
    except orjson.JSONDecodeError:
        raise SessionFileError(f"line {number}: it is no JSON") from None
    except KeyError as error:
        raise SessionFileError(f"line {number}: {error.args[0]} is missing") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise SessionFileError(f"line {number}: {error}") from None


def read_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line. Raises `SessionFileError`."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            with at_line(number):
                value = orjson.loads(line)
                if not isinstance(value, dict):
                    raise TypeError("it is no JSON object")
                yield number, value


def parse_export(lines: Iterable[tuple[int, Mapping[str, Any]]]) -> list[ImportedSession]:
    """Read what `openclaw sessions export` has written. Raises `SessionFileError`."""
    found: dict[str, ImportedSession] = {}
    for number, line in lines:
        with at_line(number):
            kind = line["object"]
            if kind == "session":
                if line["key"] in found:
                    raise ValueError(f"the session {line['key']} came before")
                found[line["key"]] = _to_session(number, line)
            elif kind in ("session.message", "session.summary"):
                if line["session_key"] not in found:
                    raise ValueError(f"its session {line['session_key']} has not come yet")
                _add(found[line["session_key"]], kind, line)
            else:
                raise ValueError(f'"{kind}" is not a type of object in an export')
    for session in found.values():
        with at_line(session.line):
            if (fault := session.fault()) is not None:
                raise ValueError(fault)
    return list(found.values())


def to_ms(text: str) -> int:
    """Return the ms since 1970 of a time in ISO 8601."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _to_session(number: int, line: Mapping[str, Any]) -> ImportedSession:
    return ImportedSession(
        line=number,
        key=line["key"],
        session_id=line["id"],
        agent_id=line["agent"],
        created_at_ms=to_ms(line["created_at"]),
        updated_at_ms=to_ms(line["last_used_at"]),
        title=line["title"],
        model=line["model"],
        last_run_id=line["last_run_id"],
        usage=_to_usage(line["usage"]),
        stateless=line["stateless"],
        least_messages=max(
            int(line.get("message_count") or 0), *(one["index"] + 1 for one in line.get("branches", ())), 0
        ),
    )


def _add(session: ImportedSession, kind: str, line: Mapping[str, Any]) -> None:
    message, at_ms = _to_message(line), to_ms(line["created_at"])
    if kind == "session.summary":
        session.summaries.append(ImportedSummary(message, line["covers"], line["run_id"], at_ms))
        return
    if line["index"] != len(session.messages):
        raise ValueError(f"its index is {line['index']}, and the next one would be {len(session.messages)}")
    usage = _to_usage(line["usage"]) if "usage" in line else None
    parent = ROOT if line["parent"] is None else line["parent"]
    ids = parent, line["run_id"], at_ms, line.get("model"), usage, line.get("run_error")
    session.messages.append(ImportedMessage(message, *ids))


def _to_message(line: Mapping[str, Any]) -> Message:
    approval = line["approval"]
    return Message(
        Role(line["role"]),
        tuple(map(_to_part, line["content"])),
        line["name"],
        tuple(ToolCall(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in line["tool_calls"]),
        line["tool_call_id"],
        cut_off=line.get("cut_off"),
        duration_ms=line["duration_ms"],
        approval=None if approval is None else _to_approval(approval),
        failed=line.get("failed", False),
    )


def _to_part(part: Mapping[str, Any]) -> Part:
    if part["type"] == "text":
        return Text(part["text"])
    if part["type"] == "image_url":
        return Image(part["image_url"]["url"], part["image_url"]["detail"])
    raise ValueError(f'"{part["type"]}" is not a type of content in an export')


def _to_approval(line: Mapping[str, Any]) -> ToolApproval:
    decision = ApprovalDecision(line["decision"])
    return ToolApproval(line["id"], decision, line["decided_by"], to_ms(line["decided_at"]))


def _to_usage(line: Mapping[str, Any]) -> Usage:
    cost = line.get("cost")
    nano = None if cost is None else round(cost * NANO)
    return Usage(line["input_tokens"], line["output_tokens"], line["cached_tokens"], cost_nano=nano)


#: Lines of OpenClaw's transcripts that are no part of the conversation.
_BESIDE = ("model_change", "thinking_level_change", "custom", "label", "session_info")


class OpenClawTranscript:
    """Reads a transcript of OpenClaw into `session`: its messages, their tree, and its summaries."""

    def __init__(self, key_of: Callable[[str], str], agent_id: str, new_run_id: Callable[[], str]) -> None:
        self._key_of = key_of
        self._agent_id = agent_id
        self._new_run_id = new_run_id
        self._places: dict[str, int] = {}  # of each line's latest message, itself or before it
        self._parents: dict[str, int] = {}  # of each line the latest message before it
        self._run_id = new_run_id()
        self.session: ImportedSession | None = None

    def parse(self, lines: Iterable[tuple[int, Mapping[str, Any]]]) -> ImportedSession:
        """Return the session. Raises `SessionFileError`."""
        for number, line in lines:
            with at_line(number):
                self._read(number, line)
        if self.session is None:
            raise SessionFileError("line 1: it is empty")
        with at_line(self.session.line):
            if (fault := self.session.fault()) is not None:
                raise ValueError(fault)
        self.session.title = to_title(tuple(one.message for one in self.session.messages))
        return self.session

    def _read(self, number: int, line: Mapping[str, Any]) -> None:
        kind = line["type"]
        if self.session is None:
            self.session = self._begin(number, line)
            return
        parent = ROOT if line["parentId"] is None else self._places[line["parentId"]]
        self._places[line["id"]] = self._parents[line["id"]] = parent
        at_ms = to_ms(line["timestamp"])
        message = line["message"] if kind == "message" else {**line, "role": kind} if kind in _INSERTED_LINES else None
        if message is not None and _is_hidden(message):
            self.session.notes.append(f"line {number} is left out: OpenClaw does not show it to models")
        elif message is not None:
            if not _is_empty(message):
                self._add(self.session, message, parent, at_ms)
                self._places[line["id"]] = len(self.session.messages) - 1
        elif kind == "compaction":
            summary = Message(Role.USER, (Text(line["summary"]),))
            covers = self._parents[line["firstKeptEntryId"]] + 1
            if covers > 0:
                self.session.summaries.append(ImportedSummary(summary, covers, self._run_id, at_ms))
        elif kind not in _BESIDE:
            raise ValueError(f'lines of the type "{kind}" cannot be imported')
        self.session.updated_at_ms = max(self.session.updated_at_ms, at_ms)

    def _begin(self, number: int, line: Mapping[str, Any]) -> ImportedSession:
        if line["type"] != "session":
            raise ValueError("a transcript begins with its session")
        at_ms, key = to_ms(line["timestamp"]), self._key_of(line["id"])
        none = None, None, None, Usage()
        return ImportedSession(number, key, line["id"], self._agent_id, at_ms, at_ms, *none)

    def _add(self, session: ImportedSession, given: Mapping[str, Any], parent: int, at_ms: int) -> None:
        message = _READERS[given["role"]](given) if given["role"] in _READERS else None
        if message is None:
            raise ValueError(f'messages of the role "{given["role"]}" cannot be imported')
        if given["role"] == "user":  # what OpenClaw inserts belongs to the turn that it comes in
            self._run_id = self._new_run_id()
        if message.role is Role.TOOL:
            _check_call(session, parent)
        session.last_run_id = self._run_id
        model, usage = None, None
        if message.role is Role.ASSISTANT and "model" in given:
            session.model = model = f"{given.get('provider', 'unknown')}/{given['model']}"
            usage = _openclaw_usage(given.get("usage") or {})
            session.usage += usage
        session.messages.append(ImportedMessage(message, parent, self._run_id, at_ms, model, usage))


def _check_call(session: ImportedSession, parent: int) -> None:
    """Raise `ValueError` for a result of a tool that does not follow its call and other results."""
    while parent > ROOT and session.messages[parent].message.role is Role.TOOL:
        parent = session.messages[parent].parent
    if parent == ROOT:
        raise ValueError("no call of the tool comes before its result")
    if session.messages[parent].message.role is not Role.ASSISTANT:
        raise ValueError("another message stands between the call of the tool and its result")


def _is_hidden(given: Mapping[str, Any]) -> bool:
    """True for a command that the user ran and kept from the model."""
    return given["role"] == "bashExecution" and given.get("excludeFromContext") is True


def _is_empty(given: Mapping[str, Any]) -> bool:
    """True for a branch without a summary, of which OpenClaw shows the model nothing."""
    return given["role"] in _BRANCH_SUMMARIES and not given["summary"]


def _openclaw_usage(given: Mapping[str, Any]) -> Usage:
    read = given.get("cacheRead", 0)
    tokens = given.get("input", 0) + read + given.get("cacheWrite", 0)
    cost = (given.get("cost") or {}).get("total")
    return Usage(tokens, given.get("output", 0), read, cost_nano=None if cost is None else round(cost * NANO))


def _openclaw_parts(content: Any) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Part] = []
    for one in content:
        if one["type"] == "text":
            parts.append(Text(one["text"]))
        elif one["type"] == "image":
            parts.append(Image(f"data:{one['mimeType']};base64,{one['data']}"))
        elif one["type"] not in ("thinking", "toolCall"):
            raise ValueError(f'content of the type "{one["type"]}" cannot be imported')
    return tuple(parts)


def _from_user(given: Mapping[str, Any]) -> Message:
    return Message(Role.USER, _openclaw_parts(given["content"]))


def _from_assistant(given: Mapping[str, Any]) -> Message:
    content = given["content"]
    called = [one for one in content if not isinstance(content, str) and one["type"] == "toolCall"]
    calls = tuple(ToolCall(one["id"], one["name"], orjson.dumps(one["arguments"]).decode()) for one in called)
    return Message(Role.ASSISTANT, _openclaw_parts(content), tool_calls=calls)


def _from_tool(given: Mapping[str, Any]) -> Message:
    failed = given.get("isError") is True
    return Message(Role.TOOL, _openclaw_parts(given["content"]), tool_call_id=given["toolCallId"], failed=failed)


def _from_command(given: Mapping[str, Any]) -> Message:
    """Read a command that the user ran: the model is shown it, with its output, as a message of the user."""
    output, status = given["output"], given.get("exitCode")
    lines = [f"Ran `{given['command']}`", f"```\n{output}\n```" if output else "(no output)"]
    if given.get("cancelled"):
        lines.append("\n(command cancelled)")
    elif status:
        lines.append(f"\nCommand exited with code {status}")
    if given.get("truncated") and given.get("fullOutputPath"):
        lines.append(f"\n[Output truncated. Full output: {given['fullOutputPath']}]")
    return Message(Role.USER, (Text("\n".join(lines)),))


def _from_branch_summary(given: Mapping[str, Any]) -> Message:
    """Read what OpenClaw says about a branch that was left; the lines around it are its own."""
    lead = "The following is a summary of a branch that this conversation came back from:"
    return Message(Role.USER, (Text(f"{lead}\n\n<summary>\n{given['summary']}</summary>"),))


#: What OpenClaw puts before the model as a message of the user, by the types of lines and the roles of messages.
_INSERTED: Mapping[str, Callable[[Mapping[str, Any]], Message]] = {
    "bashExecution": _from_command,
    "custom": _from_user,
    "custom_message": _from_user,
    "hookMessage": _from_user,
    "branchSummary": _from_branch_summary,
    "branch_summary": _from_branch_summary,
}
_BRANCH_SUMMARIES = ("branchSummary", "branch_summary")
_INSERTED_LINES = ("custom_message", "branch_summary")
_READERS = {"user": _from_user, "assistant": _from_assistant, "toolResult": _from_tool, **_INSERTED}
