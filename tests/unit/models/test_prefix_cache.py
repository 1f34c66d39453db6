"""The cache of results for beginnings of conversations, and JSON in chunks."""

from __future__ import annotations

from itertools import accumulate

import orjson
import pytest

from service.core.messages import Message, Role, text_message
from service.models.json_chunks import Chunks, extend, to_object
from service.models.prefix_cache import Prefix, PrefixCache


def said(*texts: str) -> tuple[Message, ...]:
    return tuple(text_message(Role.USER, text) for text in texts)


def test_beginning_is_found_for_what_continues_it_only() -> None:
    cache: PrefixCache[int] = PrefixCache(1_000)
    one, two, three = said("one", "two", "three")
    cache.put(Prefix("m", (one, two), 2))
    found = [cache.find("m", messages) for messages in ((one, two), (one, two, three))]
    assert [prefix.value for prefix in found if prefix] == [2, 2]
    assert cache.find("m", (one,)) is None
    assert cache.find("m", (one, three)) is None
    assert cache.find("m", (two,)) is None
    assert cache.find("m", ()) is None
    assert cache.find("n", (one, two)) is None
    cache.put(Prefix("n", (one,), 1))
    assert cache.find("m", (one, two)) is None


def test_cache_is_bounded_in_bytes() -> None:
    cache: PrefixCache[str] = PrefixCache(1_000)
    conversations = [said(str(number)) for number in range(4)]
    for messages in conversations:
        cache.put(Prefix(None, messages, "", 300))
    assert [cache.find(None, messages) is not None for messages in conversations] == [False, True, True, True]
    cache.put(Prefix(None, conversations[1], "", 1_000))
    assert cache.find(None, conversations[1]) is None


@pytest.mark.parametrize("before", [b"", b"0", b"0,0"])
@pytest.mark.parametrize("after", [b"", b"9", b"9,9"])
def test_array_in_chunks_has_every_element(before: bytes, after: bytes) -> None:
    added = [b"", b"1", b"", b'2,"%b"' % (b"3" * 500), *(b"%d" % number for number in range(200))]
    nothing: Chunks = ()
    for chunks in accumulate(added, extend, initial=nothing):
        elements = b",".join(filter(None, (before, b"".join(chunks), after)))
        whole = b"".join(to_object(b'{"a":1}', "m", before, chunks, after))
        assert orjson.loads(whole) == {"a": 1, "m": orjson.loads(b"[%b]" % elements)}
    assert len(chunks) < 10
