"""Find where a request continues its session.

Most clients either send only new messages or the whole conversation. The whole conversation is compared with the
session's branches (`service.agent.comparison`) and is the truth: the model sees what the user sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, chain

from service.agent.comparison import EMPTY, digest_entries, digest_turn, extend_digest, is_same, loose_parts
from service.agent.conversation import IncomingMessage, annotate_truncated, check_new, select_new
from service.agent.request import AgentRequest
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Message, Role
from service.storage.runs.records import Protocol
from service.storage.sessions.path_cache import LoadedPath
from service.storage.sessions.transcripts import TranscriptStore
from service.storage.sessions.tree import ROOT, SessionHead, SessionTree, last_of


@record
class Placement:
    """The place of a turn: after message `parent`, which ends `history`; `new` are the messages that it adds.

    `digest` is that of the history, `None` if it is unknown; `loaded` is the history as it is stored. `resends` is set
    if the request shows whether its client sends the whole conversation each time.
    """

    parent: int
    history: tuple[Message, ...]
    new: tuple[IncomingMessage, ...]
    digest: str | None
    loaded: LoadedPath
    resends: bool | None = None

    def digests(self, messages: Sequence[Message], reply_count: int) -> tuple[str | None, ...]:
        """Return the digests of the turn's `messages`, of which the last `reply_count` are the output."""
        if self.digest is None:
            return ()
        output = len(messages) - reply_count
        return digest_turn(self.digest, messages[:output], messages[output:])


def place_request(
    request: AgentRequest, key: str, store: TranscriptStore, head: SessionHead | None = None
) -> Placement:
    """Find where `request` continues the session `key`, which a run holds since it had `head`.

    * A request with an answer before its last messages brings the whole conversation. It continues after the longest
      beginning that the session has; that may be the root. If its last messages, too, have been sent there before,
      they are answered again.
    * One that follows a run continues after the last message of that run.
    * Without an answer, the messages are new and continue the current branch, unless the client is one that sends the
      whole conversation each time: then they are the whole conversation.

    Raises `StoreError`, and `GatewayError` (400) if there is nothing to answer or a tool result has no call.
    """
    if request.previous_run_id is not None:
        return _place_after(request.previous_run_id, request, key, store)
    roles = {item.message.role for item in request.messages}
    is_answerable = not roles.isdisjoint((Role.USER, Role.TOOL))
    if is_answerable and (Role.ASSISTANT in roles or request.resends):
        tree = store.read_tree(key, head)
        if tree.entry_count:
            return _Search(request, key, store, tree, head).place()
    loaded = store.load_current(key, head)
    tree = loaded.tree
    if is_answerable and tree.entry_count and tree.resends and request.protocol is Protocol.HTTP:
        return _Search(request, key, store, tree, head).place()
    history = _history_of(loaded)
    new = select_new(history, request.messages, has_instructions=bool(request.system_text))
    digest = tree.digest if tree.entry_count else EMPTY
    return Placement(tree.tip, history, new, digest, loaded, True if request.resends else None)


def _place_after(run_id: str, request: AgentRequest, key: str, store: TranscriptStore) -> Placement:
    found = store.find_last_of_run(key, run_id)
    if found is None:
        text = "The previous response has no messages to continue: it failed or was deleted. Send all of the input."
        raise GatewayError("previous_response_not_found", text, param="previous_response_id")
    seq, digest = found
    loaded = store.load_path(key, store.read_tree(key), seq)
    history = _history_of(loaded)
    new = request.messages
    if request.system_text and not any(item.message.role in (Role.USER, Role.TOOL) for item in new):
        new = select_new(history, new, has_instructions=True)
    else:
        check_new(history, new)
    return Placement(seq, history, tuple(new), digest, loaded)


def _history_of(loaded: LoadedPath) -> tuple[Message, ...]:
    return annotate_truncated(loaded.messages) if loaded.is_cut_off else loaded.messages


class _Search:
    """Search of a session for the conversation of a request."""

    def __init__(
        self, request: AgentRequest, key: str, store: TranscriptStore, tree: SessionTree, head: SessionHead | None
    ) -> None:
        self._incoming = request.messages
        self._key = key
        self._store = store
        self._tree = tree
        self._head = head
        #: The digest before each message, and after the last one.
        self._digests = list(accumulate((item.message for item in self._incoming), extend_digest, initial=EMPTY))

    @cached_property
    def _early(self) -> dict[int, str]:
        """The digests of messages that have none, which are all before those that have."""
        return {} if self._tree.is_digested else digest_entries(self._store.iter_entries(self._key), self._tree)

    def place(self) -> Placement:
        """Return the place of the request."""
        roles = [item.message.role for item in self._incoming]
        answered = max((index + 1 for index, role in enumerate(roles) if role is Role.ASSISTANT), default=0)
        is_current = answered and self._digests[answered] == self._tree.digest
        if is_current and not self._loose_parts(answered):  # what most requests bring: the current branch
            return self._placement(self._tree.tip, answered)
        whole = self._find_whole(answered)
        repeated = self._find_repeated(answered)
        if whole or repeated:
            seq = self._most_alike(whole, repeated, answered)
            return self._placement(seq, len(roles) if seq in repeated else answered)
        return self._placement(*self._find_longest(answered))

    def _placement(self, seq: int, kept: int) -> Placement:
        if seq == self._tree.tip:
            loaded = self._store.load_current(self._key, self._head)
        else:
            loaded = self._store.load_path(self._key, self._tree, seq)
        history = _history_of(loaded)
        new = self._incoming[kept:]
        if not history or history[-1].role is Role.ASSISTANT or new:
            check_new(history, new)
        return Placement(seq, history, new, self._digests[kept], loaded, resends=True)

    def _find(self, digests: Sequence[str]) -> dict[str, list[int]]:
        found, wanted = self._store.find_digests(self._key, digests), frozenset(digests)
        for seq, digest in self._early.items():
            if digest in wanted:
                found.setdefault(digest, []).append(seq)
        return found

    def _find_whole(self, kept: int) -> list[int]:
        """Return the messages that end the conversation of the first `kept` messages."""
        digest = self._digests[kept]
        return [ROOT] if digest == EMPTY else self._find([digest]).get(digest, [])

    def _find_longest(self, answered: int) -> tuple[int, int]:
        """Return the end of the longest beginning that the session has, and the number of its messages."""
        found = self._find(list(dict.fromkeys(self._digests[1:answered])))
        for kept in range(answered - 1, 0, -1):
            if seqs := found.get(self._digests[kept]):
                return self._most_alike(seqs, (), kept), kept
        return ROOT, 0

    def _find_repeated(self, answered: int) -> list[int]:
        """Return the messages that end the whole conversation, if its last messages were sent as they are now."""
        sent = [item.message for item in self._incoming[answered:]]
        if not sent or any(message.has_image for message in sent):
            return []
        found = self._find(self._digests[-1:]).get(self._digests[-1], ())
        return [seq for seq in found if self._ends_with(seq, sent)]

    def _ends_with(self, seq: int, sent: Sequence[Message]) -> bool:
        stored = self._store.load_messages(self._key, last_of(self._tree.path_to(seq), len(sent)))
        return len(stored) == len(sent) and all(map(is_same, stored, sent))

    def _loose_parts(self, kept: int) -> frozenset[tuple[str | None, str]]:
        return loose_parts([item.message for item in self._incoming[:kept]])

    def _most_alike(self, whole: Sequence[int], repeated: Sequence[int], kept: int) -> int:
        """Return the message to continue after, of those whose conversations begin with the first `kept` messages.

        It is the one with most images and results as they are sent: a user who goes back to another picture may have
        had the same answers. Of several, it is one of those that are `repeated`, and of these the latest.
        """
        seqs = {*whole, *repeated}
        sent = self._loose_parts(kept) if len(seqs) > 1 else frozenset()
        paths = {seq: set(chain.from_iterable(self._tree.path_to(seq))) for seq in seqs} if sent else {}
        common = set.intersection(*paths.values()) if paths else set()

        def alike(seq: int) -> tuple[int, bool, int]:
            own = sorted(paths[seq] - common) if sent else ()
            return len(sent & loose_parts(self._store.load_messages(self._key, own))), seq in repeated, seq

        return max(seqs, key=alike)
