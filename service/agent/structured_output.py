"""Answers in the format that a request asks for: checked, repaired by the model where possible, never delivered wrong.

`json_object` and schemas with `strict` are checked (`service.models.output_format`). An answer that its model did not
end by itself (`length`, `content_filter`) is delivered as it is: its finish reason says that it is incomplete.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from service.agent.loop import MAX_MESSAGE_CHARACTERS
from service.agent.schema_check import CHECK_SECONDS, compile_schema
from service.core.dataclass import replace
from service.core.errors import GatewayError
from service.core.messages import Role, StopReason, Usage, text_message
from service.core.processes.command import Command, CommandError, run_command
from service.core.schema_cost import MAX_VALUES, count_values, is_cheap, steps_of
from service.models.drafts import HeldReasoning
from service.models.output_format import is_checked, schema_of, to_instruction
from service.models.provider import ModelEnded, ModelRequest, RestartingProvider, TextReceiver
from service.tools.process_slots import ProcessSlots
from service.tools.tool import ToolError

logger = logging.getLogger("openclaw.runs")

_PROGRAM = Path(__file__).with_name("schema_check.py")
_SCHEMA = "response_format.json_schema.schema"
#: For a check whose CPU time is limited: more is a machine that is busy.
_WALL_SECONDS = 20.0
_QUEUE_SECONDS = 30.0
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL | re.IGNORECASE)
_TOO_SLOW = f"takes more than {CHECK_SECONDS} seconds of computing to check. Send a simpler one."


class OutputCheck:
    """The check of answers in one run; `schema` `None` is any JSON object. `slots` limit the processes for it.

    Raises `GatewayError` (`invalid_value`) for a schema that is invalid, too large or too costly.
    """

    def __init__(self, response_format: Mapping[str, Any], slots: ProcessSlots) -> None:
        self.response_format = response_format
        self._slots = slots
        schema = schema_of(response_format)
        self._schema = None if schema is None else dict(schema)
        self._validator = None
        self._steps = 0.0
        if self._schema is None:
            return
        try:
            orjson.dumps({"schema": {"value": self._schema}}, default=dict)
        except orjson.JSONEncodeError:
            raise _refused("is nested too deeply, or has a number that is too large. Send a simpler one.") from None
        if count_values(self._schema) > MAX_VALUES:
            raise _refused(f"has more than {MAX_VALUES} values. Send a smaller one.")
        self._steps = steps_of(self._schema)
        if not is_cheap(self._steps):
            self._run({"schema": self._schema})
            return
        try:
            self._validator = compile_schema(self._schema)
        except ValueError as error:
            raise _refused(f"is not a usable JSON schema: {error}") from None

    def fault_of(self, text: str) -> str | None:
        """Describe the fault of an answer, `None` if it is valid. Raises `GatewayError` if that cannot be decided."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return f"it is not JSON: {error}"
        if self._schema is None:
            return None if isinstance(value, dict) else "it is JSON, but not an object"
        validator = self._validator if is_cheap(self._steps, len(text)) else None
        if validator is not None and validator.is_valid(value):
            return None
        return self._run({"schema": self._schema, "value": value})

    def _run(self, task: Mapping[str, Any]) -> str | None:
        command = Command(
            argv=(sys.executable, "-I", str(_PROGRAM)),
            cwd="/",
            env={"LANG": "C.UTF-8"},
            timeout_seconds=_WALL_SECONDS,
            stdin=orjson.dumps(task),
        )
        try:
            with self._slots.hold(_QUEUE_SECONDS):
                outcome = run_command(command)
        except (CommandError, ToolError) as error:
            raise GatewayError("overloaded", f"The answer's schema cannot be checked now: {error}.") from error
        lines = outcome.stdout.head.splitlines()
        if not lines and outcome.cause == "timeout":
            raise GatewayError("overloaded", "The answer's schema cannot be checked now: the machine is too busy.")
        if not lines:
            raise _refused(_TOO_SLOW)
        report = orjson.loads(lines[-1])
        if "refused" in report:
            raise _refused(f"is not a usable JSON schema: {report['refused']}")
        fault: str | None = report["fault"]
        return fault


def open_check(response_format: Mapping[str, Any] | None, slots: ProcessSlots) -> OutputCheck | None:
    """Return the check of a run's answers, `None` if they are not checked. Raises the errors of `OutputCheck`."""
    if response_format is None or not is_checked(response_format):
        return None
    return OutputCheck(response_format, slots)


class ValidatedProvider:
    """Models whose answers are valid; one that is not is sent back to its model up to `repairs` times.

    `on_discarded` is called with the usage of each answer that is sent back or refused. Text beside tool calls, which
    would not be part of the format, is dropped. Text and reasoning are held back until the answer is valid; without
    repairs and tools they are passed on as they come.
    """

    def __init__(
        self, provider: RestartingProvider, check: OutputCheck, repairs: int, on_discarded: Callable[[Usage], None]
    ) -> None:
        self._provider = provider
        self._check = check
        self._repairs = repairs
        self._on_discarded = on_discarded

    def ask(self, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None]) -> ModelEnded:
        """Ask like `RestartingProvider.ask`; raises `output_not_valid` if no answer is valid.

        Summaries of a conversation are not answers and pass through.
        """
        if request.collected:
            return self._provider.ask(request, on_text, on_restart)
        fault: str | None = None
        for repairs_left in range(self._repairs, -1, -1):
            is_held = self._repairs > 0 or bool(request.functions)
            answer = _Answer(on_text, on_restart, is_held=is_held)
            drafts = answer.reasoning if is_held and request.drafts is not None else request.drafts
            asked = replace(request, held=is_held, drafts=drafts)
            end = self._provider.ask(asked, answer.receive, answer.restart)
            if end.tool_calls:
                answer.reasoning.pass_on(request.drafts)
                return end
            text = answer.text
            if end.stop_reason is not StopReason.STOP:
                answer.reasoning.pass_on(request.drafts)
                answer.release(text)
                return end
            unwrapped = _without_fence(text) if is_held else text
            fault = self._check.fault_of(unwrapped)
            if fault is None:
                answer.reasoning.pass_on(request.drafts)
                answer.release(unwrapped)
                return end
            self._on_discarded(end.usage)
            if repairs_left:
                logger.info("an answer does not have the requested format and is sent back to its model")
                request = self._to_repair(request, text, fault)
        raise _not_valid(fault or "")

    def _to_repair(self, request: ModelRequest, text: str, fault: str) -> ModelRequest:
        words = f"Your answer cannot be used. The fault: {fault}. {to_instruction(self._check.response_format)}"
        answer = (text_message(Role.ASSISTANT, text),) if text.strip() else ()
        return replace(request, messages=(*request.messages, *answer, text_message(Role.USER, words)))


class _Answer:
    """The text of one answer, passed on as it comes or held back with its `reasoning`."""

    def __init__(self, on_text: TextReceiver, on_restart: Callable[[], None], *, is_held: bool) -> None:
        self._on_text = on_text
        self._on_restart = on_restart
        self._is_held = is_held
        self.reasoning = HeldReasoning()
        self._pieces: list[str] = []
        self._characters = 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def receive(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_MESSAGE_CHARACTERS:
            raise GatewayError("provider_error", f"The answer exceeds {MAX_MESSAGE_CHARACTERS} characters.")
        self._pieces.append(text)
        if not self._is_held:
            self._on_text(text)

    def restart(self) -> None:
        self._pieces.clear()
        self.reasoning.clear()
        self._characters = 0
        self._on_restart()

    def release(self, text: str) -> None:
        if self._is_held and text:
            self._on_text(text)


def _without_fence(text: str) -> str:
    """Return what is inside the Markdown fence that many models put around JSON."""
    found = _FENCED.fullmatch(text)
    return found[1] if found else text


def _not_valid(fault: str) -> GatewayError:
    text = f"The model's answer does not have the format that `response_format` asks for: {fault}."
    return GatewayError("output_not_valid", f"{text} Try again, or use another model.", param="response_format")


def _refused(fault: str) -> GatewayError:
    return GatewayError("invalid_value", f"`{_SCHEMA}` {fault}", param=_SCHEMA)
