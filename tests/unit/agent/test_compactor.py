"""Compaction of long conversations: kept messages, summaries, size of the result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.transcripts import Transcripts

from service.agent.compaction.boundaries import choose_cut, safe_cuts
from service.agent.compaction.compactor import LATEST_HEADING, SUMMARY_HEADING, Compactor
from service.core.errors import GatewayError
from service.core.messages import Function, Image, Message, Role, StopReason, Text, ToolCall, Usage, text_message
from service.models.provider import ModelEnded, ModelRequest, TextReceiver
from service.models.scripted import ScriptedProvider
from service.models.tokens import TokenEstimator, estimate_message, estimate_request, input_limit

LIMIT = 2_000
TOO_LONG = GatewayError("provider_rejected_request", "prompt is too long")


class Scripted:
    """The scripted provider, which never restarts an answer."""

    def ask(self, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None]) -> ModelEnded:
        del on_restart
        return ScriptedProvider().ask(request, on_text)


class Summariser:
    """A provider that answers every request with `answer` and refuses those of more than `window_bytes`."""

    def __init__(self, answer: str = "they talked", window_bytes: int = 10**9) -> None:
        self.answer = answer
        self.window_bytes = window_bytes
        self.asked: list[str] = []

    def ask(self, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None]) -> ModelEnded:
        del on_restart
        text = request.messages[-1].text
        self.asked.append(text)
        if len(text) > self.window_bytes:
            raise GatewayError("provider_rejected_request", "prompt is too long: 9000 tokens > 8192 maximum")
        on_text(self.answer)
        return ModelEnded(StopReason.STOP, (), Usage(10, 2))

    def close(self) -> None:
        pass


def user(text: str) -> Message:
    return text_message(Role.USER, text)


def assistant(text: str, *calls: str) -> Message:
    return Message(Role.ASSISTANT, (Text(text),), tool_calls=tuple(ToolCall(call, "tool", "{}") for call in calls))


def result(call: str, text: str = "done") -> Message:
    return Message(Role.TOOL, (Text(text),), tool_call_id=call)


def request(*messages: Message, model: str = "m", system: str = "") -> ModelRequest:
    return ModelRequest(model, system, messages)


def talk(turns: int, words: int = 100) -> tuple[Message, ...]:
    return tuple(
        message
        for turn in range(turns)
        for message in (user(f"question {turn} " + "x" * words), assistant(f"answer {turn} " + "y" * words))
    )


sizes = st.integers(0, 3_000)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    messages: list[Message] = []
    for turn in range(draw(st.integers(1, 12))):
        messages.append(user(f"q{turn} " + "u" * min(draw(sizes), 1_500)))
        for step in range(draw(st.integers(0, 3))):
            calls = [f"{turn}-{step}-{number}" for number in range(draw(st.integers(1, 3)))]
            messages.append(assistant("a" * draw(sizes), *calls))
            messages.extend(result(call, "r" * draw(sizes)) for call in draw(st.permutations(calls)))
        if draw(st.booleans()):
            messages.append(assistant("b" * draw(sizes)))
    return tuple(messages)


@given(conversations())
@settings(max_examples=150)
def test_compacted_conversation_fits_and_keeps_calls_and_latest_user_message(
    messages: tuple[Message, ...],
) -> None:
    compactor = Compactor(TokenEstimator())
    asked = request(*messages)
    compaction = compactor.compact(Summariser("s" * 50_000), asked, LIMIT)
    if estimate_request(asked) <= LIMIT:
        assert compaction is None
        return
    assert compaction is not None
    kept = messages[len(messages) - compaction.kept :]
    shown = compaction.messages[len(compaction.messages) - len(kept) :]
    assert compaction.messages[: len(compaction.messages) - len(kept)] == (
        () if compaction.summary is None else (compaction.summary,)
    )
    for before, after in zip(kept, shown, strict=True):
        assert after == before or (after.tool_call_id and len(after.text) < len(before.text))
    assert estimate_request(request(*compaction.messages)) <= LIMIT
    called = {call.id for message in compaction.messages for call in message.tool_calls}
    results = {message.tool_call_id for message in compaction.messages if message.tool_call_id}
    assert called == results
    latest = next(message for message in reversed(messages) if message.role is Role.USER)
    assert any(set(latest.parts) <= set(message.parts) for message in compaction.messages)
    assert compactor.compact(Summariser(), request(*compaction.messages), LIMIT) is None


@given(conversations(), sizes)
def test_boundary_never_separates_call_from_results(messages: tuple[Message, ...], tail_tokens: int) -> None:
    cut = choose_cut(messages, tail_tokens)
    assert cut in safe_cuts(messages)
    before = {call.id for message in messages[:cut] for call in message.tool_calls}
    assert not before & {message.tool_call_id for message in messages[cut:]}


def test_late_results_keep_their_call() -> None:
    messages = (user("a"), assistant("", "1", "2"), result("1"), user("b"), result("2"), user("c"))
    assert safe_cuts(messages) == [0, 1, 5, 6]


def test_call_without_result_can_be_summarised() -> None:
    assert safe_cuts((user("a"), assistant("", "1"), user("b"))) == [0, 1, 2, 3]


def test_short_conversation_is_unchanged_without_model_request() -> None:
    provider = Summariser()
    assert Compactor(TokenEstimator()).compact(provider, request(*talk(3)), LIMIT) is None
    assert provider.asked == []


def test_single_message_too_long_is_left_to_provider() -> None:
    assert Compactor(TokenEstimator()).compact(Summariser(), request(user("x" * 50_000)), LIMIT) is None


def test_latest_user_message_is_repeated_when_later_messages_are_too_long() -> None:
    picture = Image("data:image/png;base64,AA==", "low")
    question = Message(Role.USER, (Text("what is this?"), picture))
    work = [message for step in range(6) for message in (assistant("", str(step)), result(str(step), "z" * 2_000))]
    compactor = Compactor(TokenEstimator())
    first = compactor.compact(Summariser("early work"), request(question, *work), LIMIT)
    assert first is not None
    assert first.summary is not None
    assert first.summary.parts[1:] == question.parts
    assert f"{SUMMARY_HEADING}\n\nearly work\n\n{LATEST_HEADING}" in first.summary.text
    more = [message for step in "abcdef" for message in (assistant("", step), result(step, "z" * 2_000))]
    second = compactor.compact(Summariser("more work"), request(*first.messages, *more), LIMIT)
    assert second is not None
    assert second.summary is not None
    assert second.summary.parts[1:] == question.parts  # and the earlier summary is not repeated
    assert "early work" not in second.summary.text


def test_results_of_latest_calls_are_kept_truncated() -> None:
    head, tail = "the first line ", " the last line"
    step = (assistant("let me see", "1", "2"), result("1", "short"), result("2", head + "z" * 20_000 + tail))
    provider = Summariser("early work")
    found = Compactor(TokenEstimator()).compact(provider, request(*talk(10), user("read it"), *step), LIMIT)
    assert found is not None
    assert found.kept == 3
    assert len(provider.asked) == 1
    assert "zzz" not in provider.asked[0]
    summary, call, short, long = found.messages
    assert "read it" in summary.text
    assert (call, short) == step[:2]
    assert long.text.startswith(head)
    assert long.text.endswith(tail)
    assert f"of {len(step[2].text)} bytes left out here ...]" in long.text
    assert estimate_message(long) > 400


def test_single_result_too_long_is_truncated_without_summary() -> None:
    provider = Summariser()
    question = user("read it")
    asked = request(question, assistant("", "1"), result("1", "z" * 20_000))
    found = Compactor(TokenEstimator()).compact(provider, asked, LIMIT)
    assert found is not None
    assert (found.summary, found.kept, found.messages[:2]) == (None, 3, asked.messages[:2])
    assert estimate_request(request(*found.messages)) <= LIMIT
    assert provider.asked == []


def test_too_many_results_to_truncate_are_summarised() -> None:
    calls = [str(number) for number in range(60)]
    step = (assistant("", *calls), *(result(call, "z" * 4_000) for call in calls))
    found = Compactor(TokenEstimator()).compact(Summariser("much"), request(user("read it"), *step), LIMIT)
    assert found is not None
    assert (found.kept, len(found.messages)) == (0, 1)


def test_earlier_summary_is_included_in_next() -> None:
    compactor = Compactor(TokenEstimator())
    first = compactor.compact(Summariser("the name is Lan"), request(*talk(40)), LIMIT)
    assert first is not None
    provider = Summariser()
    assert compactor.compact(provider, request(*first.messages, *talk(40)), LIMIT) is not None
    assert "the name is Lan" in provider.asked[0]


def test_conversation_beyond_one_request_is_summarised_incrementally() -> None:
    provider = Summariser("so far")
    compaction = Compactor(TokenEstimator()).compact(provider, request(*talk(100)), LIMIT)
    assert compaction is not None
    assert 2 < len(provider.asked) <= 12
    assert all("Summary of what came before:\nso far" in asked for asked in provider.asked[1:])
    assert all(len(asked) / 4 <= LIMIT for asked in provider.asked)
    assert compaction.usage == Usage(10 * len(provider.asked), 2 * len(provider.asked))


def test_summary_request_refused_as_too_long_is_reduced() -> None:
    provider = Summariser(window_bytes=2_500)
    assert Compactor(TokenEstimator()).compact(provider, request(*talk(40)), LIMIT) is not None
    assert len(provider.asked[-1]) <= 2_500


def test_empty_summary_fails_compaction() -> None:
    with pytest.raises(GatewayError, match="gave no summary"):
        Compactor(TokenEstimator()).compact(Summariser(" \n"), request(*talk(40)), LIMIT)


def test_growing_conversation_uses_one_cache_entry() -> None:
    compactor, other = Compactor(TokenEstimator()), (user("another"), *talk(40))
    assert compactor.compact(Summariser(), request(*other), LIMIT) is not None
    for number in range(1, 150):
        summariser = Summariser()
        assert compactor.compact(summariser, request(*talk(3 * number, words=1_500)), LIMIT) is not None
        assert summariser.asked
    assert compactor.compact(Summariser(" \n"), request(*other), LIMIT) is not None


def test_cached_summary_is_used_when_further_summary_fails() -> None:
    compactor, grown = Compactor(TokenEstimator()), talk(80)
    first = compactor.compact(Summariser(), request(*grown[:80]), LIMIT)
    assert first is not None
    again = compactor.compact(Summariser(" \n"), request(*grown), LIMIT)
    assert again is not None
    assert again.messages[1:] == grown[80 - first.kept :]


def test_provider_failure_fails_compaction() -> None:
    asked = request(*talk(40), model="fail-rate_limit_exceeded")
    with pytest.raises(GatewayError) as caught:
        Compactor(TokenEstimator()).compact(Scripted(), asked, LIMIT)
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize("limit_tokens", [None, LIMIT])
def test_overflow_compacts_conversation_despite_low_estimate(limit_tokens: int | None) -> None:
    estimator = TokenEstimator()
    asked = request(*talk(20))
    assert estimator.estimate(asked) < LIMIT
    compaction = Compactor(estimator).compact_after_overflow(Summariser(), asked, limit_tokens, TOO_LONG)
    assert compaction is not None
    assert estimate_request(request(*compaction.messages)) < 0.6 * estimate_request(asked)


def test_scripted_provider_compacts_stored_conversation(tmp_path: Path) -> None:
    with closing(Transcripts.open(tmp_path / "sessions.db")) as store:
        store.append_turn("k", "main", "r1", talk(40), usage=Usage(), model="m")
        history = store.load_conversation("k")
        new = user("and now?")
        asked = request(*history, new, model="count-20")
        compaction = Compactor(TokenEstimator()).compact(Scripted(), asked, LIMIT)
        assert compaction is not None
        assert compaction.summary is not None
        assert "1 2 3" in compaction.summary.text
        store.append_turn("k", "main", "r2", [new], usage=Usage(), model="m")
        store.append_summary("k", "r3", compaction.summary, kept=compaction.kept)
        assert store.load_conversation("k") == compaction.messages


def test_non_latin_scripts_and_images_count_more_tokens() -> None:
    assert estimate_message(user("a" * 40)) == 14
    assert estimate_message(user("字" * 40)) == 34
    assert estimate_message(Message(Role.USER, (Image("data:", "high"),))) > 1_000
    call = Message(Role.ASSISTANT, tool_calls=(ToolCall("1", "tool", "x" * 400),))
    assert estimate_message(call) > 100


def test_system_text_and_functions_are_counted() -> None:
    bare = estimate_request(request(user("a")))
    function = Function("f", "does it", {"type": "object", "description": "d" * 400})
    told = ModelRequest("m", "s" * 400, (user("a"),), functions=(function,))
    assert estimate_request(told) > bare + 200


def test_estimate_is_adjusted_to_provider_count() -> None:
    estimator = TokenEstimator()
    asked = request(user("a" * 4_000))
    estimator.observe(asked, Usage(input_tokens=2 * estimate_request(asked)))
    assert estimator.estimate(asked) == 2 * estimate_request(asked)
    estimator.observe(asked, Usage())  # a provider that does not count
    assert estimator.correction("m") == 2
    assert estimator.correction("another") == 1
    estimator.observe(asked, Usage(input_tokens=10**9))
    assert estimator.correction("m") == 4
    for number in range(300):
        estimator.observe(request(user("a" * 4_000), model=str(number)), Usage(input_tokens=1))
    assert estimator.correction("m") == 1


def test_continued_conversation_is_estimated_like_a_new_one() -> None:
    estimator = TokenEstimator()
    messages: tuple[Message, ...] = (user("start"),)
    for number in range(20):
        messages += (user("a" * number), Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "f", "{}" * number),)))
        asked = ModelRequest("m", "s" * number, messages, continued=True)
        assert estimator.estimate(asked) == estimate_request(asked)
    shorter = ModelRequest("m", "", messages[:7], continued=True)
    assert estimator.estimate(shorter) == estimate_request(shorter)


def test_short_request_does_not_adjust_estimate() -> None:
    estimator = TokenEstimator()
    estimator.observe(request(user("hi")), Usage(input_tokens=350))  # 346 of them stand before every request
    assert estimator.correction("m") == 1


@pytest.mark.parametrize(
    ("window", "answer", "limit"), [(128_000, None, 113_408), (128_000, 8_000, 113_600), (8_192, 8_192, 3_687)]
)
def test_input_limit_leaves_room_for_answer(window: int, answer: int | None, limit: int) -> None:
    assert input_limit(window, answer) == limit
