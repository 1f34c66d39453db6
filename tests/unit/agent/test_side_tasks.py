"""Recognition of chat programs' side requests: by header, by prompt, and only over HTTP."""

from __future__ import annotations

import pytest

from service.agent.conversation import IncomingMessage
from service.agent.request import AgentRequest
from service.agent.side_tasks import find_task
from service.config.tasks import TasksConfig
from service.core.messages import Role, text_message
from service.core.principal import ADMINISTRATOR
from service.storage.runs.records import Protocol

CONFIG = TasksConfig(markers=("Generate a title",))


def request(text: str, protocol: Protocol = Protocol.HTTP, task: str | None = None) -> AgentRequest:
    message = IncomingMessage("messages[0]", text_message(Role.USER, text))
    return AgentRequest(ADMINISTRATOR, protocol, (message,), task=task)


@pytest.mark.parametrize(
    ("protocol", "is_task"), [(Protocol.HTTP, True), (Protocol.WEBSOCKET, False), (Protocol.LOCAL, False)]
)
def test_prompt_of_a_chat_program_is_recognized_only_over_http(protocol: Protocol, *, is_task: bool) -> None:
    assert (find_task(request("generate  a TITLE for this", protocol), CONFIG) is not None) is is_task


def test_header_decides_before_the_prompt() -> None:
    assert find_task(request("Hello", task="tags"), CONFIG) == "tags"
    assert find_task(request("Generate a title", task="none"), CONFIG) is None
