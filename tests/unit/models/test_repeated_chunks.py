"""Chunks that repeat the bytes of an earlier one are read as if they were parsed."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.models.openai.repeated_chunks import RepeatedChunks


def chunk(content: object, *, separators: tuple[str, str] = (", ", ": "), **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], **fields}, separators=separators).encode()


def after(payload: bytes, text: str) -> RepeatedChunks:
    repeated = RepeatedChunks()
    repeated.remember(payload, text)
    return repeated


@given(st.text(min_size=1), st.text(), st.sampled_from([(", ", ": "), (",", ":")]))
def test_text_is_that_of_a_parser_or_none(first: str, text: str, separators: tuple[str, str]) -> None:
    payload = chunk(text, separators=separators)
    found = after(chunk(first, separators=separators), first).find_texts([payload])
    assert found in ([text], [])
    if first.isascii() and first.isprintable() and text.isascii() and text:
        assert found == [text]


@pytest.mark.parametrize(
    "payload",
    [
        chunk("b", usage={"prompt_tokens": 1}),
        chunk("b", error={"message": "no"}),
        chunk("b", id="d"),
        chunk(""),
        chunk(None),
        chunk(7),
        chunk(["b"]),
        chunk("b").replace(b'"b"', b'"b", "refusal": "c"'),
        chunk("b").replace(b'"b"', b'"b"}, "x": {"content": "c"'),
        chunk("b").replace(b'"b"', b""),
        chunk("b").replace(b'"b"', b'"b'),
        chunk("b").replace(b'"b"', b'"\\ud800"'),
        chunk("b").replace(b'"b"', b'"\xff"'),
        chunk("b")[:-1],
        b"",
        b"[DONE]",
        b'"content":"b"',
    ],
)
def test_other_events_are_parsed_as_a_whole(payload: bytes) -> None:
    assert RepeatedChunks().find_texts([payload]) == []
    assert after(chunk("a"), "a").find_texts([chunk("c"), payload, chunk("d")]) in (["c"], [])
    assert after(chunk("a"), "a").find_texts([payload, chunk("c"), chunk("d")], 1) == ["c", "d"]


@given(st.lists(st.sampled_from([*"abc", "\n", '"', "\\", "é", "", None, 7, ["b"], {"b": 1}]), max_size=6))
def test_texts_are_those_of_the_first_chunks(contents: list[Any]) -> None:
    found = after(chunk("x"), "x").find_texts([*map(chunk, contents)])
    assert found == contents[: len(found)]
    assert all(found)
    assert {str}.issuperset(map(type, found))
    if all(isinstance(one, str) and one for one in contents):
        assert found == contents


@pytest.mark.parametrize(
    "parts",
    [
        (b'"b"', b""),
        (b'"b', b'c"', b'"d", "e"'),
        (b'"b", "c"', b'"d"'),
        (b'"b"', b'"c"],["d"'),
        (b'"b"', b'"c"], "d": ['),
    ],
)
def test_part_that_is_no_literal_never_counts(parts: tuple[bytes, ...]) -> None:
    payloads = [chunk("x").replace(b'"x"', part) for part in parts]
    assert after(chunk("a"), "a").find_texts(payloads) in ([], ["b"])


def test_chunk_whose_text_has_two_places_is_no_pattern() -> None:
    payload = chunk("a", echo={"content": "a"})
    assert after(payload, "a").find_texts([payload]) == []


def test_chunk_whose_text_is_spelt_otherwise_is_no_pattern() -> None:
    payload = chunk("à")
    assert b"\\u00e0" in payload
    assert after(payload, "à").find_texts([payload]) == []
    readable = orjson.dumps(orjson.loads(payload))
    assert after(readable, "à").find_texts([readable]) == ["à"]


def test_text_equal_to_another_field_is_found_at_its_own_place() -> None:
    assert after(chunk("m"), "m").find_texts([chunk("next")]) == ["next"]


class Counted(bytes):
    """A chunk that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        Counted.looks += 1
        return super().__getitem__(place)


@pytest.mark.parametrize("odd", ["", None, "\ud800"])
def test_odd_chunk_does_not_make_those_before_it_read_again_and_again(odd: str | None) -> None:
    repeated, payloads = after(chunk("x"), "x"), [Counted(one) for one in [*[chunk("abc")] * 1000, chunk(odd)]]
    Counted.looks = place = 0
    while place < len(payloads):
        place += len(repeated.find_texts(payloads, place)) or 1
    assert Counted.looks < 10 * len(payloads)
