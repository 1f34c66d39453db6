"""Sessions of chat programs: headers that name a chat, side requests, and waiting for a session."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.chat import PATH, ask, error_of, text_of
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.upstream import Exchange, Upstream
from support.upstream_answers import ok

OPEN_WEBUI_PROMPTS = [
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n### Guidelines:\n...",
    "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history, along with 1-3 more.\n...",
    "### Task:\nSuggest 3-5 relevant follow-up questions or prompts that the user might naturally ask next.\n...",
    "### Task:\nAnalyze the chat history to determine the necessity of generating search queries, in the given...",
    "### Task:\nYou are an autocompletion system. Continue the text in `<text>` based on the type.\n...",
]
LIBRECHAT_PROMPTS = [
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions.\n\nConversation:\nhi",
    "Analyze this conversation and provide:\n1. The detected language of the conversation\n2. A concise title\n\nhi",
]


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway for Open WebUI and LibreChat, with an agent that has tools."""
    directory = tmp_path_factory.mktemp("chats")
    (directory / "workspace").mkdir()
    agent = {"id": "main", "instructions": "You are kind.", "workspace": str(directory / "workspace")}
    config = stubbed_config(module_upstream.url, agents=[agent])
    config["gateway"]["http"]["sessions"] = {"headers": ["openwebui", "LibreChat", "X-Chat"], "user": "ignore"}
    config["session"] = {"queueTimeoutMs": 4000}
    config["tasks"] = {"model": "stub/echo"}
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture
def talk(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as client:
        yield client


def assistant(text: str) -> dict[str, str]:
    """Return an answer as a client sends it back."""
    return {"role": "assistant", "content": text}


def key_of(response: httpx.Response) -> str:
    """Return the session key of an answer."""
    assert response.status_code == 200, response.text
    return response.headers["x-openclaw-session-key"]


def last_texts(upstream: Upstream) -> list[object]:
    """Return the texts that the model was last sent, without the system prompt."""
    return [one.get("content") for one in upstream.requests[-1].body["messages"] if one["role"] != "system"]


@pytest.mark.parametrize("header", ["X-OpenWebUI-Chat-Id", "x-librechat-conversation-id", "x-chat"])
def test_header_of_chat_program_selects_session(talk: httpx.Client, upstream: Upstream, header: str) -> None:
    chat = str(uuid.uuid4())
    answer = text_of(ask(talk, "one", headers={header: chat}))
    response = ask(talk, "one", assistant(answer), "two", headers={header: chat}, user="account")
    assert key_of(response) == f"agent:main:{header.lower()}:{chat}"
    assert last_texts(upstream) == ["one", answer, "two"]


def test_first_listed_header_counts_and_session_key_beats_it(talk: httpx.Client) -> None:
    both = {"x-chat": "b", "x-openwebui-chat-id": "a"}
    assert key_of(ask(talk, "hi", headers=both)) == "agent:main:x-openwebui-chat-id:a"
    assert key_of(ask(talk, "hi", headers={**both, "x-openclaw-session-key": "mine"})) == "agent:main:mine"
    assert key_of(ask(talk, "hi", headers={"x-openwebui-chat-id": "", "x-chat": "b"})) == "agent:main:x-chat:b"


@pytest.mark.parametrize("value", ["new", "null", "undefined", "{{LIBRECHAT_BODY_CONVERSATIONID}}", "NEW"])
def test_header_without_id_selects_no_session(talk: httpx.Client, value: str) -> None:
    assert key_of(ask(talk, "hi", headers={"x-librechat-conversation-id": value})).startswith("agent:main:openai:")


@pytest.mark.parametrize("value", ["x" * 257, "Nguyễn".encode(), b"a\tb"])
def test_unusable_id_is_refused(talk: httpx.Client, value: str | bytes) -> None:
    response = ask(talk, "hi", headers={"x-chat": value})
    assert error_of(response) == (400, "invalid_value", "x-chat")


def test_ignored_user_selects_no_session(talk: httpx.Client) -> None:
    assert key_of(ask(talk, "hi", user="account")).startswith("agent:main:openai:")


@pytest.mark.parametrize("prompt", [*OPEN_WEBUI_PROMPTS, *LIBRECHAT_PROMPTS])
def test_side_request_is_no_turn_of_the_chat(talk: httpx.Client, upstream: Upstream, prompt: str) -> None:
    chat = {"x-openwebui-chat-id": str(uuid.uuid4())}
    answer = text_of(ask(talk, "one", headers=chat))
    assert upstream.requests[-1].body["tools"]
    assert key_of(ask(talk, prompt, headers=chat)).startswith("agent:main:openai:")
    assert last_texts(upstream) == [prompt]
    assert "tools" not in upstream.requests[-1].body
    assert upstream.requests[-1].body["model"] == "echo"
    text_of(ask(talk, "one", assistant(answer), "two", headers=chat))
    assert last_texts(upstream) == ["one", answer, "two"]
    assert upstream.requests[-1].body["model"] == "ok"


def test_title_prompt_may_be_the_system_message(talk: httpx.Client, upstream: Upstream) -> None:
    prompt = "Please generate a concise, 5-word-or-less title for the conversation, using its same language."
    response = ask(talk, {"role": "system", "content": prompt}, headers={"x-chat": "system-title"})
    assert key_of(response).startswith("agent:main:openai:")
    assert upstream.requests[-1].body["model"] == "echo"


def test_document_prompt_is_a_turn(talk: httpx.Client) -> None:
    prompt = "### Task:\nRespond to the user query using the provided context.\n<context>...</context>\nWhat now?"
    assert key_of(ask(talk, prompt, headers={"x-chat": "documents"})) == "agent:main:x-chat:documents"


def test_quoted_prompt_later_in_a_conversation_is_a_turn(talk: httpx.Client) -> None:
    earlier = {"role": "assistant", "content": "hi"}
    response = ask(talk, "hi", earlier, OPEN_WEBUI_PROMPTS[0], headers={"x-chat": "quoted"})
    assert key_of(response) == "agent:main:x-chat:quoted"


def test_header_marks_side_requests_and_ordinary_ones(talk: httpx.Client, upstream: Upstream) -> None:
    chat = {"x-chat": str(uuid.uuid4())}
    assert key_of(ask(talk, "Name it.", headers={**chat, "x-openclaw-task": "title"})).startswith("agent:main:openai:")
    assert upstream.requests[-1].body["model"] == "echo"
    ordinary = ask(talk, OPEN_WEBUI_PROMPTS[0], headers={**chat, "x-openclaw-task": "none"})
    assert key_of(ordinary) == f"agent:main:x-chat:{chat['x-chat']}"
    assert upstream.requests[-1].body["tools"]
    own = ask(talk, "Name it.", headers={"x-openclaw-task": "title", "x-openclaw-model": "stub/crlf"})
    assert own.status_code == 200
    assert upstream.requests[-1].body["model"] == "crlf"


@pytest.mark.parametrize("streamed", [False, True])
def test_wait_for_session_is_reported(
    relay: LiveGateway, talk: httpx.Client, upstream: Upstream, *, streamed: bool
) -> None:
    key, asked, release = f"queue-{uuid.uuid4()}", len(upstream.requests), threading.Event()

    def answer(exchange: Exchange) -> None:
        assert release.wait(60)
        ok(exchange)

    def send(model: str) -> httpx.Response:
        with relay.client() as client:
            headers = {"x-openclaw-session-key": key, "x-openclaw-model": model}
            return ask(client, "hi", headers=headers, stream=streamed)

    upstream.answers["held"] = answer
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(send, "stub/held")
        until(lambda: len(upstream.requests) > asked)
        second = pool.submit(send, "stub/ok")
        until(lambda: talk.get("/v1/runs", params={"session_key": key, "state": "queued"}).json()["data"])
        time.sleep(0.2)
        release.set()
        assert "x-openclaw-queued" not in first.result().headers
        assert second.result().status_code == 200
        assert int(second.result().headers["x-openclaw-queued"]) >= 200


def test_run_that_waits_too_long_is_refused(relay: LiveGateway, talk: httpx.Client) -> None:
    chat = {"x-openclaw-session-key": f"queue-{uuid.uuid4()}"}
    body = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}
    hung = {**chat, "x-openclaw-model": "stub/hang-midway", "Authorization": f"Bearer {TOKEN}"}
    # Not by a checking client, which would read the stream to its end.
    with httpx.stream("POST", f"{relay.url}{PATH}", json=body, headers=hung) as held:
        assert held.status_code == 200
        began = time.monotonic()
        refused = ask(talk, "hi", headers=chat)
        assert error_of(refused) == (409, "session_busy", None)
        assert int(refused.headers["x-openclaw-queued"]) > 3000
        assert time.monotonic() - began > 3
