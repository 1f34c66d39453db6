"""Merging of the pieces of text in a run's log that no reader needs separately."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from service.agent.events import ReasoningDelta, RunEvent, TextDelta, ToolCallWritten
from service.core.dataclass import replace

#: Events that neighbours of their kind are joined with.
PIECES = (TextDelta, ReasoningDelta, ToolCallWritten)
_Piece = TextDelta | ReasoningDelta | ToolCallWritten

#: The longest text that pieces are merged into, so that repeated merging does not copy all of it.
_MERGED_CHARACTERS = 64 * 1024


def merge_pieces(log: Sequence[RunEvent], barriers: Collection[int]) -> tuple[list[RunEvent], dict[int, int]]:
    """Return `log` with neighbouring pieces joined, except across the places `barriers`, and where these are in it."""
    moved: dict[int, int] = {}
    merged: list[RunEvent] = []
    pieces: list[_Piece] = []
    size = 0
    for place, event in enumerate(log):
        piece = event if isinstance(event, PIECES) else None
        if pieces and (place in barriers or not _continues(piece, pieces[0], size)):
            merged.append(_joined(pieces))
            pieces, size = [], 0
        if place in barriers:
            moved[place] = len(merged)
        if piece is not None:
            pieces.append(piece)
            size += len(piece.text)
        else:
            merged.append(event)
    if pieces:
        merged.append(_joined(pieces))
    moved[len(log)] = len(merged)
    return merged, moved


def _continues(piece: _Piece | None, first: _Piece, size: int) -> bool:
    """Return True if `piece` is to be joined with the pieces from `first` on, which have `size` characters."""
    if piece is None or type(piece) is not type(first) or size + len(piece.text) > _MERGED_CHARACTERS:
        return False
    return not isinstance(piece, ToolCallWritten) or piece.id == getattr(first, "id", None)


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    return pieces[0] if len(pieces) == 1 else replace(pieces[0], text="".join([piece.text for piece in pieces]))
