"""Validation of provider requests against the types of the provider's own SDK."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from support.upstream import Received

#: Fields of the version that Anthropic's API is asked for, which its SDK's newest types have dropped.
OLDER_FIELDS = {"temperature", "top_p"}


def check_request(received: Received) -> None:
    """Every field of the request is one the SDK's types know, of a type they take."""
    if received.path.endswith("/messages"):
        adapter, fields = _anthropic(), received.body.keys() - OLDER_FIELDS
    else:
        adapter, fields = _openai(), received.body.keys()
    sent = {name: received.body[name] for name in fields}
    assert _plain(adapter.validate_python(sent)) == sent


@functools.cache
def _anthropic() -> TypeAdapter[Any]:
    from anthropic.types.message_create_params import MessageCreateParamsStreaming  # noqa: PLC0415 - takes a second

    return TypeAdapter(MessageCreateParamsStreaming)


@functools.cache
def _openai() -> TypeAdapter[Any]:
    from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming  # noqa: PLC0415 - the same

    return TypeAdapter(CompletionCreateParamsStreaming)


def _plain(value: Any) -> Any:
    """JSON again of what was validated: an `Iterable` of the SDK's types is read lazily."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value if isinstance(value, str | int | float | None) else [_plain(item) for item in value]
