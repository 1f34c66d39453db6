"""Read chunks that differ from an earlier one in their text alone, as most chunks of an answer do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import orjson

_KEY = b'"content":'


class RepeatedChunks:
    """Takes the text out of chunks whose other bytes are those of a chunk that was parsed as a whole."""

    __slots__ = ("_after", "_before", "_place")

    def __init__(self) -> None:
        self._before, self._after = b"\0", b"\0"  # no chunk has them
        self._place = slice(0)

    def remember(self, payload: bytes, text: str) -> None:
        """Use `payload`, a chunk with nothing but `text`, as the pattern of later ones."""
        before, key, rest = payload.partition(_KEY)
        blanks, _, after = rest.partition(orjson.dumps(text))
        if after and not blanks.strip() and _KEY not in after:
            self._before, self._after = before + key + blanks, after
            self._place = slice(len(self._before), -len(after))

    def find_texts(self, payloads: Sequence[bytes], first: int = 0) -> list[str]:
        """Return the texts of `payloads` from the index `first` on, up to one that has to be parsed as a whole."""
        before, after, place = self._before, self._after, self._place
        texts = []
        for payload in islice(payloads, first, None):
            if not (payload.startswith(before) and payload.endswith(after)):
                break
            try:
                text = orjson.loads(payload[place])
            except ValueError:
                break
            if not text or not isinstance(text, str):
                break
            texts.append(text)
        return texts
