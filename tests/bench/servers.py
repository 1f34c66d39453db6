"""The servers of the benchmark, each a process: `python servers.py upstream|floor|fold PORT [UPSTREAM_PORT]`.

`upstream` is a model provider that answers at once, JSON or 20 tokens as Server-Sent Events; the model `paced-16-250`
takes 250 ms for each of its 16 tokens, which contain the time of sending. `floor` is the minimum of a gateway on
gevent: a bare pywsgi application that relays such answers over pooled connections, without validation, authentication,
state or log. `fold` does the same for JSON alone, but asks for a stream, as the gateway does, and joins it.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402  # what follows must already be patched
import re  # noqa: E402
import resource  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import orjson  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from geventhttpclient import HTTPClient  # noqa: E402

TOKENS = 20
CONNECTIONS = 4096
_PACED = re.compile(rb'"model": ?"paced-([0-9]+)-([0-9]+)"')
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


def _pace(tokens: int, pause_seconds: float) -> Iterator[bytes]:
    due = time.monotonic()
    for _ in range(tokens):
        due += pause_seconds
        gevent.sleep(max(0.0, due - time.monotonic()))
        yield PACED_TOKEN % time.monotonic()
    yield STREAM_END


def upstream(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Answer at once, or at the pace in the model's name."""
    asked = environ["wsgi.input"].read()
    if paced := _PACED.search(asked):
        start("200 OK", [("Content-Type", "text/event-stream")])
        return _pace(int(paced[1]), int(paced[2]) / 1000)
    streaming = b'"stream":true' in asked.replace(b" ", b"")
    body = STREAM if streaming else COMPLETION
    kind = "text/event-stream" if streaming else "application/json"
    start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def floor(client: HTTPClient) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """Relay the upstream's answer."""

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


def fold(client: HTTPClient) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """Join a stream into one object."""

    def relay(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        body = orjson.loads(environ["wsgi.input"].read())
        body["stream"] = True
        response = client.post("/v1/chat/completions", orjson.dumps(body), headers={"Content-Type": "application/json"})
        pieces = []
        while (event := response.readline(b"\n\n")) and event != b"data: [DONE]\n\n":
            pieces.append(orjson.loads(event[6:])["choices"][0]["delta"].get("content", ""))
        response.read()
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        start("200 OK", [("Content-Type", "application/json")])
        return [orjson.dumps(completion)]

    return relay


class NoDelayServer(WSGIServer):  # type: ignore[misc]  # gevent has no types
    """A server that sends small packets at once."""

    backlog = 2048

    def do_read(self) -> Any:
        """Accept one connection."""
        accepted = super().do_read()
        if accepted is not None:
            accepted[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted


STREAM, COMPLETION = _stream(), _completion()
PACED_TOKEN = _event({"content": "PACE"}).replace(b"%", b"%%").replace(b"PACE", b"%.6f ")
STREAM_END = _event({}, "stop") + b"data: [DONE]\n\n"

if __name__ == "__main__":
    name, port, *rest = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    application: Callable[[dict[str, Any], Start], Iterable[bytes]] = upstream
    if name != "upstream":
        client = HTTPClient("127.0.0.1", int(rest[0]), concurrency=CONNECTIONS, network_timeout=60)
        application = {"floor": floor, "fold": fold}[name](client)
    NoDelayServer(("127.0.0.1", int(port)), application, log=None).serve_forever()
