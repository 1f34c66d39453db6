"""Requests to a provider under test, of the OpenAI dialect by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from service.core.errors import GatewayError
from service.core.messages import Message, Role, text_message
from service.models.http import transport
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelEnded, ModelEvent, ModelRequest, ModelText, Provider
from support.sdk_types import check_request
from support.upstream import Upstream
from support.upstream_answers import WORDS

KEY = "sk-a-secret-for-tests"
QUESTION = text_message(Role.USER, "Hello?")
PICTURE = "data:image/png;base64,iVBORw0KGgo="


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


def sent(provider: Provider, upstream: Upstream, asked: ModelRequest) -> Any:
    """The body that went over, after the types of the dialect's own SDK have accepted every field of it."""
    list(provider.stream(asked))
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
    events = provider.stream(request("hang-midway"))
    assert next(events) == ModelText(WORDS[0])
    leave(events)
    assert upstream.aborted.wait(2)


def text_of(event: ModelEvent) -> str:
    """The text of an event that must be text."""
    assert isinstance(event, ModelText)
    assert event.text
    return event.text


def leave(events: Iterator[ModelEvent]) -> None:
    """Close an answer before its end."""
    close: Callable[[], None] = events.close  # type: ignore[attr-defined]  # a generator, as every provider's
    close()
