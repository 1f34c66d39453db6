"""Recognize side requests of chat programs: titles, tags, follow-up questions, search queries, completions.

Chat programs send them beside a conversation, often under the conversation's own id. As turns of its session they would
stand between the user's messages.
"""

from __future__ import annotations

from service.agent.request import AgentRequest
from service.config.tasks import TasksConfig, normalize
from service.storage.runs.records import Protocol

#: The task of a request that is recognized by its prompt.
RECOGNIZED = "prompt"

#: The value of the header `x-openclaw-task` for an ordinary request, however its prompt begins.
NO_TASK = "none"

#: Prompts are compared with markers up to here.
_COMPARED_CHARACTERS = 1024


def find_task(request: AgentRequest, config: TasksConfig) -> str | None:
    """Return the task of a side request, `None` for an ordinary one.

    A side request has a task by its header, or consists of a single message, system messages aside, and this message or
    the system text begins with a marker of `config`. Case and white space do not count. Only HTTP has side requests;
    one that follows a run is none, because it is about what was said.
    """
    if request.previous_run_id is not None:
        return None
    if request.task is not None:
        return None if request.task.lower() == NO_TASK else request.task
    if request.protocol is not Protocol.HTTP or len(request.messages) > 1:
        return None
    for text in (request.system_text, request.messages[0].message.text if request.messages else ""):
        if text and normalize(text[:_COMPARED_CHARACTERS]).startswith(config.beginnings):
            return RECOGNIZED
    return None
