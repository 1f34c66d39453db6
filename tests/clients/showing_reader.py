"""Read a stream of the gateway with the library that is the argument, and print its text and calls as JSON."""

# ruff: noqa: PLC0415 - one of the libraries is loaded

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

ADDRESS = os.environ["BASE_URL"]
SECRET = os.environ["OPENCLAW_GATEWAY_TOKEN"]
HEADERS = {"x-openclaw-events": os.environ["EVENTS"]}
QUESTION: Any = [{"role": "user", "content": "How is the weather?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
}
FUNCTION: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}

Said = tuple[str, list[tuple[str, Any]]]


def read_with_openai() -> Said:
    import openai

    client = openai.OpenAI(base_url=ADDRESS, api_key=SECRET, default_headers=HEADERS)
    with client.chat.completions.stream(model="openclaw", messages=QUESTION, tools=[FUNCTION]) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    calls: Any = message.tool_calls or ()
    return message.content or "", [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def read_with_langchain() -> Said:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="openclaw", base_url=ADDRESS, api_key=SECRET, default_headers=HEADERS)
    whole: Any = None
    for chunk in model.bind_tools([FUNCTION]).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert not whole.invalid_tool_calls
    return whole.content, [(call["name"], call["args"]) for call in whole.tool_calls]


def read_with_litellm() -> Said:
    import litellm

    litellm.suppress_debug_info = True  # it would be printed
    chunks = list(
        litellm.completion(
            model="openai/openclaw",
            messages=QUESTION,
            tools=[FUNCTION],
            stream=True,
            base_url=ADDRESS,
            api_key=SECRET,
            extra_headers=HEADERS,
        )
    )
    message: Any = litellm.stream_chunk_builder(chunks).choices[0].message
    return message.content, [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]


def read_with_pydantic_ai() -> Said:
    return asyncio.run(_read_with_pydantic_ai())


async def _read_with_pydantic_ai() -> Said:
    from pydantic_ai.direct import model_request_stream
    from pydantic_ai.messages import ModelRequest, TextPart, ToolCallPart
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.tools import ToolDefinition

    model = OpenAIChatModel("openclaw", provider=OpenAIProvider(base_url=ADDRESS, api_key=SECRET))
    tool = ToolDefinition(name="weather", parameters_json_schema=SCHEMA)
    async with model_request_stream(
        model,
        [ModelRequest.user_text_prompt(QUESTION[0]["content"])],
        model_settings={"extra_headers": HEADERS},
        model_request_parameters=ModelRequestParameters(function_tools=[tool]),
    ) as stream:
        async for _ in stream:
            pass
        parts = stream.get().parts
    text = "".join(part.content for part in parts if isinstance(part, TextPart))
    return text, [(part.tool_name, part.args_as_dict()) for part in parts if isinstance(part, ToolCallPart)]


READERS: dict[str, Callable[[], Said]] = {
    "openai": read_with_openai,
    "langchain": read_with_langchain,
    "litellm": read_with_litellm,
    "pydantic-ai": read_with_pydantic_ai,
}

if __name__ == "__main__":
    said, made = READERS[sys.argv[1]]()
    sys.stdout.write(json.dumps({"text": said, "calls": made}))
