"""Decoded messages of the last used paths, so that a turn reads only what others have added since.

Stored messages never change: a path of a session begins with the same messages for as long as the session exists. Other
processes may add messages or a summary, which the reader sees in the session's row and in `summaries`; a summary is
stored together with messages.
"""

from __future__ import annotations

from itertools import takewhile

from service.core.dataclass import record, replace
from service.core.messages import Image, Message
from service.storage.runs.records import RunOutcome
from service.storage.sessions.tree import Path, SessionHead, SessionTree

#: Bytes of one process.
MAX_BYTES = 64 * 1024 * 1024

#: Shorter paths are not kept: many sessions have one turn only.
MIN_MESSAGES = 4

_BYTES_A_MESSAGE = 600


@record
class LoadedPath:
    """The conversation on a `path` of `tree`.

    It begins with the summary of earlier messages by the run `summarised_by`, if there is one. `size` is an estimate of
    its bytes. At least one of the messages `is_cut_off`, or none; the first `unsigned` ones have no
    provider data.
    """

    tree: SessionTree
    path: Path
    summarised_by: str | None
    messages: tuple[Message, ...]
    size: int
    is_cut_off: bool = False
    unsigned: int = 0

    def is_beginning_of(self, path: Path) -> bool:
        """Return True if `path` begins with the loaded one."""
        count = len(self.path)
        if not count or count > len(path) or self.path[:-1] != path[: count - 1]:
            return False
        own, other = self.path[-1], path[count - 1]
        return own.start == other.start and own.stop <= other.stop

    def is_current(self, head: SessionHead) -> bool:
        """Return True if this is the current branch of the session with `head`."""
        tree = self.tree
        is_same = (tree.session_id, tree.entry_count) == (head.session_id, head.entry_count)
        return is_same and bool(self.path) and self.path[-1].stop == tree.entry_count

    def extended(self, session_id: str, outcome: RunOutcome) -> LoadedPath:
        """Return the path with the messages of a run that continues it; `session_id` is that of a new session."""
        tree, added = self.tree.extended(outcome.parent, len(outcome.messages)), outcome.messages
        tree = replace(
            tree,
            session_id=tree.session_id or session_id,
            resends=tree.resends if outcome.resends is None else outcome.resends,
            is_digested=tree.is_digested if self.tree.entry_count else outcome.digests[:1] not in ((), (None,)),
            digest=outcome.digests[-1] if outcome.digests else None,
        )
        return self.with_messages(
            tree, tree.path_to(tree.tip), added, size_of(sum(map(_characters, added)), len(added))
        )

    def with_messages(self, tree: SessionTree, path: Path, added: tuple[Message, ...], size: int) -> LoadedPath:
        """Return a path that begins with this one, with the messages that follow and an estimate of their bytes."""
        unsigned = self.unsigned
        if unsigned == len(self.messages):
            unsigned += sum(1 for _ in takewhile(lambda message: message.provider_data is None, added))
        is_cut_off = self.is_cut_off or any(message.cut_off is not None for message in added)
        return LoadedPath(tree, path, self.summarised_by, self.messages + added, self.size + size, is_cut_off, unsigned)


class PathCache:
    """The last used path of each session, the least recently used sessions dropped first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._paths: dict[str, LoadedPath] = {}

    def find(self, key: str, session_id: str, path: Path) -> LoadedPath | None:
        """Return the cached conversation on a beginning of `path`, if there is one."""
        found = self._paths.get(key)
        if found is None or found.tree.session_id != session_id or not found.is_beginning_of(path):
            return None
        return found

    def find_current(self, key: str, head: SessionHead) -> LoadedPath | None:
        """Return the current branch of the session `key`, which has `head`, if it is cached."""
        found = self._paths.get(key)
        return found if found is not None and found.is_current(head) else None

    def put(self, key: str, loaded: LoadedPath) -> None:
        """Cache a conversation in place of the session's earlier one."""
        self._drop(key)
        if len(loaded.messages) < MIN_MESSAGES or loaded.size > self._max_bytes:
            return
        self._paths[key] = loaded
        self._bytes += loaded.size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._paths)))

    def _drop(self, key: str) -> None:
        dropped = self._paths.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped.size


def size_of(payload_characters: int, messages: int) -> int:
    """Estimate the bytes of decoded messages."""
    return 2 * payload_characters + _BYTES_A_MESSAGE * messages


def _characters(message: Message) -> int:
    """Return about the number of characters of the message's payload."""
    parts = sum(len(part.url if isinstance(part, Image) else part.text) for part in message.parts)
    return parts + sum(len(call.arguments) for call in message.tool_calls)
