"""Frames: what a client's message is read as, and the id that the refusal of an unreadable one carries."""

from __future__ import annotations

import pytest

from service.api.websocket.frames import NO_ID, FrameError, parse_request


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"\ud800", "\ufffd"),
        (rb"\uDFFF!", "\ufffd!"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"a\ud83d\ude00\ud83d", "a\U0001f600\ufffd"),
        (rb"\\ud800", "\\ud800"),
    ],
)
def test_lone_surrogates_are_replaced(escaped: bytes, text: str) -> None:
    message = b'{"type":"req","id":"7","method":"agent","params":{"message":"%b"}}' % escaped
    request = parse_request(message)
    assert (request.id, request.params) == ("7", {"message": text})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b'{"type":"req","id":"7","method":"x","params":{"n":NaN}}', "7"),
        (b'{"params":{"n":1e400},"type":"req","id":"7","method":"x"}', "7"),
        (b'{"params":{"n":[-Infinity,"\\ud800"]},"id":"7"}', "7"),
        (b'{"type":"req","id":"7","method":"x","params":{', "7"),
        (b'{ "id" : "7" , oops', "7"),
        (b'{"params":{"id":"6"},"id":"7",', NO_ID),
        (b'{"type":"req","params":{"id":"6"', NO_ID),
        (b'{"id":7,"n":NaN}', NO_ID),
        (b'{"id":"","n":NaN}', NO_ID),
        (b'{"id":"\\ud800","n":NaN}', NO_ID),
        (b'{"id":"7","text":"\xff"}', NO_ID),
        (b"[" * 100_000, NO_ID),
        (b"NaN", NO_ID),
        (b"", NO_ID),
    ],
)
def test_unreadable_frame_is_refused_under_its_id_if_that_is_certain(message: bytes, expected: str) -> None:
    with pytest.raises(FrameError) as refused:
        parse_request(message)
    assert (refused.value.id, refused.value.error.code) == (expected, "invalid_json")


def test_frame_with_too_many_values_is_refused_under_its_id_before_it_is_parsed() -> None:
    message = b'{"type":"req","id":"7","method":"x","params":{"list":[' + b"1," * 1_000_000 + b"1]}}"
    with pytest.raises(FrameError, match="more than 200000 values") as refused:
        parse_request(message)
    assert (refused.value.id, refused.value.error.code) == ("7", "invalid_value")


def test_binary_message_is_refused_as_binary() -> None:
    with pytest.raises(FrameError, match="binary") as refused:
        parse_request(None)
    assert (refused.value.id, refused.value.error.code) == (NO_ID, "malformed_request")
