"""Validation of provider requests against the types of the provider's own SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter

from support.upstream import Received

ANTHROPIC: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)
OPENAI: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
#: Fields of the version that Anthropic's API is asked for, which its SDK's newest types have dropped.
OLDER_FIELDS = {"temperature", "top_p"}


def check_request(received: Received) -> None:
    """Every field of the request is one the SDK's types know, of a type they take."""
    if received.path.endswith("/messages"):
        adapter, fields = ANTHROPIC, received.body.keys() - OLDER_FIELDS
    else:
        adapter, fields = OPENAI, received.body.keys()
    sent = {name: received.body[name] for name in fields}
    assert _plain(adapter.validate_python(sent)) == sent


def _plain(value: Any) -> Any:
    """JSON again of what was validated: an `Iterable` of the SDK's types is read lazily."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value if isinstance(value, str | int | float | None) else [_plain(item) for item in value]
