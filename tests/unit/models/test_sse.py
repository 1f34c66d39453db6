"""The decoder of Server-Sent Events: line endings, fields, chunk boundaries, limits."""

from __future__ import annotations

from collections import deque
from itertools import pairwise, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import GatewayError
from service.models.http.sse import SSEDecoder

LINE_ENDS = ("\n", "\r\n", "\r")


def decode(*chunks: bytes) -> list[bytes]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"data:one\n\n", [b"one"]),
        (b"data:  one \n\n", [b" one "]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
        (b"data\n\n", [b""]),
        (b"data:\ndata\n\n", [b"\n"]),
        (b": ping\n\nevent: x\nid: 1\nretry: 5\ndata: one\n\n", [b"one"]),
        (b"event: x\n\n\n\n", []),
        (b"datas: no\ndata one\n\n", []),
        (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),
        (b"data: one\n\n\xef\xbb\xbfdata: two\n\n", [b"one"]),
        (b"data: \xc3\xa9\r\n\r\n", [b"\xc3\xa9"]),
        (b"data: cut off\n", []),
        (b"", []),
    ],
)
def test_stream_is_decoded_to_events(stream: bytes, events: list[bytes]) -> None:
    assert decode(stream) == events
    assert decode(*(bytes([byte]) for byte in stream)) == events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n", [b"two"]),
        (b"data: one\r\n\r\ndata: two\r", [b"two"]),
        (b"data: two", [b"two"]),
        (b"\xef\xbb\xbfdata: two", [b"two"]),
        (b"data: one\n\n", []),
        (b": bye", []),
        (b"", []),
    ],
)
def test_last_event_without_blank_line_is_decoded(stream: bytes, events: list[bytes]) -> None:
    decoder = SSEDecoder()
    decoder.feed(stream)
    assert decoder.finish() == events


@given(
    lines=st.lists(st.tuples(st.sampled_from(["data: a", "data:b", "", ": c", "id: 1"]), st.sampled_from(LINE_ENDS))),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_chunk_boundaries_and_line_endings_do_not_matter(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    written = [text + end for text, end in lines]
    # A CR followed by a line that is only LF is one line end, not two.
    stream = "".join(written).encode()
    plain = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert decode(*pieces) == decode(plain)


@pytest.mark.parametrize(
    "chunk",
    [b"data: " + b"x" * 100, b"x" * 100, b"data: xxxxxxxxx\n" * 10, b"data\n" * 100],
    ids=["one long line", "a long line of any kind", "many lines", "many empty lines"],
)
def test_endless_event_is_refused(chunk: bytes) -> None:
    decoder = SSEDecoder(max_event_bytes=1024)
    with pytest.raises(GatewayError) as refusal:
        deque(map(decoder.feed, repeat(chunk, 1000)))
    assert refusal.value.code == "provider_error"
    assert "1 KiB" in refusal.value.message


def test_complete_event_beyond_limit_is_refused() -> None:
    with pytest.raises(GatewayError):
        SSEDecoder(max_event_bytes=1024).feed(b"data: " + b"x" * 2000 + b"\n\n")


def test_fields_other_than_data_do_not_count_towards_limit() -> None:
    decoder = SSEDecoder(max_event_bytes=1024)
    for _ in range(1000):
        assert decoder.feed(b": still here, still working\n\n") == []
    assert decoder.feed(b"data: one\n\n") == [b"one"]
