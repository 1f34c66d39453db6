"""The tools of one agent: what the model is told of them, and what becomes of its calls.

Whatever goes wrong with a call is a message to the model, so that it can try again; nothing but an interruption of the
run itself leaves `execute`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from service.core.concurrency import Deadline, deadline, run_concurrently
from service.core.dataclass import record
from service.core.messages import Function, Message, Role, Text, ToolCall
from service.tools.tool import Tool, ToolContext, ToolError

logger = logging.getLogger("openclaw.tools")

MAX_RESULT_CHARACTERS = 50_000
#: How many calls of one turn run at the same time; starting a process for one holds everybody up for milliseconds.
MAX_SIDE_BY_SIDE = 4

_PATTERN_OPTIONS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000)
_MAX_FAULTS = 5
_MAX_FAULT_CHARACTERS = 300
_MAX_NAME_CHARACTERS = 80
_MAX_TOLD_NAMES = 30


@record
class CallStarted:
    """A call of a tool is about to be carried out."""

    call: ToolCall


@record
class CallEnded:
    """What came of a call: `text` is what the model is told, `failed` whether that is about a failure."""

    call: ToolCall
    text: str
    failed: bool


CallEvent = CallStarted | CallEnded


def ignore_event(_event: CallEvent) -> None:
    """Tell nobody."""


class Toolbox:
    """The tools of one agent, already chosen by its policy.

    A tool whose `parameters` are not a JSON schema, or cannot be written as JSON, is left out, with a warning in the
    log unless `reported`, to which it is added, has its name. Two tools of one name are a `ValueError`. Results are cut
    to `max_result_characters`.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        max_result_characters: int = MAX_RESULT_CHARACTERS,
        reported: set[str] | None = None,
    ) -> None:
        reported = set() if reported is None else reported
        self._tools: dict[str, _CompiledTool] = {}
        self._max_result_characters = max_result_characters
        for tool in tools:
            if tool.name in self._tools:
                raise ValueError(f"Two tools are called {tool.name}.")
            try:
                self._tools[tool.name] = _CompiledTool(tool)
            except (ValueError, TypeError, jsonschema_rs.ReferencingError):
                if tool.name not in reported:
                    logger.warning("the tool %s is left out: its parameters cannot be used as a JSON schema", tool.name)
                reported.add(tool.name)
        offered = (compiled.tool for compiled in self._tools.values())
        self._functions = tuple(Function(tool.name, tool.description, tool.parameters) for tool in offered)

    def __contains__(self, name: str) -> bool:
        """Whether a tool is called `name`."""
        return name in self._tools

    def functions(self) -> tuple[Function, ...]:
        """What the model is told: exactly the tools it may use."""
        return self._functions

    def execute(
        self,
        calls: Sequence[ToolCall],
        context: ToolContext,
        on_event: Callable[[CallEvent], None] = ignore_event,
        results: dict[int, Message] | None = None,
    ) -> list[Message]:
        """Carry out the calls of one turn and return their results, tool messages in the order of the calls.

        `results` gets each as it comes, by its call's place: what is there stays there when the rest is interrupted.

        The calls run side by side if all their tools allow that, else one by one. `on_event` is told of each call's
        start and end, in a greenlet of that call; it must not wait or raise. When the caller is interrupted, running
        tools are ended within a second, no further call begins, and an interrupted call tells no end.
        """
        together = all(self._tools[call.name].tool.parallel for call in calls if call.name in self._tools)
        told: dict[int, Message] = {} if results is None else results

        def execute(place: int, call: ToolCall) -> Message:
            told[place] = self._execute_one(call, context, on_event)
            return told[place]

        jobs = [partial(execute, place, call) for place, call in enumerate(calls)]
        return run_concurrently(jobs, MAX_SIDE_BY_SIDE if together else 1)

    def _execute_one(self, call: ToolCall, context: ToolContext, on_event: Callable[[CallEvent], None]) -> Message:
        on_event(CallStarted(call))
        failed = False
        try:
            text = self._run(call, context) or "(no output)"
        except ToolError as error:
            text, failed = str(error), True
        except Exception:
            # A tool's defect is not the run's: it is logged here and told without its details.
            logger.exception("the tool %s failed in the run %s", _short(call.name), context.run_id)
            text, failed = f"The tool {_short(call.name)} failed. This is a fault of the tool, not of the call.", True
        text = cut_text(_to_unicode(text), self._max_result_characters)
        on_event(CallEnded(call, text, failed))
        return Message(Role.TOOL, (Text(text),), tool_call_id=call.id)

    def _run(self, call: ToolCall, context: ToolContext) -> str:
        compiled = self._tools.get(call.name)
        if compiled is None:
            raise ToolError(
                f'There is no tool "{_short(call.name)}". {self._there_are(call.name, context.caller_functions)}'
            )
        arguments = compiled.parse_arguments(call.arguments)
        tool = compiled.tool
        try:
            with deadline(tool.timeout_seconds):
                return tool.run(arguments, context)
        except Deadline:
            raise ToolError(f"{tool.name} was ended after {tool.timeout_seconds:g} seconds. Ask for less.") from None

    def _there_are(self, wanted: str, caller_functions: Sequence[str]) -> str:
        names = [*caller_functions, *self._tools]
        if not names:
            return "There are none."
        if len(names) <= _MAX_TOLD_NAMES:
            return f"There are: {', '.join(names)}."
        nearest = get_close_matches(_short(wanted), names, _MAX_TOLD_NAMES, cutoff=0.0)
        return f"There are {len(names)}, among them: {', '.join(nearest)}."


class _CompiledTool:
    """A tool and what checks its arguments."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        orjson.dumps(tool.parameters, default=dict)  # an integer of more than 64 bits would fail every run
        # Schemas may come from elsewhere: no reference is fetched, and no pattern takes for ever.
        self._validator = jsonschema_rs.validator_for(
            dict(tool.parameters), retriever=_refuse_reference, pattern_options=_PATTERN_OPTIONS
        )

    def parse_arguments(self, text: str) -> Mapping[str, Any]:
        """The arguments the model wrote. Raises `ToolError` saying what is wrong with them."""
        name = self.tool.name
        try:
            arguments = orjson.loads(text) if text.strip() else {}
        except orjson.JSONDecodeError as error:
            raise ToolError(f"The arguments of {name} are not valid JSON: {error}. Write one JSON object.") from None
        if not isinstance(arguments, dict):
            raise ToolError(f"The arguments of {name} must be one JSON object.")
        faults = [self._to_words(fault) for fault in islice(self._validator.iter_errors(arguments), _MAX_FAULTS)]
        if faults:
            raise ToolError(f"The arguments of {name} are not right: {'; '.join(faults)}.")
        return arguments

    def _to_words(self, fault: jsonschema_rs.ValidationError) -> str:
        place = ".".join(map(str, fault.instance_path))
        words = _cut_words(f"{place}: {fault.message}" if place else fault.message)
        names = self._names_where(fault.schema_path) if fault.schema_path[-1:] == ["additionalProperties"] else ()
        return f"{words}; there are {_cut_words(', '.join(names))}" if names else words

    def _names_where(self, schema_path: Sequence[str | int]) -> Sequence[str]:
        """The names that an object may have, by the place of the rule that was broken; none where that is not said."""
        schema: Any = self.tool.parameters
        try:
            for step in schema_path[:-1]:
                schema = schema[step]
            return tuple(schema["properties"])
        except (LookupError, TypeError):
            return ()


def cut_text(text: str, limit: int) -> str:
    """`text` with no more than about `limit` characters: its beginning and its end, and a note of what is missing."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    missing = len(text) - limit
    return f"{text[:head]}\n[... {missing} of {len(text)} characters left out here ...]\n{text[len(text) - tail :]}"


def _refuse_reference(uri: str) -> Any:
    raise ValueError(f"the schema refers to {uri}, which is not part of it")


def _cut_words(words: str) -> str:
    return words if len(words) <= _MAX_FAULT_CHARACTERS else f"{words[:_MAX_FAULT_CHARACTERS]}..."


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[:_MAX_NAME_CHARACTERS]}..."


def _to_unicode(text: str) -> str:
    # A lone surrogate could neither be sent to the model nor stored.
    return text.encode("utf-8", "replace").decode()
