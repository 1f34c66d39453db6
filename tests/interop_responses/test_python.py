"""OpenAI's Agents SDK for Python against a live gateway, by the Responses API: a tool loop, a hand-off, a chain."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from support.live import TOKEN, LiveGateway


def weather() -> str:
    """Return the weather."""
    return "sunny"


async def work(url: str) -> dict[str, Any]:
    """Run agents of the SDK, and return what they said."""
    set_tracing_disabled(disabled=True)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN) as client:
        model = OpenAIResponsesModel("openclaw", client)
        calling = ModelSettings(extra_headers={"x-openclaw-model": "scripted/tools"})
        asking = Agent(name="asking", model=model, tools=[function_tool(weather)], model_settings=calling)
        last = Agent(name="last", model=model)
        first = Agent(name="first", model=model, handoffs=[last], model_settings=calling)
        looped = await Runner.run(asking, "what is it like")
        handed = await Runner.run(first, "pass me on")
        streamed = Runner.run_streamed(asking, "what is it like")
        async for _ in streamed.stream_events():
            pass
        begun = await Runner.run(last, "one two")
        chained = await Runner.run(last, "three", previous_response_id=begun.last_response_id)
        return {
            "loop": looped.final_output,
            "handed_to": handed.last_agent.name,
            "streamed": streamed.final_output,
            "chained": (chained.final_output, chained.raw_responses[-1].usage.input_tokens),
        }


def test_agents_of_sdk_do_their_work(gateway: LiveGateway) -> None:
    expected = {"loop": "sunny", "handed_to": "last", "streamed": "sunny", "chained": ("three", 5)}
    assert asyncio.run(work(gateway.url)) == expected
