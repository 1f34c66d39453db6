"""The place of a request in its session: continued, branched, or begun again from the root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.transcripts import Transcripts, copy_session

from service.agent.conversation import IncomingMessage
from service.agent.placement import place_request
from service.agent.request import AgentRequest
from service.core.errors import GatewayError
from service.core.messages import Image, Message, Role, Text, ToolCall, text_message
from service.core.principal import ADMINISTRATOR
from service.gateway.run_outcome import placed
from service.storage.database.open import open_database
from service.storage.runs.records import Protocol, RunOutcome, RunState

KEY = "agent:main:tree"


@pytest.fixture
def store(database_url: str | None, tmp_path: Path) -> Iterator[Transcripts]:
    with closing(Transcripts(open_database(database_url, tmp_path))) as opened:
        yield opened


def user(text: str) -> Message:
    return text_message(Role.USER, text)


def answer(text: str) -> Message:
    return text_message(Role.ASSISTANT, text)


def calling(call_id: str, text: str = "") -> Message:
    parts = (Text(text),) if text else ()
    return Message(Role.ASSISTANT, parts, tool_calls=(ToolCall(call_id, "f", '{"a": 1}'),))


def result(call_id: str, text: str) -> Message:
    return Message(Role.TOOL, (Text(text),), tool_call_id=call_id)


class Chat:
    """A session whose requests are placed and answered; `seen` is what the model was sent last."""

    def __init__(self, store: Transcripts, *, resends: bool = False, key: str = KEY) -> None:
        self._store = store
        self._resends = resends
        self._key = key
        self.seen: list[str] = []

    def send(self, *messages: Message | str, output: tuple[Message, ...] | str = "ok") -> None:
        """Send a request, which is answered with `output`; strings are the user's, output the assistant's."""
        said = [user(one) if isinstance(one, str) else one for one in messages]
        incoming = tuple(IncomingMessage(f"messages[{index}]", one) for index, one in enumerate(said))
        request = AgentRequest(ADMINISTRATOR, Protocol.HTTP, incoming, resends=self._resends)
        place = place_request(request, self._key, self._store)
        new = tuple(item.message for item in place.new)
        self.seen = [one.text for one in (*place.history, *new)]
        reply = (answer(output),) if isinstance(output, str) else output
        outcome = RunOutcome(RunState.OK, messages=(*new, *reply), reply_count=len(reply))
        run_id = self._store.storage.ledger.new_id()
        self._store.finish_run(self._key, "main", run_id, placed(outcome, place))

    @property
    def stored(self) -> list[str]:
        """Every message of the session, of all branches."""
        return [entry.message.text for entry in self._store.iter_entries(self._key)]

    @property
    def current(self) -> list[str]:
        """The current branch."""
        return [message.text for message in self._store.load_conversation(self._key)]


def test_new_messages_alone_continue_the_tip(store: Transcripts) -> None:
    chat = Chat(store)
    for text in ("hi", "hi", "hi"):
        chat.send(text)
    assert chat.seen == ["hi", "ok", "hi", "ok", "hi"]


def test_whole_conversation_continues_the_tip(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    chat.send("one", answer("ok"), "two")
    assert chat.stored == chat.current == ["one", "ok", "two", "ok"]


def test_last_answer_is_asked_for_again(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    for number in range(3):
        chat.send("one", answer("ok"), "two", output=f"answer {number}")
        assert chat.seen == ["one", "ok", "two"]
    assert chat.stored == ["one", "ok", "two", "answer 0", "answer 1", "answer 2"]
    assert chat.current == ["one", "ok", "two", "answer 2"]


def test_edited_last_message_is_a_branch(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    chat.send("one", answer("ok"), "two")
    chat.send("one", answer("ok"), "zwei")
    assert chat.seen == ["one", "ok", "zwei"]
    chat.send("one", answer("ok"), "two", answer("ok"), "three")  # the user has gone back
    assert chat.seen == ["one", "ok", "two", "ok", "three"]
    assert chat.stored == ["one", "ok", "two", "ok", "zwei", "ok", "three", "ok"]
    assert store.read_tree(KEY).leaves == (5, 7)


def test_edited_first_message_is_a_branch_of_a_resending_client(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    chat.send("one", answer("ok"), "two")
    chat.send("uno")
    assert chat.seen == ["uno"]
    chat.send("one")
    assert chat.seen == ["one"]
    assert chat.stored == ["one", "ok", "two", "ok", "uno", "ok", "ok"]


def test_first_answer_is_asked_for_again_by_a_chat_program(store: Transcripts) -> None:
    chat = Chat(store, resends=True)
    chat.send("one", output="first")
    chat.send("one", output="second")
    assert chat.seen == ["one"]
    chat.send("one", answer("first"), "two")
    assert chat.seen == ["one", "first", "two"]
    assert chat.stored == ["one", "first", "second", "two", "ok"]


def test_deleted_message_is_gone_for_the_model(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one", output="1")
    chat.send("one", answer("1"), "two", output="2")
    chat.send("one", answer("1"), "three", output="3")
    assert chat.seen == ["one", "1", "three"]
    chat.send("one", answer("1"), answer("3"), "four")
    assert chat.seen == ["one", "1", "3", "four"]


def test_foreign_history_is_the_truth(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    chat.send("other", answer("elsewhere"), "two")
    assert chat.seen == ["other", "elsewhere", "two"]
    assert chat.current == ["other", "elsewhere", "two", "ok"]


def test_edited_answer_is_what_the_model_sees(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    chat.send("one", answer("ok, edited"), "two")
    assert chat.seen == ["one", "ok, edited", "two"]


def test_seeded_session_continues_with_new_messages(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("zero", answer("nil"), "one")
    chat.send("two")
    assert chat.seen == ["zero", "nil", "one", "ok", "two"]


def test_two_chats_of_one_session_stay_apart_once_they_resend(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("a1")
    chat.send("b1")
    chat.send("a1", answer("ok"), "a2")
    assert chat.seen == ["a1", "ok", "a2"]
    chat.send("b1")
    assert chat.seen == ["b1"]


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        (answer("yes "), answer("\n yes")),
        (answer("a\nb"), answer("a\r\nb")),
        (answer("<think>well</think>\n\nyes"), answer("yes")),
        (answer("<think>a</think>\n<think>b</think>\nno\n\n<reason>c</reason>yes"), answer("no\n\nyes")),
        (
            answer("yes"),
            answer("<details type=\"reasoning\" done='true'>\n<summary>Thought</summary>well</details>\nyes"),
        ),
        (answer("one two"), Message(Role.ASSISTANT, (Text("one "), Text("two")))),
    ],
)
def test_changes_of_clients_are_forgiven(store: Transcripts, stored: Message, sent: Message) -> None:
    chat = Chat(store)
    chat.send("one", output=(stored,))
    chat.send("one", sent, "two")
    assert chat.seen == ["one", stored.text, "two"]


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        *(("yes", sent) for sent in ("ye s", "Yes", "yes!")),
        ("```xml\n<leave><reason>ill</reason></leave>\n```", "```xml\n<leave><reason>late</reason></leave>\n```"),
    ],
)
def test_other_text_is_another_answer(store: Transcripts, stored: str, sent: str) -> None:
    chat = Chat(store)
    chat.send("one", output=stored)
    chat.send("one", answer(sent), "two")
    assert chat.seen == ["one", sent, "two"]


@pytest.mark.parametrize("tag", ["\n\n<think>", "<details type="])
def test_tags_that_are_not_closed_are_passed_over_once(store: Transcripts, tag: str) -> None:
    said = "\n\n" + tag * 500_000  # looking for the end of each takes hours
    chat = Chat(store)
    chat.send("one", answer(said), "two")
    assert chat.seen == ["one", said, "two"]


def test_pictures_count_by_number_in_history_and_are_new_at_the_end(store: Transcripts) -> None:
    chat = Chat(store)
    shown = Message(Role.USER, (Text("What is it?"), Image("data:image/png;base64,AAAA")))
    encoded = Message(Role.USER, (Text("What is it?"), Image("data:image/jpeg;base64,BBBB")))
    chat.send(shown)
    chat.send(encoded, answer("ok"), "two")
    assert chat.stored == ["What is it?", "ok", "two", "ok"]
    chat.send("hi", answer("x"), shown)
    chat.send("hi", answer("x"), encoded)
    assert store.load_conversation(KEY)[-2] == encoded


def test_steps_that_the_client_does_not_see_are_kept(store: Transcripts) -> None:
    chat = Chat(store)
    steps = (calling("own", "Let me look."), result("own", "42"), answer("It is 42."))
    chat.send("one", output=steps)
    chat.send("one", answer("Let me look.\n\nIt is 42."), "two")
    assert chat.seen == ["one", "Let me look.", "42", "It is 42.", "two"]
    assert len(chat.stored) == 6


def test_results_of_the_callers_functions_count_by_their_call(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one", output=(calling("c1"),))
    sent = Message(Role.ASSISTANT, tool_calls=(ToolCall("c1", "f", '{"a":1.0}'),))
    chat.send("one", sent, result("c1", "a long result"))
    chat.send("one", sent, result("c1", "a long... [truncated]"), answer("ok"), "two")
    assert chat.seen == ["one", "", "a long result", "ok", "two"]
    chat.send("one", sent, result("c1", "another result"))
    assert chat.seen == ["one", "", "another result"]


@pytest.mark.parametrize("is_result", [True, False], ids=["result", "picture"])
def test_going_back_finds_the_branch_with_the_same_content(store: Transcripts, *, is_result: bool) -> None:
    chat = Chat(store, resends=True)
    asked: list[Message | str] = ["weather?", calling("c1")] if is_result else []
    if is_result:
        chat.send("weather?", output=(calling("c1"),))
    sunny, rainy = (
        result("c1", name) if is_result else Message(Role.USER, (Text("this?"), Image(f"data:image/png;base64,{name}")))
        for name in ("sunny", "rain")
    )
    chat.send(*asked, sunny)
    chat.send(*asked, rainy)
    for shown in (sunny, rainy, sunny):
        for _ in range(2):  # asks, and asks again for the answer
            chat.send(*asked, shown, answer("ok"), "and tomorrow?")
            assert store.load_conversation(KEY)[-4] == shown
    assert len(chat.stored) == len(asked) + 4 + 2 + 6


def test_messages_of_earlier_versions_are_found(store: Transcripts) -> None:
    system = text_message(Role.SYSTEM, "Be kind.")
    run = RunOutcome(RunState.OK, messages=(system, user("one"), calling("own"), result("own", "1"), answer("ok")))
    store.finish_run(KEY, "main", "old-1", run)
    store.finish_run(KEY, "main", "old-2", RunOutcome(RunState.OK, messages=(user("two"), answer("ok"))))
    chat = Chat(store)
    chat.send("three")
    chat.send("one", answer("ok"), "zwei")
    assert chat.seen == ["Be kind.", "one", "", "1", "ok", "zwei"]
    chat.send("one", answer("ok"), "two", answer("ok"), "three", answer("ok"), "four")
    assert chat.seen == ["Be kind.", "one", "", "1", "ok", "two", "ok", "three", "ok", "four"]
    chat.send("one", answer("ok"), "zwei", answer("ok"), "drei")
    assert chat.seen == ["Be kind.", "one", "", "1", "ok", "zwei", "ok", "drei"]


def test_summary_belongs_to_its_path(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    chat.send("one", answer("ok"), "two")
    store.finish_run(KEY, "main", "s", RunOutcome(RunState.OK, summary=user("summary"), kept=1))
    assert chat.current == ["summary", "ok"]
    chat.send("one", answer("ok"), "zwei")
    assert chat.seen == ["one", "ok", "zwei"]
    chat.send("one", answer("ok"), "two", answer("ok"), "three")
    assert chat.seen == ["summary", "ok", "three"]


def test_request_without_anything_to_answer_is_refused(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    with pytest.raises(GatewayError, match="no user message"):
        chat.send("one", answer("ok"))
    with pytest.raises(GatewayError, match=r"no message before it has a call .* Send the call first"):
        chat.send("one", answer("ok"), result("c9", "?"))


def test_deleted_session_leaves_no_branch(store: Transcripts) -> None:
    chat = Chat(store)
    chat.send("one")
    chat.send("uno", answer("si"), "due")
    assert store.delete_session(KEY)
    chat.send("one")
    assert chat.seen == ["one"]
    assert store.read_tree(KEY).branches == ()


def test_imported_branches_are_recognized(store: Transcripts) -> None:
    chat = Chat(store, resends=True)
    chat.send("one", output="1")
    for call_id, text in (("a", "two"), ("b", "zwei")):
        chat.send("one", answer("1"), text, output=(calling(call_id), result(call_id, f"of {text}"), answer("2")))
    copy_session(store, KEY, store)
    for text in ("zwei", "two"):
        chat.send("one", answer("1"), text, answer("2"), "three")
        assert chat.seen == ["one", "1", text, "", f"of {text}", "2", "three"]
    assert len(chat.stored) == 2 + 2 * 4 + 2 * 2
