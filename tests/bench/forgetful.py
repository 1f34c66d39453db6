"""A gateway that keeps nothing, to measure what keeping costs: `python forgetful.py PYTHON -m service ARGUMENT ...`.

The end of a run is taken for stored, a session for free and for empty; all else is as ever. Only the benchmark runs it.
"""

from __future__ import annotations

import sys
from typing import Any

from service.server.monkey_patch import make_cooperative

make_cooperative()

from service.cli import openclaw  # noqa: E402  # what follows must already be patched
from service.storage.database import open as opening  # noqa: E402
from service.storage.database.database import Database, Operation  # noqa: E402
from service.storage.runs.operations import AcceptRun, BeginRun, FinishRun  # noqa: E402
from service.storage.sessions.transcripts import TranscriptStore  # noqa: E402

_OUTCOMES = {AcceptRun: None, BeginRun: 1, FinishRun: True}


class Forgetful(Database):
    """Says of everything about runs that it is done."""

    def write(self, operation: Operation[Any]) -> Any:
        """Only what is not about runs is written."""
        kind = type(operation)
        return _OUTCOMES[kind] if kind in _OUTCOMES else super().write(operation)


def remember_nothing(_store: TranscriptStore, _key: str) -> tuple[()]:
    """No conversation."""
    return ()


if __name__ == "__main__":
    setattr(opening, "Database", Forgetful)  # noqa: B010  # a name of another module, on purpose
    setattr(TranscriptStore, "load_conversation", remember_nothing)  # noqa: B010
    openclaw(args=sys.argv[4:], prog_name="openclaw")
