"""JSON arrays in chunks, which grow without copying what they have."""

from __future__ import annotations

Chunks = tuple[bytes, ...]


def extend(chunks: Chunks, elements: bytes) -> Chunks:
    """Append `elements`, which commas separate, to those in `chunks`, whose concatenation is what it says.

    Chunks of similar size are joined: there are few, and each byte is copied a few times in all.
    """
    if not elements:
        return chunks
    *rest, last = [*chunks, b"," + elements if chunks else elements]
    while rest and len(rest[-1]) <= 2 * len(last):
        last = rest.pop() + last
    return (*rest, last)


def to_object(members: bytes, name: str, before: bytes, chunks: Chunks, after: bytes = b"") -> Chunks:
    """Return the JSON object `members` with one more: an array of `before`, the elements in `chunks`, and `after`.

    `before` and `after` are elements with commas between, or empty.
    """
    head = b'%b,"%b":[%b' % (members.rstrip()[:-1], name.encode(), before)
    comma = b"," if before and (chunks or after) else b""
    tail = b"%b%b]}" % (b"," if chunks and after else b"", after)
    return (head + comma, *chunks, tail)
