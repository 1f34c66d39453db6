"""A gateway without storage, to measure the cost of storage: `python forgetful.py PYTHON -m service ARGUMENT ...`.

Ends of runs count as stored, sessions as free and empty; the rest is unchanged. Only the benchmark runs it.
"""

from __future__ import annotations

import sys
from typing import Any

from service.server.monkey_patch import make_cooperative

make_cooperative()

from service.cli import openclaw  # noqa: E402  # what follows must already be patched
from service.storage.database import open as opening  # noqa: E402
from service.storage.database.database import Database, Operation  # noqa: E402
from service.storage.runs.beginning import AcceptRun, BeginRun, Lease  # noqa: E402
from service.storage.runs.finishing import FinishRun  # noqa: E402

_OUTCOMES = {AcceptRun: None, BeginRun: Lease(1), FinishRun: True}


class Forgetful(Database):
    """Report every operation on runs as done."""

    def write(self, operation: Operation[Any]) -> Any:
        """Write only operations that are not about runs."""
        kind = type(operation)
        return _OUTCOMES[kind] if kind in _OUTCOMES else super().write(operation)


if __name__ == "__main__":
    setattr(opening, "Database", Forgetful)  # noqa: B010  # a name of another module, on purpose
    openclaw(args=sys.argv[4:], prog_name="openclaw")
