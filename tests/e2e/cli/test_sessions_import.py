"""`openclaw sessions import`: what was exported elsewhere, and transcripts of OpenClaw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.chat import ask, text_of
from support.command import Home
from support.live import live_gateway, stubbed_config
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

SESSION = "0e6f2a4c-27a5-4c7b-9f43-1f2d3c4b5a69"
AT = "2026-03-01T10:00:00.000Z"
BRANCH = "The following is a summary of a branch that this conversation came back from"


@pytest.fixture
def home(module_upstream: Upstream, tmp_path: Path) -> Home:
    home = Home(tmp_path, {})
    config = stubbed_config(module_upstream.url, "stub/play")
    config["agents"]["list"] = [{"id": "main", "tools": {"profile": "full"}}]
    home.write(config)
    return home


def export(home: Home, **env: str) -> str:
    done = home.run("sessions", "export", "--all", **env)
    assert done.status == 0, done.err
    return done.out


def write_lines(path: Path, lines: Sequence[Any]) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def used_export(home: Home, upstream: Upstream) -> str:
    """The export of a gateway with branches, tools, a picture and a failed run."""
    config = json.loads(home.config_path.read_text())
    upstream.answers["play"] = Play(calls(("agents_list", {})), *[calls(text=f"{number}.") for number in range(5)])
    with live_gateway(home.directory / "live", config) as gateway, gateway.client() as client:
        headers = {"x-openclaw-session-key": "tree"}
        first = {"role": "user", "content": "Who is there?"}
        answer = {"role": "assistant", "content": text_of(ask(client, first["content"], headers=headers))}
        for text in ("And then?", "And instead?"):
            messages = [first, answer, {"role": "user", "content": text}]
            client.post("/v1/chat/completions", json={"model": "openclaw", "messages": messages}, headers=headers)
        failing = {"x-openclaw-session-key": "tree", "x-openclaw-model": "stub/drop-after"}
        ask(client, "fail", headers=failing, stream=True)
        ask(client, "alone")
    state = str(gateway.state_dir)
    return export(home, OPENCLAW_STATE_DIR=state, OPENCLAW_CONFIG_PATH=str(home.config_path))


def test_export_is_the_same_after_import_and_nothing_is_imported_twice(
    home: Home, upstream: Upstream, tmp_path: Path, database_url: str | None
) -> None:
    exported = used_export(home, upstream)
    if database_url is not None:
        home.write({**json.loads(home.config_path.read_text()), "state": {"url": database_url}})
    lines = [json.loads(line) for line in exported.splitlines()]
    assert any(len(line.get("branches", ())) > 1 for line in lines)
    assert any("run_error" in line for line in lines)
    file = write_lines(tmp_path / "all.jsonl", exported.splitlines())
    done = home.run("sessions", "import", file, "--json")
    assert (done.status, done.json["messages"]) == (0, sum(line["object"] == "session.message" for line in lines))
    assert export(home) == exported
    again = home.run("sessions", "import", file)
    assert again.status == 1
    assert " exists; --replace deletes it. Nothing was imported." in again.err
    assert "cannot be written" not in again.err
    assert home.run("sessions", "import", file, "--replace").status == 0
    without_ids = [{**line, "id": None} for line in lines]
    assert [{**json.loads(line), "id": None} for line in export(home).splitlines()] == without_ids


@pytest.mark.parametrize(
    ("line", "change", "fault"),
    [
        (2, {"role": "wizard"}, "line 2: 'wizard' is not a valid Role"),
        (3, {"index": 7}, "line 3: its index is 7, and the next one would be 1"),
        (3, {"parent": 5}, "line 1: message 1 follows message 5, which does not come before it"),
        (2, {"object": "other"}, 'line 2: "other" is not a type of object in an export'),
        (1, {"agent": ...}, "line 1: agent is missing"),
        (1, {"message_count": 3}, "line 1: the file has 2 of the session's 3 messages; it was cut"),
        (
            1,
            {"branches": [{"index": 1}, {"index": 4}]},
            "line 1: the file has 2 of the session's 5 messages; it was cut",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(
    home: Home, line: int, change: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    lines = openclaw_like_export()
    changed = {**lines[line - 1], **change}
    lines[line - 1] = {name: value for name, value in changed.items() if value is not ...}
    done = home.run("sessions", "import", write_lines(tmp_path / "broken.jsonl", lines))
    assert (done.status, f"{fault}. Nothing was imported." in done.err) == (1, True), done.err
    assert home.run("sessions", "list", "--json").json["sessions"] == []


@pytest.mark.parametrize("cut", ["message", "line", "rest of a session", "rest of an earlier session"])
def test_cut_export_is_refused_and_replaces_nothing(home: Home, upstream: Upstream, cut: str, tmp_path: Path) -> None:
    lines = used_export(home, upstream).splitlines()
    whole = write_lines(tmp_path / "whole.jsonl", lines)
    assert home.run("sessions", "import", whole).status == 0
    before = export(home)
    starts = [number for number, line in enumerate(lines) if '"object": "session"' in line]
    kept = {
        "message": lines[:-1],
        "line": [*lines[:-1], lines[-1][:-10]],
        "rest of a session": lines[: starts[-1] + 1],
        "rest of an earlier session": lines[: starts[1] - 1] + lines[starts[1] :],
    }[cut]
    faulty = len(kept) if cut == "line" else 1 if "earlier" in cut else starts[-1] + 1
    done = home.run("sessions", "import", write_lines(tmp_path / "cut.jsonl", kept), "--replace")
    assert (done.status, done.out) == (1, "")
    assert f"line {faulty}: " in done.err
    assert ("it is no JSON. Nothing" if cut == "line" else "it was cut. Nothing") in done.err
    assert export(home) == before


def openclaw_like_export() -> list[dict[str, Any]]:
    counts = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0}
    session: dict[str, Any] = {
        "object": "session",
        "id": SESSION,
        "key": "agent:main:x",
        "agent": "main",
        "title": None,
        "model": None,
    }
    session |= {"created_at": AT, "last_used_at": AT, "last_run_id": None, "usage": counts, "stateless": False}
    fields: dict[str, Any] = {
        "name": None,
        "tool_calls": [],
        "tool_call_id": None,
        "duration_ms": None,
        "approval": None,
    }
    message = {"object": "session.message", "session_key": "agent:main:x", "run_id": "r", "created_at": AT, **fields}
    content = [{"type": "text", "text": "hi"}]
    return [
        session,
        {**message, "index": 0, "parent": None, "role": "user", "content": content},
        {**message, "index": 1, "parent": 0, "role": "assistant", "content": content},
    ]


def entry(number: int, kind: str = "message", **members: Any) -> dict[str, Any]:
    parent = f"e{number - 1}" if number else None
    return {"type": kind, "id": f"e{number}", "parentId": parent, "timestamp": AT, **members}


def transcript() -> list[dict[str, Any]]:
    """A transcript as OpenClaw writes it."""
    call = {"type": "toolCall", "id": "c1", "name": "read", "arguments": {"path": "a.txt"}}
    usage = {"input": 7, "output": 3, "cacheRead": 2, "cacheWrite": 1, "totalTokens": 13, "cost": {"total": 0.5}}
    thought = {"type": "thinking", "thinking": "hm"}
    answer = {"role": "assistant", "provider": "openai", "model": "gpt-5", "usage": usage, "stopReason": "toolUse"}
    result = {"role": "toolResult", "toolCallId": "c1", "toolName": "read", "isError": False}
    text = {"type": "text", "text": "It says hello."}
    return [
        {"type": "session", "version": 3, "id": SESSION, "timestamp": AT, "cwd": "/work"},
        entry(0, "model_change", provider="openai", modelId="gpt-5"),
        entry(1, message={"role": "user", "content": [{"type": "text", "text": "What does it say?"}]}),
        entry(2, message={**answer, "content": [thought, call]}),
        entry(3, message={**result, "content": [{"type": "text", "text": "hello"}]}),
        entry(4, message={**answer, "content": [text], "stopReason": "stop"}),
    ]


def test_transcript_of_openclaw_is_imported_and_goes_on(home: Home, upstream: Upstream, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "t.jsonl", transcript())
    done = home.run("sessions", "import", file, "--session-key", "old-talk")
    assert (done.status, done.out.strip()) == (0, "Imported agent:main:old-talk."), done.err
    shown = home.run("sessions", "show", "old-talk", "--json").json
    assert shown["title"] == "What does it say?"
    assert [one["role"] for one in shown["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert shown["messages"][1]["tool_calls"][0]["function"] == {"name": "read", "arguments": '{"path":"a.txt"}'}
    assert (shown["usage"]["input_tokens"], shown["usage"]["cached_tokens"], shown["usage"]["cost"]) == (20, 4, 1.0)
    upstream.answers["play"] = Play(calls(text="Bye."))
    config = json.loads(home.config_path.read_text())
    state = {"OPENCLAW_STATE_DIR": str(home.config_path.parent)}
    with live_gateway(home.directory / "live", config, env=state) as gateway, gateway.client() as client:
        assert text_of(ask(client, "Thanks.", headers={"x-openclaw-session-key": "old-talk"})) == "Bye."
    sent = [(one["role"], one.get("content")) for one in upstream.requests[-1].body["messages"]]
    assert [role for role, _ in sent][-5:] == ["user", "assistant", "tool", "assistant", "user"]
    assert sent[-2][1] == "It says hello."


def test_later_of_two_summaries_of_the_same_messages_is_imported(home: Home, tmp_path: Path) -> None:
    summaries = (entry(4 + n, "compaction", summary=f"Summary {n}.", firstKeptEntryId="e4") for n in (1, 2))
    file = write_lines(tmp_path / "t.jsonl", [*transcript(), *summaries])
    done = home.run("sessions", "import", file, "--session-key", "summed-up")
    assert done.status == 0, done.err
    exported = home.run("sessions", "export", "agent:main:summed-up").out
    assert ("Summary 2." in exported, "Summary 1." in exported) == (True, False)


def test_what_openclaw_shows_to_models_is_part_of_an_imported_transcript(
    home: Home, upstream: Upstream, tmp_path: Path
) -> None:
    command = {"role": "bashExecution", "command": "ls", "output": "a.txt", "exitCode": 2, "cancelled": False}
    lines = [
        *transcript(),
        entry(5, message={**command, "truncated": True, "fullOutputPath": "/tmp/all"}),
        entry(6, message={**command, "output": "", "cancelled": True}),
        entry(7, message={**command, "output": "HIDDEN", "excludeFromContext": True}),
        entry(8, "custom_message", customType="x", content=[{"type": "text", "text": "From a plugin."}], display=False),
        entry(9, "custom", customType="x", data={"of": "the plugin"}),
        entry(10, "branch_summary", fromId="e4", summary="It was tried."),
    ]
    done = home.run("sessions", "import", write_lines(tmp_path / "t.jsonl", lines), "--session-key", "shown")
    assert (done.status, done.out.strip()) == (0, "Imported agent:main:shown."), done.err
    assert done.err.strip().endswith("t.jsonl, line 9 is left out: OpenClaw does not show it to models.")
    upstream.answers["play"] = Play(calls(text="Bye."))
    config = json.loads(home.config_path.read_text())
    state = {"OPENCLAW_STATE_DIR": str(home.config_path.parent)}
    with live_gateway(home.directory / "live", config, env=state) as gateway, gateway.client() as client:
        assert text_of(ask(client, "Thanks.", headers={"x-openclaw-session-key": "shown"})) == "Bye."
    said = [one["content"] for one in upstream.requests[-1].body["messages"] if one["role"] == "user"]
    wanted = [
        "What does it say?",
        "Ran `ls`\n```\na.txt\n```\n\nCommand exited with code 2\n\n[Output truncated. Full output: /tmp/all]",
        "Ran `ls`\n(no output)\n\n(command cancelled)",
        "From a plugin.",
        f"{BRANCH}:\n\n<summary>\nIt was tried.</summary>",
        "Thanks.",
    ]
    assert "\n\n".join(said) == "\n\n".join(wanted)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"type": "mystery"}, 'line 4: lines of the type "mystery" cannot be imported'),
        ({"message": {"role": "wizard"}}, 'line 4: messages of the role "wizard" cannot be imported'),
        ({"parentId": "nobody"}, "line 4: nobody is missing"),
        (
            {"type": "custom_message", "customType": "x", "content": "in between", "display": True},
            "line 5: another message stands between the call of the tool and its result",
        ),
    ],
)
def test_foreign_lines_of_transcript_are_refused(
    home: Home, changed: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    lines = transcript()
    lines[3] |= changed
    done = home.run("sessions", "import", write_lines(tmp_path / "t.jsonl", lines))
    assert (done.status, fault in done.err) == (1, True), done.err
    assert home.run("sessions", "import", write_lines(tmp_path / "none.jsonl", ["", "not JSON"])).status == 1


def test_conflict_of_a_later_session_leaves_those_before_it(home: Home, tmp_path: Path) -> None:
    lines = openclaw_like_export()
    second = [{**line, "id": "other"} | dict.fromkeys(("key", "session_key"), "agent:main:y") for line in lines]
    file = write_lines(tmp_path / "two.jsonl", [*lines, *second])
    assert home.run("sessions", "import", file).status == 0
    before = export(home)
    third = [{**line, "id": "other"} | dict.fromkeys(("key", "session_key"), "agent:main:z") for line in lines]
    done = home.run("sessions", "import", write_lines(tmp_path / "mixed.jsonl", [*lines, *third]), "--replace")
    assert (done.status, "has the same id" in done.err) == (1, True), done.err
    assert export(home) == before
