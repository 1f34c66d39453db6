"""The tools of one agent: their function definitions and the execution of calls.

Every failure of a call becomes a message to the model, so that it can try again; `execute` raises only when the run
itself is interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

from service.core.concurrency import Deadline, deadline, run_concurrently
from service.core.dataclass import record
from service.core.latest import Latest
from service.core.messages import Function, Message, Role, Text, ToolCall, to_unicode
from service.core.signals import ToolCalling, ToolExecuted, tool_calling, tool_executed
from service.tools.approval import ApprovalDecider, ApprovalRequest, Verdict, refuse_all
from service.tools.policy import ApprovalPolicy
from service.tools.tool import Tool, ToolContext, ToolError

if TYPE_CHECKING:
    from service.tools.compiled_tool import CompiledTool

logger = logging.getLogger("openclaw.tools")

MAX_RESULT_CHARACTERS = 50_000
#: Concurrent calls of one turn. Starting a process for a call blocks the event loop for milliseconds.
MAX_CONCURRENT_CALLS = 4

_MAX_NAME_CHARACTERS = 80
_MAX_LISTED_NAMES = 30
_NO_VERDICT = Verdict(None)


@record
class CallStarted:
    """A tool call is about to be executed."""

    call: ToolCall


@record
class CallEnded:
    """A tool call ended: `text` is the message for the model, an error message if `failed`."""

    call: ToolCall
    text: str
    failed: bool
    duration_ms: int = 0


CallEvent = CallStarted | CallEnded


def ignore_event(_event: CallEvent) -> None:
    """Discard the event."""


def _join(callers: tuple[Function, ...], own: tuple[Function, ...]) -> tuple[Function, ...]:
    return callers + own


class Toolbox:
    """The tools of one agent, as allowed by its policy.

    A tool whose `parameters` are not a valid JSON schema, or cannot be serialised, is omitted. That is logged once per
    name in `reported`. Duplicate names raise `ValueError`. Results are truncated to `max_result_characters`. `replaced`
    are the names of tools that `without` took away, `approvals` the tools whose calls have to be approved.
    """

    replaced: tuple[str, ...] = ()
    _first: Toolbox | None = None

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        max_result_characters: int = MAX_RESULT_CHARACTERS,
        reported: set[str] | None = None,
        approvals: Mapping[str, ApprovalPolicy] | None = None,
    ) -> None:
        reported = set() if reported is None else reported
        self._tools: dict[str, CompiledTool] = {}
        self._max_result_characters = max_result_characters
        self._approvals = {name: one for name, one in (approvals or {}).items() if one is not ApprovalPolicy.NONE}
        for tool in tools:
            self._add(tool, reported)
        self._join = Latest(_join)
        self._functions = tuple(Function(tool.name, tool.description, tool.parameters) for tool in self.tools)

    def __contains__(self, name: str) -> bool:
        """Return whether there is a tool `name`."""
        return name in self._tools

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools."""
        return tuple(compiled.tool for compiled in self._tools.values())

    def _add(self, tool: Tool, reported: set[str]) -> None:
        from service.tools.compiled_tool import CompiledTool  # noqa: PLC0415 - imports the compiler of schemas

        if tool.name in self._tools:
            raise ValueError(f"Duplicate tool name {tool.name}.")
        try:
            self._tools[tool.name] = CompiledTool(tool)
        except ValueError:
            if tool.name not in reported:
                logger.warning("The tool %s is omitted: its parameters are not a usable JSON schema", tool.name)
            reported.add(tool.name)

    def without(self, names: Collection[str]) -> Toolbox:
        """Return the toolbox without the tools with the name of one of `names`, itself if there are none."""
        if self._tools.keys().isdisjoint(names):
            return self
        rest = self._of({name: tool for name, tool in self._tools.items() if name not in names})
        rest.replaced = tuple(name for name in self._tools if name in names)
        return rest

    def first(self, count: int) -> Toolbox:
        """Return the toolbox with the first `count` tools, itself if it has no more, and the same as the last time."""
        if len(self._tools) <= count:
            return self
        if self._first is None or len(self._first.tools) != count:
            self._first = self._of(dict(islice(self._tools.items(), count)))
            self._first.replaced = self.replaced
        return self._first

    def _of(self, tools: dict[str, CompiledTool]) -> Toolbox:
        rest = Toolbox((), max_result_characters=self._max_result_characters, approvals=self._approvals)
        rest._tools = tools
        rest._functions = tuple(function for function in self._functions if function.name in tools)
        return rest

    def approval_of(self, name: str) -> ApprovalPolicy:
        """Return what calls of the tool `name` need."""
        return self._approvals.get(name, ApprovalPolicy.NONE)

    def functions(self, callers: tuple[Function, ...] = ()) -> tuple[Function, ...]:
        """Return the function definitions for the model, one for each tool, behind those of the caller.

        They are the same object for the same `callers` as the last time.
        """
        return self._join(callers, self._functions) if callers else self._functions

    def execute(
        self,
        calls: Sequence[ToolCall],
        context: ToolContext,
        on_event: Callable[[CallEvent], None] = ignore_event,
        results: dict[int, Message] | None = None,
        gate: ApprovalDecider = refuse_all,
    ) -> list[Message]:
        """Execute the calls of one turn and return their results, tool messages in the order of the calls.

        Each result is also stored in `results` under the index of its call as soon as it is complete, so that an
        interruption loses none. No call starts before `gate` has returned its verdicts on those that need an approval.

        Calls run concurrently if all their tools are `parallel`, else sequentially. `on_event` is called with the start
        and end of each call, in its greenlet; it must not block or raise. When the caller is interrupted, running
        tools are stopped within a second, no further call starts, and interrupted calls emit no end event.
        """
        concurrent = all(self._tools[call.name].tool.parallel for call in calls if call.name in self._tools)
        messages: dict[int, Message] = {} if results is None else results
        verdicts = self._ask(calls, gate)

        def execute(index: int, call: ToolCall) -> Message:
            messages[index] = self._execute_one(call, context, on_event, verdicts.get(index, _NO_VERDICT))
            return messages[index]

        jobs = [partial(execute, index, call) for index, call in enumerate(calls)]
        return run_concurrently(jobs, MAX_CONCURRENT_CALLS if concurrent else 1)

    def _ask(self, calls: Sequence[ToolCall], gate: ApprovalDecider) -> Mapping[int, Verdict]:
        """Return the verdicts on the calls that need one, by index."""
        if not self._approvals:
            return {}
        requests: dict[int, ApprovalRequest] = {}
        verdicts: dict[int, Verdict] = {}
        for index, call in enumerate(calls):
            approval = self.approval_of(call.name)
            if approval is not ApprovalPolicy.NONE and call.name in self._tools:
                try:
                    arguments = self._tools[call.name].parse_arguments(call.arguments)
                    requests[index] = ApprovalRequest.of(call, arguments, approval)
                except ToolError as error:  # nobody has to decide about a call that cannot be made
                    verdicts[index] = Verdict(str(error))
        if requests:
            verdicts.update(zip(requests, gate(tuple(requests.values())), strict=True))
        return verdicts

    def _execute_one(
        self, call: ToolCall, context: ToolContext, on_event: Callable[[CallEvent], None], verdict: Verdict
    ) -> Message:
        on_event(CallStarted(call))
        is_known, name = call.name in self._tools, to_unicode(_short(call.name))
        if tool_calling.receivers:
            tool_calling.emit(ToolCalling(name, call.id))
        text, outcome, began_at = "", "cancelled", monotonic()
        try:
            text, outcome = self._try(call, context, verdict)
        finally:
            seconds = monotonic() - began_at
            if tool_executed.receivers:
                decided_by = None if verdict.approval is None else verdict.approval.decided_by
                ids = context.run_id, context.session_key, context.agent_id
                made = ToolExecuted(name, is_known, outcome, seconds, *ids, call.arguments, text, decided_by)
                tool_executed.emit(made)
        failed = outcome != "ok"
        took_ms = round(seconds * 1000)
        on_event(CallEnded(call, text, failed, took_ms))
        return Message(
            Role.TOOL,
            (Text(text),),
            tool_call_id=call.id,
            approval=verdict.approval,
            duration_ms=took_ms,
            failed=failed,
        )

    def _try(self, call: ToolCall, context: ToolContext, verdict: Verdict) -> tuple[str, str]:
        """Return the text for the model and the outcome."""
        outcome = "ok"
        try:
            verdict.check()
            text = self._run(call, context) or "(no output)"
        except ToolError as error:
            is_denied = verdict.refusal is not None and verdict.approval is not None
            text, outcome = str(error), "denied" if is_denied else "error"
        except Exception:
            # A bug in a tool does not fail the run: it is logged here and reported without details.
            logger.exception("The tool %s failed in the run %s", _short(call.name), context.run_id)
            text = f"The tool {_short(call.name)} failed. This is an error in the tool, not in the call."
            outcome = "error"
        return cut_text(to_unicode(text), self._max_result_characters), outcome

    def _run(self, call: ToolCall, context: ToolContext) -> str:
        compiled = self._tools.get(call.name)
        if compiled is None:
            raise ToolError(
                f'Unknown tool "{_short(call.name)}". {self._available_tools(call.name, context.caller_functions)}'
            )
        arguments = compiled.parse_arguments(call.arguments)
        tool = compiled.tool
        try:
            with deadline(tool.timeout_seconds):
                return tool.run(arguments, context)
        except Deadline:
            raise ToolError(
                f"{tool.name} timed out after {tool.timeout_seconds:g} seconds. Request less at once."
            ) from None

    def _available_tools(self, wanted: str, caller_functions: Sequence[str]) -> str:
        names = [*caller_functions, *self._tools]
        if not names:
            return "No tools are available."
        if len(names) <= _MAX_LISTED_NAMES:
            return f"Available tools: {', '.join(names)}."
        nearest = get_close_matches(_short(wanted), names, _MAX_LISTED_NAMES, cutoff=0.0)
        return f"The closest of {len(names)} available tools: {', '.join(nearest)}."


def cut_text(text: str, limit: int) -> str:
    """Truncate `text` to about `limit` characters: its beginning, its end and a note on the omitted part."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    missing = len(text) - limit
    return f"{text[:head]}\n[... {missing} of {len(text)} characters omitted ...]\n{text[len(text) - tail :]}"


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[:_MAX_NAME_CHARACTERS]}..."
