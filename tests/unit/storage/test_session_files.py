"""Transcripts of OpenClaw, line by line: what becomes a message, of which turn, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import pytest

from service.storage.sessions.importing import ImportedSession
from service.storage.sessions.session_files import OpenClawTranscript, SessionFileError

AT = "2026-03-01T10:00:00.000Z"
CALL = {"type": "toolCall", "id": "c1", "name": "read", "arguments": {}}
USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
CALLING = {"role": "assistant", "content": [CALL]}
RESULT = {"role": "toolResult", "toolCallId": "c1", "content": [{"type": "text", "text": "4"}]}
COMMAND = {"role": "bashExecution", "command": "ls", "output": "a"}
HIDDEN = {**COMMAND, "excludeFromContext": True}


def line(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": AT, **members}


def parse(*given: Mapping[str, Any]) -> ImportedSession:
    """The session of lines that follow each other unless they name a parent; one with a role is a message."""
    lines: list[dict[str, Any]] = [line("session", id="s")]
    for number, one in enumerate(given):
        ids = {"id": f"e{number}", "parentId": f"e{number - 1}" if number else None}
        lines.append({**ids, **(line("message", message=one) if "role" in one and "type" not in one else one)})
    numbers = count()
    return OpenClawTranscript(str, "main", lambda: f"run{next(numbers)}").parse(enumerate(lines, 1))


def texts(session: ImportedSession) -> list[str]:
    return [one.message.text for one in session.messages]


def test_lines_inside_turn_do_not_split_it() -> None:
    inserted = line("custom_message", customType="x", content="From a plugin.")
    session = parse(USER, CALLING, RESULT, inserted, ASSISTANT, COMMAND, USER, ASSISTANT)
    runs = [one.run_id for one in session.messages]
    assert (len(set(runs[:6])), len(set(runs[6:])), runs[5] == runs[6]) == (1, 1, False)
    assert session.last_run_id == runs[-1]


@pytest.mark.parametrize("between", [[COMMAND], [USER], [COMMAND, USER], [USER, COMMAND]])
def test_result_behind_another_message_is_refused(between: Sequence[Mapping[str, Any]]) -> None:
    with pytest.raises(SessionFileError, match="another message stands between the call of the tool and its result"):
        parse(USER, CALLING, *between, RESULT)
    assert len(parse(USER, CALLING, RESULT, RESULT, *between).messages) == 4 + len(between)


def test_result_without_call_before_it_is_refused() -> None:
    with pytest.raises(SessionFileError, match="line 2: no call of the tool comes before its result"):
        parse(RESULT)


def test_hidden_command_between_call_and_result_is_no_message() -> None:
    session = parse(USER, CALLING, HIDDEN, RESULT)
    assert [one.parent for one in session.messages] == [-1, 0, 1]
    assert session.notes == ["line 4 is left out: OpenClaw does not show it to models"]


def test_line_cannot_choose_its_role() -> None:
    session = parse(USER, line("custom_message", customType="x", content="From a plugin.", role="assistant"))
    assert [one.message.role.value for one in session.messages] == ["user", "user"]


def test_message_of_user_is_never_hidden() -> None:
    assert texts(parse({**USER, "excludeFromContext": True})) == ["hi"]


@pytest.mark.parametrize("summary", ["", None])
def test_branch_without_summary_is_no_message(summary: str | None) -> None:
    session = parse(
        USER,
        line("branch_summary", fromId="e0", summary=summary),
        {"role": "branchSummary", "fromId": "e0", "summary": summary},
        ASSISTANT,
    )
    assert texts(session) == ["hi", "Yes."]
    assert session.messages[1].parent == 0


@pytest.mark.parametrize("first_kept", [HIDDEN, line("custom", customType="x"), line("model_change")])
def test_summary_covers_all_before_line_that_is_no_message(first_kept: Mapping[str, Any]) -> None:
    compaction = line("compaction", summary="Greetings.", firstKeptEntryId="e2")
    session = parse(USER, ASSISTANT, first_kept, USER, ASSISTANT, compaction)
    assert [one.covers for one in session.summaries] == [2]


def test_summary_on_branch_covers_what_the_branch_has() -> None:
    branch = line("message", message=USER, parentId="e1")
    compaction = line("compaction", summary="Greetings.", firstKeptEntryId="e4")
    session = parse(USER, ASSISTANT, USER, ASSISTANT, branch, ASSISTANT, compaction)
    assert [one.covers for one in session.summaries] == [2]  # of the branch, message 1 is the last before message 4
