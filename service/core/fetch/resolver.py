"""Name resolution in threads of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from service.core.concurrency import ThreadPool, get_addresses

#: Return the addresses of a host, as strings, for a port. Raises `OSError` when it has none.
Resolver = Callable[[str, int], Sequence[str]]

_LOOKUP_THREADS, _IDLE_SECONDS = 4, 10.0


class SystemResolver:
    """The system's addresses for a name, in its order of preference.

    It has its own threads, so that deliberately slow names do not delay lookups for model providers.
    """

    def __init__(self) -> None:
        self._threads = ThreadPool(_LOOKUP_THREADS, _IDLE_SECONDS)

    def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`; see `Resolver`."""
        found = self._threads.run(get_addresses, host, port, 0, socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))
