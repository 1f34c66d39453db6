"""Read chunks that differ from an earlier one in their text alone, as most chunks of an answer do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile

import orjson

_KEY = b'"content":'
_AT_ONCE = 100


class RepeatedChunks:
    """Takes the text out of chunks whose other bytes are those of a chunk that was parsed as a whole."""

    __slots__ = ("_after", "_before", "_head", "_place", "_tail")

    def __init__(self) -> None:
        self._before, self._after = b"\0", b"\0"  # no chunk has them
        self._head, self._place, self._tail = slice(1), slice(0), slice(-1, None)

    def remember(self, payload: bytes, text: str) -> None:
        """Use `payload`, a chunk with nothing but `text`, as the pattern of later ones."""
        before, key, rest = payload.partition(_KEY)
        blanks, _, after = rest.partition(orjson.dumps(text))
        if after and not blanks.strip() and after.find(_KEY) < 0:
            self._before, self._after = before + key + blanks, after
            begin, end = len(self._before), -len(after)
            self._head, self._place, self._tail = slice(begin), slice(begin, end), slice(end, None)

    def find_texts(self, payloads: Sequence[bytes], first: int = 0) -> list[str]:
        """Return the texts of `payloads` from the index `first` on, up to one that has to be parsed as a whole.

        These are no more than a hundred, so that what precedes one that has to is not parsed again and again.
        """
        before, after, head, place, tail = self._before, self._after, self._head, self._place, self._tail
        literals = []
        for payload in islice(payloads, first, first + _AT_ONCE):
            if payload[head] != before or payload[tail] != after:  # half the cost of `startswith` and `endswith`
                break
            literals.append(payload[place])
        if not literals:
            return []
        try:
            texts: list[str] = orjson.loads(b"[%b]" % b",\n".join(literals))  # no string may go on behind a line end
            "".join(texts)  # fails if one is no string
        except (ValueError, TypeError):
            texts = []
        if len(texts) == len(literals) and all(texts):
            return texts
        return [*takewhile(bool, map(_load_text, literals))]


def _load_text(literal: bytes) -> str:
    """Return the text of a JSON string, empty for any other bytes."""
    try:
        text = orjson.loads(literal)
    except ValueError:
        return ""
    return text if isinstance(text, str) else ""
