"""Limits of reasoning data, in bytes and parts, over a real connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import upstream_answers_anthropic as anthropic
from support.provider_calls import ask, fail, open_provider
from support.upstream import Exchange, Upstream
from support.upstream_answers import frame

from service.config.models import ProviderConfig
from service.models.anthropic.provider import AnthropicProvider
from service.models.openai.provider import OpenAIProvider

NESTED = [["x" * 100_000] * 6]
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}


@pytest.fixture
def provider(upstream: Upstream) -> Iterator[OpenAIProvider]:
    opened = open_provider(upstream.url)
    yield opened
    opened.close()


@pytest.fixture
def claude(upstream: Upstream) -> Iterator[AnthropicProvider]:
    opened = AnthropicProvider.from_config(ProviderConfig.model_validate({"baseUrl": upstream.url}))
    yield opened
    opened.close()


def telling(*deltas: dict[str, Any]) -> Any:
    def answer(exchange: Exchange) -> None:
        exchange.head()
        for delta in deltas:
            exchange.event(delta)
        exchange.event({"tool_calls": [CALL]})
        exchange.end("tool_calls")

    return answer


def of_details(**fields: Any) -> dict[str, Any]:
    return {"reasoning_details": [{"type": "reasoning.encrypted", **fields}]}


@pytest.mark.parametrize(
    ("deltas", "said"),
    [
        ([of_details(data={"in": NESTED})] * 8, "more than 4 MiB"),
        ([of_details(**{f"x{n}": NESTED}) for n in range(8)], "more than 4 MiB"),
        ([of_details(text="\u20ac" * 150_000)] * 10, "more than 4 MiB"),
        ([{"reasoning_details": [{"type": "x", "data": ""}] * 1000}] * 5, "more than 4096 parts"),
    ],
)
def test_endless_reasoning_is_not_kept(
    provider: OpenAIProvider, upstream: Upstream, deltas: list[dict[str, Any]], said: str
) -> None:
    upstream.answers["play"] = telling(*deltas)
    text, error = fail(provider, "play")
    assert (text, error.code) == ("", "provider_error")
    assert said in error.message


def test_repeated_fields_of_reasoning_pieces_count_once(provider: OpenAIProvider, upstream: Upstream) -> None:
    again = {"reasoning_details": [{"type": "t", "index": 0, "text": "no ", "format": "x" * 3_000}] * 100}
    upstream.answers["play"] = telling(*[again] * 20)
    data = ask(provider, "play")[1].provider_data
    assert data is not None
    [detail] = data.message["reasoning_details"]
    assert detail == {"type": "t", "index": 0, "text": "no " * 2000, "format": "x" * 3_000}


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([{"type": "thinking", "thinking": "", "in": NESTED}] * 8, "more than 4 MiB"),
        ([{"type": "thinking", "thinking": ""}] * 4100, "more than 4096 parts"),
        ([{"type": "text", "text": ""}] * 4100, "more than 4096 parts"),
    ],
)
def test_endless_blocks_are_not_kept(
    claude: AnthropicProvider, upstream: Upstream, blocks: list[dict[str, Any]], said: str
) -> None:
    events = [event for index, block in enumerate(blocks) for event in anthropic.block(index, block, ())]
    upstream.answers["play"] = anthropic.telling(anthropic.start(), *events, *anthropic.end())
    error = fail(claude, "play")[1]
    assert error.code == "provider_error"
    assert said in error.message


def test_reasoning_in_messages_that_grow_is_kept_once(provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head()
        for text in ("Hm", "Hm, the weather"):
            details = [{"type": "reasoning.text", "index": 0, "text": text}]
            message = {"content": "", "reasoning_content": text, "reasoning_details": details, "tool_calls": [CALL]}
            exchange.send(frame({"choices": [{"message": message, "finish_reason": "tool_calls"}]}))
        exchange.send(b"data: [DONE]\n\n")
        exchange.last_chunk()

    upstream.answers["grows"] = answer
    _, end = ask(provider, "grows")
    assert end.provider_data is not None
    assert end.provider_data.message["reasoning_content"] == "Hm, the weather"
    assert [detail["text"] for detail in end.provider_data.message["reasoning_details"]] == ["Hm, the weather"]
    assert len(end.tool_calls) == 1


def test_thinking_in_start_of_block_and_again_is_kept_once(claude: AnthropicProvider, upstream: Upstream) -> None:
    block = {"type": "thinking", "thinking": "Hm, yes.", "signature": "s"}
    deltas = [
        *({"type": "thinking_delta", "thinking": piece} for piece in ("Hm, ", "yes.")),
        {"type": "signature_delta", "signature": "s"},
    ]
    events = [*anthropic.block(0, block, deltas), *anthropic.call(1, "ls", ["{}"]), *anthropic.end("tool_use")]
    upstream.answers["twice"] = anthropic.telling(anthropic.start(), *events)
    _, end = ask(claude, "twice")
    assert end.provider_data is not None
    assert end.provider_data.message["content"][0] == block
