"""Actions of the soak's callers, each with its expected answers."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import orjson
from support.chat import PATH, ask, streamed_text, text_of
from support.conformance import NonconformityError
from support.live import TOKEN, LiveGateway
from support.upstream_answers import TEXT

#: Accepted status codes for each failing upstream.
FAULTS = {
    "status-500": {502},
    "status-429": {429},
    "status-401": {502},
    "drop-before": {502, 503},
    "garbage": {502},
}
MIDWAY = ("drop-after", "error-event")


@dataclass
class Tally:
    """Counts of actions and failures."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Caller:
    """A caller that repeats actions in a random order determined by `seed`."""

    def __init__(self, gateway: LiveGateway, tally: Tally, seed: int) -> None:
        self._gateway = gateway
        self._tally = tally
        self._random = random.Random(seed)
        self._session = f"soak-{seed}"
        self._client = gateway.client()
        self._kinds: list[tuple[Callable[[], None], int]] = [
            (self.json, 6),
            (self.stream, 6),
            (self.session, 4),
            (self.tools, 3),
            (self.abort, 3),
            (self.bad_input, 3),
            (self.fault, 3),
            (self.fault_midway, 1),
            (self.look_around, 1),
            (self.half_a_request, 1),
            (self.reconnect, 1),
        ]

    def step(self) -> None:
        """Perform one action and record its failure."""
        kinds, weights = zip(*self._kinds, strict=True)
        kind = self._random.choices(kinds, weights)[0]
        try:
            kind()
        except (AssertionError, NonconformityError, httpx.HTTPError, OSError, KeyError, ValueError) as error:
            self._tally.wrong.append(f"{time.strftime('%H:%M:%S')} {kind.__name__}: {error!r}"[:500])
        self._tally.done[kind.__name__] += 1

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def json(self) -> None:
        """Request an answer as one object."""
        assert text_of(ask(self._client, "hi", model="openclaw")) == TEXT

    def stream(self) -> None:
        """Request a streamed answer."""
        assert streamed_text(ask(self._client, "hi", model="openclaw", stream=True)) == TEXT

    def session(self) -> None:
        """Send a turn of a session; sometimes start a new session."""
        word = f"word-{self._random.random()}"
        headers = {"x-openclaw-session-key": self._session, "x-openclaw-model": "stub/echo"}
        assert text_of(ask(self._client, word, headers=headers)) == word
        if self._random.random() < 0.05:
            self._session = f"soak-{self._random.random()}"

    def tools(self) -> None:
        """Request a run in which the agent calls its own tool."""
        answer = text_of(ask(self._client, "use one", model="openclaw/worker"))
        assert answer, "a run with a tool said nothing"

    def abort(self) -> None:
        """Leave a stream before its end."""
        body = orjson.dumps({"model": "openclaw", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
        head = self._head(body, "x-openclaw-model: stub/slow\r\n")
        with socket.create_connection(self._gateway.address, 10) as connection:
            connection.sendall(head + body)
            assert b" 200 " in connection.recv(4096)
            time.sleep(self._random.random() * 0.2)

    def bad_input(self) -> None:
        """Send an invalid request and check the error."""
        status, answer = self._random.choice([self._bad_json, self._bad_value, self._no_agent, self._no_path])()
        assert answer.status_code == status, f"{answer.status_code} {answer.text[:200]}"

    def fault(self) -> None:
        """Request a failing upstream."""
        model = self._random.choice(list(FAULTS))
        answer = ask(self._client, "hi", headers={"x-openclaw-model": f"stub/{model}"})
        assert answer.status_code in FAULTS[model], f"{model} was reported as {answer.status_code} {answer.text[:200]}"

    def fault_midway(self) -> None:
        """Request an upstream that fails in the middle of a stream: the stream ends with an error."""
        model = self._random.choice(MIDWAY)
        text = ask(self._client, "hi", stream=True, headers={"x-openclaw-model": f"stub/{model}"}).text
        assert '"error"' in text, text[-300:]
        assert text.endswith("data: [DONE]\n\n"), text[-300:]

    def look_around(self) -> None:
        """Request the health and the models."""
        for path in ("/healthz", "/readyz", "/v1/models", "/openapi.json"):
            assert self._client.get(path).status_code == httpx.codes.OK, path

    def half_a_request(self) -> None:
        """Close a connection in the middle of a request."""
        head = self._head(b"x" * 100)
        with socket.create_connection(self._gateway.address, 10) as connection:
            connection.sendall(head[: self._random.randrange(len(head))])

    def reconnect(self) -> None:
        """Reconnect."""
        self._client.close()
        self._client = self._gateway.client()

    def _head(self, body: bytes, more: str = "") -> bytes:
        lines = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{more}"
        return f"{lines}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def _bad_json(self) -> tuple[int, httpx.Response]:
        return 400, self._client.post(PATH, content=b'{"messages": [', headers={"content-type": "application/json"})

    def _bad_value(self) -> tuple[int, httpx.Response]:
        return 400, ask(self._client, "hi", temperature=9)

    def _no_agent(self) -> tuple[int, httpx.Response]:
        return 404, ask(self._client, "hi", model="openclaw/nobody")

    def _no_path(self) -> tuple[int, httpx.Response]:
        return 404, self._client.get("/v1/nothing")
