"""The servers of the benchmark, each a process: `python servers.py upstream|floor PORT [UPSTREAM_PORT]`.

`upstream` is a model provider that answers at once, JSON or 20 tokens as Server-Sent Events. `floor` is the least that
a gateway on gevent can do: a bare pywsgi application that relays such answers over pooled connections, without
validation, authentication, state or log.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402  # what follows must already be patched
import socket  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

from gevent.pywsgi import WSGIServer  # noqa: E402
from geventhttpclient import HTTPClient  # noqa: E402

TOKENS = 20
Start = Callable[[str, list[tuple[str, str]]], Any]


def _event(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **extra}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _stream() -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS}
    words = [_event({"content": f"word{number} "}) for number in range(TOKENS)]
    return b"".join([_event({"role": "assistant"}), *words, _event({}, "stop", usage=usage), b"data: [DONE]\n\n"])


def _completion() -> bytes:
    text = "".join(f"word{number} " for number in range(TOKENS))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    completion = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(completion).encode()


def upstream(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Answer at once."""
    streaming = b'"stream":true' in environ["wsgi.input"].read().replace(b" ", b"")
    body = STREAM if streaming else COMPLETION
    kind = "text/event-stream" if streaming else "application/json"
    start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def floor(client: HTTPClient) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """Relay what the upstream says."""

    def relay(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        response = client.post("/v1/chat/completions", body, headers={"Content-Type": "application/json"})
        kind = str(response["content-type"])
        start("200 OK", [("Content-Type", kind)])
        if kind != "text/event-stream":
            yield response.read()
            return
        while event := response.readline(b"\n\n"):
            yield event

    return relay


class NoDelayServer(WSGIServer):  # type: ignore[misc]  # gevent has no types
    """Sends small packets at once."""

    def do_read(self) -> Any:
        """Accept one connection."""
        accepted = super().do_read()
        if accepted is not None:
            accepted[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted


STREAM, COMPLETION = _stream(), _completion()

if __name__ == "__main__":
    name, port, *rest = sys.argv[1:]
    application = upstream if name == "upstream" else floor(HTTPClient("127.0.0.1", int(rest[0]), concurrency=256))
    NoDelayServer(("127.0.0.1", int(port)), application, log=None).serve_forever()
