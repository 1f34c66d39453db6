"""Decoded messages of the last used paths, so that a turn reads only what was added since.

Stored messages never change: a path of a session begins with the same messages for as long as the session exists. Other
processes may add messages or a summary, which the reader sees in the session's row and in `summaries`.
"""

from __future__ import annotations

from service.core.dataclass import record
from service.core.messages import Message
from service.storage.sessions.tree import Path

#: Bytes of one process.
MAX_BYTES = 64 * 1024 * 1024

#: Shorter paths are read as quickly.
MIN_MESSAGES = 16

_BYTES_A_MESSAGE = 600


@record
class CachedPath:
    """The conversation on `path`: a summary of the messages before number `covers`, if that is not 0, and the others.

    `size` is an estimate of its bytes.
    """

    session_id: str
    path: Path
    covers: int
    messages: tuple[Message, ...]
    size: int

    def is_beginning_of(self, path: Path) -> bool:
        """Return True if `path` begins with the cached one."""
        count = len(self.path)
        if not count or count > len(path) or self.path[:-1] != path[: count - 1]:
            return False
        own, other = self.path[-1], path[count - 1]
        return own.start == other.start and own.stop <= other.stop


class PathCache:
    """The last used path of each session, the least recently used sessions dropped first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._paths: dict[str, CachedPath] = {}

    def find(self, key: str, session_id: str, path: Path) -> CachedPath | None:
        """Return the cached conversation on a beginning of `path`, if there is one."""
        found = self._paths.get(key)
        if found is None or found.session_id != session_id or not found.is_beginning_of(path):
            return None
        return found

    def put(self, key: str, cached: CachedPath) -> None:
        """Cache a conversation in place of the session's earlier one."""
        self._drop(key)
        if len(cached.messages) < MIN_MESSAGES or cached.size > self._max_bytes:
            return
        self._paths[key] = cached
        self._bytes += cached.size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._paths)))

    def _drop(self, key: str) -> None:
        dropped = self._paths.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped.size


def size_of(payload_characters: int, messages: int) -> int:
    """Estimate the bytes of decoded messages."""
    return 2 * payload_characters + _BYTES_A_MESSAGE * messages
