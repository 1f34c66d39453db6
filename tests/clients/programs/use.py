"""What a Python program does with the client: called with a gateway's address, it prints a line for each."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from openclaw_client import AuthenticatedClient
from openclaw_client.api.chat import create_chat_completion
from openclaw_client.api.runs import create_run
from openclaw_client.api.sessions import create_fork, get_session
from openclaw_client.models import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionRequest,
    ErrorEnvelope,
    ForkRequest,
    FunctionDefinition,
    ResponseRequest,
    ResponseStateEvent,
    Run,
    RunEndedEvent,
    RunRequest,
    Session,
    SessionWithMessages,
    Tool,
    ToolMessage,
    UserMessage,
)
from openclaw_client.streams import achat_stream, chat_stream, response_events, run_events

SLOW = {"x-openclaw-model": "scripted/slow"}
client = AuthenticatedClient(base_url=sys.argv[1], token=os.environ["OPENCLAW_GATEWAY_TOKEN"])


def ask(text: str) -> ChatCompletionRequest:
    return ChatCompletionRequest(model="openclaw", messages=[UserMessage(role="user", content=text)])


def complete(body: ChatCompletionRequest, session: str = "", model: str = "", key: str = "") -> ChatCompletion:
    answer = create_chat_completion.sync(
        client=client, body=body, x_openclaw_session_key=session, x_openclaw_model=model, idempotency_key=key
    )
    assert isinstance(answer, ChatCompletion)
    return answer


def show_chat() -> None:
    print("chat:", complete(ask("hi")).choices[0].message.content)


def show_stream() -> None:
    deltas = [choice.delta.content for chunk in chat_stream(client, ask("hi"), SLOW) for choice in chunk.choices]
    print("stream:", "".join(delta for delta in deltas if isinstance(delta, str)))


async def show_asynchronous_stream() -> None:
    text = ""
    async for chunk in achat_stream(client, ask("hi"), SLOW):
        for choice in chunk.choices:
            text += choice.delta.content if isinstance(choice.delta.content, str) else ""
    print("asynchronous stream:", text)


def show_tool() -> None:
    tools = [Tool(type_="function", function=FunctionDefinition(name="weather"))]
    question = UserMessage(role="user", content="how is it outside?")
    message = (
        complete(ChatCompletionRequest(messages=[question], tools=tools), model="scripted/tools").choices[0].message
    )
    assert isinstance(message.tool_calls, list)
    [call] = message.tool_calls
    result = ToolMessage(role="tool", tool_call_id=call.id, content="sunny")
    called = AssistantMessage.from_dict(message.to_dict())
    answer = complete(ChatCompletionRequest(messages=[question, called, result], tools=tools), model="scripted/tools")
    print("tool:", call.function.name, answer.choices[0].message.content)


def show_run() -> None:
    run = create_run.sync(client=client, body=RunRequest(input_="hi", model="scripted/slow"))
    assert isinstance(run, Run)
    events = list(run_events(client, run.id))
    text = "".join(event.text for event in events if event.type_ == "text.delta")
    assert isinstance(events[-1], RunEndedEvent)
    print("run:", text, events[-1].type_, events[-1].state)


def show_response() -> None:
    events = list(response_events(client, ResponseRequest(input_="hi", model="openclaw"), SLOW))
    text = "".join(event.delta for event in events if event.type_ == "response.output_text.delta")
    assert isinstance(events[-1], ResponseStateEvent)
    print("response:", text, events[-1].type_)


def show_session() -> None:
    key = f"client-{uuid.uuid4()}"
    complete(ask("one"), session=key)
    complete(ask("two"), session=key)
    session = get_session.sync(key, client=client)
    assert isinstance(session, SessionWithMessages)
    fork = create_fork.sync(key, client=client, body=ForkRequest())
    assert isinstance(fork, Session)
    print("session:", session.message_count, fork.message_count)


def show_error() -> None:
    answer = create_chat_completion.sync_detailed(
        client=client, body=ChatCompletionRequest(model="gpt-4o", messages=[UserMessage(role="user", content="hi")])
    )
    assert isinstance(answer.parsed, ErrorEnvelope)
    print("error:", int(answer.status_code), answer.parsed.error.code, answer.parsed.error.param)


def show_retry() -> None:
    key = str(uuid.uuid4())
    print("retry:", complete(ask("hi"), key=key).id == complete(ask("hi"), key=key).id)


show_chat()
show_stream()
asyncio.run(show_asynchronous_stream())
show_tool()
show_run()
show_response()
show_session()
show_error()
show_retry()
