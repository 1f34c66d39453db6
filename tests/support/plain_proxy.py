"""A reverse proxy that passes on requests and streams, and, as many do by default, no upgrades to a WebSocket."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_BY_HOP = {"connection", "upgrade", "keep-alive", "transfer-encoding", "content-length", "host"}


@contextmanager
def plain_proxy(
    address: tuple[str, int], failing: Collection[str] = (), seen: list[tuple[str, str]] | None = None
) -> Iterator[str]:
    """Listen on the loopback interface, in front of the server at `address`, and yield the URL.

    A path of `failing` is answered with 503, as while the server restarts; `seen` gets each method and path.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            passed = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            if seen is not None:
                seen.append((self.command, self.path))
            if self.path in failing:
                self.send_error(503)
                return
            upstream = http.client.HTTPConnection(*address)
            try:
                upstream.request(self.command, self.path, body or None, passed)
                answer = upstream.getresponse()
                self.send_response_only(answer.status, answer.reason)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.end_headers()
                while piece := answer.read1():
                    self.wfile.write(piece)
            except ConnectionError:
                pass  # the browser has left
            finally:
                upstream.close()

        do_POST = do_DELETE = do_GET  # noqa: N815 - the names of the standard library

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
