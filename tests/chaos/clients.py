"""Clients that send requests continuously and record their complete answers."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import orjson
from support.live import TOKEN

SESSIONS = ("alpha", "beta", "gamma")


@dataclass(frozen=True)
class Question:
    """A request: its session (empty if stateless) and its idempotency key, if any."""

    session: str
    text: str
    idempotency_key: str | None


@dataclass
class Ledger:
    """Complete answers, and unanswered questions with a key."""

    answers: list[tuple[str, Question]] = field(default_factory=list)
    unanswered: list[Question] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, session: str, question: Question) -> None:
        with self.lock:
            self.answers.append((session, question))

    def failed(self, question: Question) -> None:
        if question.idempotency_key is not None:
            with self.lock:
                self.unanswered.append(question)

    def take_unanswered(self) -> Question | None:
        with self.lock:
            return self.unanswered.pop() if self.unanswered else None


class Talker:
    """A client. The agent echoes every question, so that each answer identifies its question."""

    def __init__(self, ledger: Ledger, url: Callable[[], str], seed: int) -> None:
        self.ledger = ledger
        self._url = url
        self._chance = random.Random(seed)

    def talk(self, is_over: threading.Event) -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            while not is_over.is_set():
                question = self.ledger.take_unanswered() or self._new_question()
                try:
                    self.ask(client, question)
                except (httpx.TransportError, UnansweredError):
                    self.ledger.failed(question)
                    is_over.wait(0.05)

    def ask(self, client: httpx.Client, question: Question) -> None:
        """Send a question and record a complete answer."""
        headers = {}
        if question.session:
            headers["x-openclaw-session-key"] = question.session
        if question.idempotency_key is not None:
            headers["Idempotency-Key"] = question.idempotency_key
        streamed = self._chance.random() < 0.5
        body = {"messages": [{"role": "user", "content": question.text}], "stream": streamed}
        response = client.post(f"{self._url()}/v1/chat/completions", json=body, headers=headers)
        if response.status_code in (409, 503):  # another run, or a gateway that stops or starts
            raise UnansweredError
        assert response.status_code == 200, response.text
        if (streamed_text(response) if streamed else text_of(response)) != question.text:
            raise UnansweredError
        self.ledger.answered(response.headers["x-openclaw-session-key"], question)

    def _new_question(self) -> Question:
        session = self._chance.choice([*SESSIONS, ""])
        key = str(uuid.UUID(int=self._chance.getrandbits(128))) if self._chance.random() < 0.4 else None
        return Question(session, f"question {self._chance.getrandbits(64):x} of {session or 'nobody'}", key)


class UnansweredError(Exception):
    """The gateway refused to answer now."""


def text_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def streamed_text(response: httpx.Response) -> str | None:
    """Return the text of a complete stream, `None` for an incomplete or failed one."""
    if not response.text.endswith("data: [DONE]\n\n"):
        return None
    chunks = [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    if any("error" in chunk for chunk in chunks):
        return None
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


@contextmanager
def talking(ledger: Ledger, url: Callable[[], str], count: int, chance: random.Random) -> Iterator[None]:
    """Run `count` clients against `url()` during the block."""
    is_over = threading.Event()
    threads = [
        threading.Thread(target=Talker(ledger, url, chance.getrandbits(64)).talk, args=(is_over,)) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
