"""The server of tests for connections of any kind: it ends whatever its connections do."""

from __future__ import annotations

import socket
import threading

from support.listener import Listener


class LateConnecting(Listener):
    """Connects to an address that never answers, once its block is being left."""

    def __init__(self, silent: socket.socket) -> None:
        super().__init__()
        self.reached = threading.Event()
        self._address = silent.getsockname()

    def serve(self, connection: socket.socket) -> None:
        self.reached.set()
        connection.recv(1)
        self.connect(self._address).recv(1)


def test_block_ends_though_connection_is_opened_while_it_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listener = LateConnecting(silent)

        def use() -> None:
            with socket.create_connection(("127.0.0.1", listener.port)), listener:
                assert listener.reached.wait(20)
                leaving.set()

        leaving = threading.Event()
        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        assert leaving.wait(20)
        thread.join(10)
        assert not thread.is_alive()
