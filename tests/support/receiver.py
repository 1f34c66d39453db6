"""A receiver of webhooks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson

from support.polling import until
from support.post_server import taking_posts


@dataclass(frozen=True)
class Message:
    """What was posted."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def run_id(self) -> str:
        run_id: str = orjson.loads(self.body)["data"]["id"]
        return run_id


@dataclass
class Receiver:
    """Answers with `statuses`, the last one again and again. `port` is where it listens."""

    port: int = 0
    statuses: list[int] = field(default_factory=lambda: [204])
    messages: list[Message] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def take(self, message: Message) -> int:
        with self.lock:
            self.messages.append(message)
            return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def of(self, run_id: str) -> list[Message]:
        with self.lock:
            return [message for message in self.messages if message.run_id == run_id]

    def wait_for(self, run_id: str, count: int = 1) -> list[Message]:
        until(lambda: len(self.of(run_id)) >= count)
        return self.of(run_id)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Start a receiver on the loopback interface."""
    found = Receiver()
    with taking_posts(lambda *message: found.take(Message(*message))) as found.port:
        yield found
