"""Words for tests that ask a provider of the OpenAI dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from service.errors import GatewayError
from service.messages import Message, Role, text_message
from service.providers import ModelEnded, ModelEvent, ModelRequest, ModelText, Provider, transport
from service.providers.openai import OpenAIProvider

KEY = "sk-a-secret-for-tests"
QUESTION = text_message(Role.USER, "Hello?")


def open_provider(url: str, timeout_seconds: float = 5.0) -> OpenAIProvider:
    headers = {"Authorization": f"Bearer {KEY}", "X-Team": "blue"}
    return OpenAIProvider(transport.Upstream(url, headers, read_timeout_seconds=timeout_seconds))


def request(model: str, *messages: Message, **fields: Any) -> ModelRequest:
    """A request for `model`; without messages, a user's question."""
    return ModelRequest(model, fields.pop("system", ""), messages or (QUESTION,), **fields)


def ask(provider: Provider, asked: ModelRequest | str) -> tuple[str, ModelEnded]:
    """The text and the end of an answer, which must come in the order the protocol promises."""
    events = list(provider.stream(request(asked) if isinstance(asked, str) else asked))
    end = events.pop()
    assert isinstance(end, ModelEnded)
    return "".join(text_of(event) for event in events), end


def fail(provider: Provider, asked: ModelRequest | str) -> tuple[str, GatewayError]:
    """The text that came before the failure, and the failure."""
    text = ""
    try:
        for event in provider.stream(request(asked) if isinstance(asked, str) else asked):
            text += text_of(event)
    except GatewayError as error:
        return text, error
    raise AssertionError(f"there was no error after {text!r}")


def text_of(event: ModelEvent) -> str:
    """The text of an event that must be text."""
    assert isinstance(event, ModelText)
    assert event.text
    return event.text


def leave(events: Iterator[ModelEvent]) -> None:
    """Close an answer before its end."""
    close: Callable[[], None] = events.close  # type: ignore[attr-defined]  # a generator, as every provider's
    close()
