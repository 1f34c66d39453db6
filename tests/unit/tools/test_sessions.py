"""Session and agent tools with a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any

import orjson
import pytest
from support.transcripts import Transcripts, new_uuid

from service.config.roster import Roster
from service.config.schema import parse_config
from service.config.tools import GlobalToolsConfig
from service.core.messages import Image, Message, Role, Text, ToolCall, Usage, text_message
from service.storage.database.database import Database
from service.storage.sessions.queries import MAX_PAYLOAD_CHARACTERS
from service.tools.built_in import ToolParts, open_built_in_tools
from service.tools.process_slots import ToolSlots
from service.tools.sessions import MAX_HISTORY_CHARACTERS, MAX_MESSAGES, Visibility, VisibleSessions
from service.tools.tool import ToolContext, ToolError

OWN, SIBLING, FOREIGN = "agent:main:own", "agent:main:sibling", "agent:beta:foreign"
CONTEXT = ToolContext("main", None, OWN, "run-1")
PICTURE = Image("data:image/png;base64,AAAA")


@pytest.fixture
def store(database: Database) -> Iterator[Transcripts]:
    with closing(Transcripts(database, MinuteClock(), map(str, count(0)).__next__)) as store:
        yield store


class MinuteClock:
    """Stands still until `tick`."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        self.now += 60


def say(store: Transcripts, key: str, *messages: Message, model: str = "openai/a") -> None:
    agent_id = key.split(":")[1]
    store.append_turn(key, agent_id, new_uuid(), messages, usage=Usage(10, 4, 2), model=model)
    clock: Any = store.clock
    clock.tick()


def user(text: str) -> Message:
    return text_message(Role.USER, text)


def ask(store: Transcripts, name: str, visibility: Visibility = "agent", **arguments: Any) -> Any:
    roster = Roster.from_config(parse_config({"agents": {"list": [{"id": "main"}, {"id": "beta", "name": "B"}]}})[0])
    parts = ToolParts(GlobalToolsConfig(), roster, VisibleSessions(store, visibility), {}, ToolSlots())
    [tool] = [tool for tool in open_built_in_tools(parts) if tool.name == name]
    return orjson.loads(tool.run(arguments, CONTEXT))


def keys(answer: Any) -> list[str]:
    return [session["session_key"] for session in answer["sessions"]]


def test_session_without_turn_has_no_messages(store: Transcripts) -> None:
    assert ask(store, "session_status") == {"session_key": OWN, "agent": "main", "messages": 0}


def test_status_sums_turns_of_session(store: Transcripts) -> None:
    say(store, OWN, user("a"), user("b"))
    say(store, OWN, user("c"), model="openai/b")
    say(store, SIBLING, user("d"))
    session = store.get_session(OWN)
    assert session is not None
    assert ask(store, "session_status") == {
        "session_key": OWN,
        "session_id": session.session_id,
        "agent": "main",
        "messages": 3,
        "model": "openai/b",
        "input_tokens": 20,
        "output_tokens": 8,
        "started": "2023-11-14T22:13:20Z",
        "last_used": "2023-11-14T22:14:20Z",
    }
    assert ask(store, "session_status", session_key=SIBLING)["messages"] == 1


def test_last_used_sessions_come_first(store: Transcripts) -> None:
    for number in range(5):
        say(store, f"agent:main:{number}", user("x"))
    say(store, "agent:main:1", user("again"))
    assert keys(ask(store, "sessions_list", limit=3)) == ["agent:main:1", "agent:main:4", "agent:main:3"]


@pytest.mark.parametrize(
    ("visibility", "visible"),
    [("self", [OWN]), ("agent", [SIBLING, OWN]), ("all", [FOREIGN, SIBLING, OWN])],
)
def test_other_sessions_are_reported_of_only_where_they_may_be_seen(
    store: Transcripts, visibility: Visibility, visible: list[str]
) -> None:
    for key in (OWN, SIBLING, FOREIGN):
        say(store, key, user("hello"))
    assert keys(ask(store, "sessions_list", visibility)) == visible
    for name in ("session_status", "sessions_history"):
        for key in (OWN, SIBLING, FOREIGN):
            if key in visible:
                assert ask(store, name, visibility, session_key=key)["session_key"] == key
            else:
                with pytest.raises(ToolError, match="No visible session"):
                    ask(store, name, visibility, session_key=key)


def test_session_that_is_not_there_is_reported_like_one_that_may_not_be_seen(store: Transcripts) -> None:
    say(store, FOREIGN, user("hello"))
    told = []
    for key in ("agent:beta:missing", FOREIGN):
        with pytest.raises(ToolError) as caught:
            ask(store, "sessions_history", session_key=key)
        told.append(str(caught.value).replace(key, "KEY"))
    assert told[0] == told[1]


def test_history_reports_last_messages_oldest_first(store: Transcripts) -> None:
    say(store, OWN, *(user(str(number)) for number in range(30)))
    answer = ask(store, "sessions_history", session_key=OWN, limit=3)
    assert answer["of"] == 30
    assert answer["messages"] == [
        {"role": "user", "at": "2023-11-14T22:13:20Z", "text": str(number)} for number in (27, 28, 29)
    ]


def test_tool_messages_are_reported_when_asked_for(store: Transcripts) -> None:
    call = ToolCall("c", "read", '{"path": "a"}')
    result = Message(Role.TOOL, (Text("content"),), tool_call_id="c")
    say(store, OWN, user("q"), Message(Role.ASSISTANT, tool_calls=(call,)), result, text_message(Role.ASSISTANT, "a"))
    plain = ask(store, "sessions_history", session_key=OWN)["messages"]
    assert [(entry["role"], entry["text"]) for entry in plain] == [("user", "q"), ("assistant", "a")]
    whole = ask(store, "sessions_history", session_key=OWN, include_tools=True)["messages"]
    assert [(entry["role"], entry["text"]) for entry in whole] == [
        ("user", "q"),
        ("assistant", ""),
        ("tool", "content"),
        ("assistant", "a"),
    ]
    assert whole[1]["tool_calls"] == [{"name": "read", "arguments": '{"path": "a"}'}]


def test_pictures_and_long_messages_are_not_reported_whole(store: Transcripts) -> None:
    huge = Image("data:image/png;base64," + "A" * MAX_PAYLOAD_CHARACTERS)
    say(store, OWN, Message(Role.USER, (Text("see"), PICTURE)), user("x" * 10_000), Message(Role.USER, (huge,)))
    texts = [entry["text"] for entry in ask(store, "sessions_history", session_key=OWN)["messages"]]
    assert texts == ["see [with an image]", "x" * 4_000 + " [cut]", "[a message that is too long to show]"]


def test_long_history_leaves_oldest_out(store: Transcripts) -> None:
    say(store, OWN, *(user(f"{number:03}" + "x" * 3_000) for number in range(MAX_MESSAGES)))
    messages = ask(store, "sessions_history", session_key=OWN, limit=MAX_MESSAGES)["messages"]
    assert len(orjson.dumps(messages)) < MAX_HISTORY_CHARACTERS
    assert [entry["text"][:3] for entry in messages] == [f"{number:03}" for number in range(100 - len(messages), 100)]
    assert len(messages) > 10


def test_agents_are_reported_with_default_and_one_that_asks(store: Transcripts) -> None:
    assert ask(store, "agents_list") == {
        "agents": [
            {"id": "main", "name": "main", "default": True, "you": True},
            {"id": "beta", "name": "B", "default": False, "you": False},
        ]
    }


def test_listing_of_store_is_bounded(store: Transcripts) -> None:
    for number in range(4):
        say(store, f"agent:main:{number}", user("x"), user("y"))
    assert len(store.list_sessions("main", 2)) == 2
    assert len(store.list_sessions(None, 3)) == 3
    assert store.list_sessions("other", 3) == ()
    assert [recent.message for recent in store.load_recent_messages("agent:main:0", 1)] == [user("y")]
    assert store.get_session("agent:main:none") is None
