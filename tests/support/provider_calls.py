"""Requests to a provider under test, of the OpenAI dialect by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gevent

from service.core.errors import GatewayError
from service.core.messages import Message, Role, text_message
from service.models.fallback import FallbackProvider
from service.models.http import transport
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelEnded, ModelRequest, Provider
from support.polling import until
from support.sdk_types import check_request
from support.upstream import Upstream
from support.upstream_answers import WORDS

KEY = "sk-a-secret-for-tests"
QUESTION = text_message(Role.USER, "Hello?")
PICTURE = "data:image/png;base64,iVBORw0KGgo="


class DraftRecorder:
    """Records what models write beside their text."""

    def __init__(self, *, is_binding: bool = False) -> None:
        self.is_binding = is_binding
        self.wants_calls = True
        self.reasoning = ""
        self.calls: dict[int, tuple[str, str]] = {}

    def add_reasoning(self, text: str) -> None:
        assert text
        self.reasoning += text

    def add_arguments(self, names: Sequence[str], text: str) -> None:
        assert text
        place = len(names) - 1
        self.calls[place] = (names[place], self.calls.get(place, ("", ""))[1] + text)


def open_provider(url: str, timeout_seconds: float = 5.0) -> OpenAIProvider:
    headers = {"Authorization": f"Bearer {KEY}", "X-Team": "blue"}
    return OpenAIProvider(transport.Upstream(url, headers, read_timeout_seconds=timeout_seconds))


def request(model: str, *messages: Message, **fields: Any) -> ModelRequest:
    """A request for `model`; without messages, a user's question."""
    return ModelRequest(model, fields.pop("system", ""), messages or (QUESTION,), **fields)


def ask(provider: Provider | FallbackProvider, asked: ModelRequest | str) -> tuple[str, ModelEnded]:
    """The text and the end of an answer."""
    texts: list[str] = []
    end = receive(provider, asked, texts)
    return "".join(texts), end


def receive(provider: Provider | FallbackProvider, asked: ModelRequest | str, texts: list[str]) -> ModelEnded:
    """Ask and append the pieces of the answer to `texts`, which a restart clears."""

    def on_text(text: str) -> None:
        assert text
        texts.append(text)

    question = request(asked) if isinstance(asked, str) else asked
    if isinstance(provider, FallbackProvider):
        return provider.ask(question, on_text, texts.clear)
    return provider.ask(question, on_text)


def fail(provider: Provider | FallbackProvider, asked: ModelRequest | str) -> tuple[str, GatewayError]:
    """The text that came before the failure, and the failure."""
    texts: list[str] = []
    try:
        receive(provider, asked, texts)
    except GatewayError as error:
        return "".join(texts), error
    raise AssertionError(f"there was no error after {texts!r}")


def sent(provider: Provider, upstream: Upstream, asked: ModelRequest) -> Any:
    """The body that went over, after the types of the dialect's own SDK have accepted every field of it."""
    ask(provider, asked)
    check_request(upstream.requests[-1])
    return upstream.requests[-1].body


def check_broken_off(provider: Provider, model: str, text: str, said: str) -> None:
    """An answer that breaks off is an error after its text."""
    came, error = fail(provider, model)
    assert (came, error.code) == (text, "provider_error")
    assert said in error.message


def check_refused(provider: Provider, model: str, code: str, said: str) -> None:
    """A refusal, or nonsense, is an error of its own code and nothing else."""
    text, error = fail(provider, model)
    assert (text, error.code) == ("", code)
    assert said in error.message


def check_streams_and_ends(provider: Provider, upstream: Upstream) -> None:
    """Text arrives while the answer is still being made, and leaving it ends the request."""
    answer = Answer(provider, "hang-midway")
    assert answer.next_text() == WORDS[0]
    answer.leave()
    until(upstream.aborted.is_set)


class Answer:
    """An answer on its way, asked for in a greenlet."""

    def __init__(self, provider: Provider | FallbackProvider, asked: ModelRequest | str) -> None:
        self._texts: list[str] = []
        self._asking = gevent.spawn(receive, provider, asked, self._texts)

    def next_text(self) -> str | None:
        """Wait for the next piece of the text; `None` if there is none."""
        until(lambda: self._texts or self._asking.dead)
        return self._texts.pop(0) if self._texts else None

    def leave(self) -> None:
        """Stop waiting for the rest."""
        self._asking.kill()
