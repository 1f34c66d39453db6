"""Open WebUI and LibreChat as their users use them: send, ask again, edit, go back, delete; requests as they send them.

Both keep the chat as a tree of their own and send the path that the user looks at, with the chat's id in a header.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from support.chat import PATH, streamed_text
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Upstream

ACCOUNT = "66f1c2d3a4b5c6d7e8f90a1b"

Request = tuple[dict[str, Any], dict[str, str]]


def open_webui(chat: str, texts: list[str]) -> Request:
    """Build a request like Open WebUI: texts of the user and the assistant in turns."""
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    body = {"stream": True, "model": "openclaw", "messages": messages, "stream_options": {"include_usage": True}}
    return body, {"X-OpenWebUI-User-Id": ACCOUNT, "X-OpenWebUI-User-Role": "user", "X-OpenWebUI-Chat-Id": chat}


def librechat(chat: str, texts: list[str]) -> Request:
    """Build a request like LibreChat: answers as lists of parts, the account as the user."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You are helpful."}]
    for index, text in enumerate(texts):
        part = [{"type": "text", "text": text}]
        messages.append({"role": "assistant", "content": part} if index % 2 else {"role": "user", "content": text})
    body = {"model": "openclaw", "user": ACCOUNT, "stream": True, "messages": messages}
    return body, {"x-librechat-conversation-id": chat}


def open_webui_title(chat: str, texts: list[str]) -> Request:
    history = "\n".join(("USER: ", "ASSISTANT: ")[index % 2] + text for index, text in enumerate(texts))
    prompt = (
        f"### Task:\nGenerate a concise, 3-5 word title.\n### Chat History:\n<chat_history>\n{history}\n</chat_history>"
    )
    body = {"model": "openclaw", "messages": [{"role": "user", "content": prompt}], "stream": False}
    return body, open_webui(chat, texts)[1]


def librechat_title(chat: str, texts: list[str]) -> Request:
    prompt = "Provide a concise, 5-word-or-less title for the conversation, using title case conventions. Only return"
    content = f"{prompt} the title itself.\n\nConversation:\nUser: {texts[0]}\nAI: {texts[1]}"
    body = {"model": "openclaw", "user": ACCOUNT, "messages": [{"role": "user", "content": content}]}
    return body, {"x-librechat-conversation-id": chat}


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    config = stubbed_config(module_upstream.url, "stub/echo")
    config["gateway"]["http"]["sessions"] = {"headers": ["openwebui", "librechat"], "user": "ignore"}
    with live_gateway(tmp_path_factory.mktemp("recorded"), config) as running:
        yield running


class Program:
    """A chat program with one chat, and the upstream that records what the model sees."""

    def __init__(self, client: httpx.Client, upstream: Upstream, form: Callable[[str, list[str]], Request]) -> None:
        self._client = client
        self._upstream = upstream
        self._form = form
        self.chat = str(uuid.uuid4())

    def send(self, *texts: str) -> str:
        """Send the path that the user looks at; return the answer. The model must see just that path."""
        body, headers = self._form(self.chat, list(texts))
        response = self._client.post(PATH, json=body, headers=headers)
        text = streamed_text(response)
        assert self.seen == list(texts)
        return text

    @property
    def seen(self) -> list[str]:
        """What the model was sent last, without the system prompt."""
        messages = self._upstream.requests[-1].body["messages"]
        return [message["content"] for message in messages if message["role"] != "system"]

    def stored(self, header: str) -> list[str]:
        """The current branch as the API shows it."""
        session = self._client.get(f"/v1/sessions/agent:main:{header}:{self.chat}").json()
        return ["".join(part["text"] for part in one["content"]) for one in session["messages"]]


@pytest.fixture(
    params=[
        (open_webui, open_webui_title, "x-openwebui-chat-id"),
        (librechat, librechat_title, "x-librechat-conversation-id"),
    ]
)
def program(
    request: pytest.FixtureRequest, relay: LiveGateway, upstream: Upstream
) -> Iterator[tuple[Program, Any, str]]:
    form, title, header = request.param
    with relay.client() as client:
        yield Program(client, upstream, form), title, header


def test_chat_follows_its_user(program: tuple[Program, Any, str], relay: LiveGateway) -> None:
    chat, title, header = program
    first = chat.send("one")
    body, headers = title(chat.chat, ["one", first])
    with relay.client() as client:
        assert client.post(PATH, json=body, headers=headers).status_code == 200
    second = chat.send("one", first, "two")
    assert chat.stored(header) == ["one", first, "two", second]
    again = chat.send("one", first, "two")  # regenerate
    edited = chat.send("one", first, "zwei")  # edit the last message
    assert chat.stored(header) == ["one", first, "zwei", edited]
    chat.send("one", first, "two", again, "three")  # go back, and on
    chat.send("one", first, "three")  # delete a message and its answer
    uno = chat.send("uno")  # edit the first message
    chat.send("uno", uno, "due")
    chat.send("one")  # regenerate the first answer
    chat.send("one", first, "zwei", edited, "drei")
    assert chat.stored(header)[:4] == ["one", first, "zwei", edited]


def test_two_chats_of_one_account_are_two_sessions(
    program: tuple[Program, Any, str], relay: LiveGateway, upstream: Upstream
) -> None:
    chat, _, _ = program
    with relay.client() as client:
        other = Program(client, upstream, chat._form)
        answer = chat.send("one")
        other.send("uno")
        chat.send("one", answer, "two")
