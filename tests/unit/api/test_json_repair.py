"""Lone surrogates in JSON are replaced, pairs and escaped backslashes are kept."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.http.json_repair import replace_lone_surrogates

HIGH, LOW = r"\ud83d", r"\ude00"
GONE = r"\ufffd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HIGH, GONE),
        (LOW, GONE),
        (HIGH + LOW, HIGH + LOW),
        (LOW + HIGH, GONE + GONE),
        (HIGH + HIGH + LOW + LOW, GONE + HIGH + LOW + GONE),
        ("\\" + HIGH, "\\" + HIGH),
        ("\\\\" + HIGH, "\\\\" + GONE),
        ("\\" + HIGH + LOW, "\\" + HIGH + GONE),
        (HIGH + "\\" + LOW, GONE + "\\" + LOW),
        (HIGH.upper().replace("U", "u"), GONE),
        (r"\u0041\n", r"\u0041\n"),
    ],
)
def test_lone_surrogate_is_replaced(text: str, expected: str) -> None:
    assert replace_lone_surrogates(text.encode()).decode() == expected


@pytest.mark.parametrize("offset", range(13))
def test_pairs_across_windows_are_kept(offset: int) -> None:
    text = ("x" * (64 * 1024 - offset) + HIGH + LOW + "x" * (64 * 1024) + LOW).encode()
    assert replace_lone_surrogates(text) == text[: -len(LOW)] + GONE.encode()


@given(st.text(st.characters(codec=None, categories=["Cs", "Lu", "Po"])))
def test_repaired_json_has_each_lone_surrogate_replaced(text: str) -> None:
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert orjson.loads(replace_lone_surrogates(json.dumps(text).encode())) == expected
