"""OpenAI's SDK for Python against `/v1/responses` of a live gateway."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam, Response, ResponseTextDeltaEvent
from pydantic import BaseModel
from support.live import TOKEN, LiveGateway
from support.polling import until


class Pet(BaseModel):
    """What an answer is asked to look like."""

    name: str


@pytest.fixture
def sdk(gateway: LiveGateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
        yield client


def test_response_has_every_key_and_type_of_openai(sdk: OpenAI) -> None:
    tool: FunctionToolParam = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    create = sdk.responses.with_raw_response.create
    Response.model_validate_json(create(model="openclaw", input="hello there").text, strict=True)
    calling = {"x-openclaw-model": "scripted/tools"}
    Response.model_validate_json(create(input="hello there", tools=[tool], extra_headers=calling).text, strict=True)


def test_stream_is_accumulated(sdk: OpenAI) -> None:
    with sdk.responses.stream(model="openclaw", input="hello there") as stream:
        events = list(stream)
    assert "".join(one.delta for one in events if isinstance(one, ResponseTextDeltaEvent)) == "hello there"
    assert stream.get_final_response().output_text == "hello there"
    assert events[-1].type == "response.completed"


def test_response_is_retrieved_continued_and_deleted(sdk: OpenAI) -> None:
    first = sdk.responses.create(model="openclaw", input="one two")
    second = sdk.responses.create(input="three", previous_response_id=first.id)
    assert second.usage is not None
    assert second.usage.input_tokens == 5
    assert sdk.responses.retrieve(first.id) == first
    assert [item.type for item in sdk.responses.input_items.list(first.id)] == ["message"]
    sdk.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="Previous response"):
        sdk.responses.create(input="four", previous_response_id=first.id)


def test_response_in_background_is_polled_and_cancelled(sdk: OpenAI) -> None:
    begun = sdk.responses.create(model="openclaw", input="hi", background=True)
    until(lambda: sdk.responses.retrieve(begun.id).status == "completed")
    events = list(sdk.responses.retrieve(begun.id, stream=True, starting_after=1))
    assert [events[0].type, events[-1].type] == ["response.output_item.added", "response.completed"]
    stuck = {"x-openclaw-model": "scripted/stuck"}
    running = sdk.responses.create(model="openclaw", input="hi", background=True, extra_headers=stuck)
    assert sdk.responses.cancel(running.id).status == "cancelled"


def test_answer_is_parsed(sdk: OpenAI) -> None:
    parsed = sdk.responses.parse(model="openclaw", input='{"name": "Rex"}', text_format=Pet)
    assert parsed.output_parsed == Pet(name="Rex")
