"""Which network addresses a name has."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from service.core.concurrency import WorkerPool, get_addresses

#: The addresses that a name has, as text, for a port. Raises `OSError` when it has none.
Resolver = Callable[[str, int], Sequence[str]]

_LOOKUP_THREADS, _IDLE_SECONDS = 4, 10.0


class SystemResolver:
    """The addresses the system knows for a name, in the order it prefers.

    It has threads of its own: names that strangers make slow must not hold up those of model providers.
    """

    def __init__(self) -> None:
        self._threads = WorkerPool(_LOOKUP_THREADS, _IDLE_SECONDS)

    def __call__(self, host: str, port: int) -> list[str]:
        """A `Resolver`."""
        found = self._threads.run(get_addresses, host, port, 0, socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))
