"""The agent loop: ask the model, run its tools, ask again, until it answers or calls a function of the caller.

A failure is raised as `GatewayError`; earlier output stays in the run's log and in the loop's `output`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from service.agent.agent_tools import AgentTools
from service.agent.compaction.compactor import Compaction, Compactor
from service.agent.conversation import SettledHistories
from service.agent.draft_log import DraftLog
from service.agent.events import (
    PARAGRAPH,
    StepEnded,
    TextDelta,
    TextRetracted,
    ToolCallRequested,
    ToolEnded,
    ToolStarted,
)
from service.agent.partial_output import PartialOutput
from service.agent.request import check_tool_choice
from service.agent.run import Run
from service.core.dataclass import record, replace
from service.core.errors import GatewayError
from service.core.messages import (
    Message,
    Role,
    StopReason,
    Text,
    ToolCall,
    ToolChoiceMode,
    Usage,
)
from service.models.context_windows import LearnedWindows
from service.models.errors.context_overflow import Overflow, compaction_failed_error, limit_from_error, overflow_of
from service.models.fallback import FallbackProvider
from service.models.provider import ModelEnded, ModelRequest, RestartingProvider
from service.models.tokens import input_limit
from service.tools.approval import ApprovalDecider
from service.tools.toolbox import CallEnded, CallEvent

logger = logging.getLogger("openclaw.runs")

#: Limit of one message, several times the output limit of any model: an endless stream would otherwise be read until
#: the run times out.
MAX_MESSAGE_CHARACTERS = 4 * 1024 * 1024

#: Number of compactions of a conversation refused as too long by a provider that does not state its limit.
MAX_OVERFLOWS = 3


@record
class ContextWindow:
    """The context window of the run's current model, and the compaction of conversations that exceed it.

    `models` are the run's; the window of the one that was asked last may be unknown. `settled`: see its class.
    """

    models: FallbackProvider
    compactor: Compactor
    windows: LearnedWindows
    settled: SettledHistories

    def limit(self, request: ModelRequest) -> int | None:
        """Return the token limit of `request`: the window less the room for the answer."""
        model = self.windows.narrowed(self.models.asked)
        tokens = model.context_window
        return None if tokens is None else input_limit(tokens, model.answer_tokens(request.sampling.max_tokens))

    def addressed(self, request: ModelRequest) -> ModelRequest:
        """Return `request` with the current model's name, which token estimates depend on."""
        ref = self.models.asked.ref
        return request if request.model == ref else replace(request, model=ref)

    def observe(self, request: ModelRequest, usage: Usage) -> None:
        """Record the provider's token count for `request`."""
        model = self.models.asked
        self.windows.observe_usage(model.ref, usage)
        if self.windows.narrowed(model).context_window is not None:
            self.compactor.observe(self.addressed(request), usage)

    def observe_refusal(self, error: GatewayError) -> None:
        """Record the model's limit if `error` is about a too long request and states it."""
        if overflow_of(error) is Overflow.TOKENS and (limit := limit_from_error(error)) is not None:
            self.windows.observe(self.models.asked.ref, limit)


class _TooLongError(Exception):
    """Ends an answer; no other attempt is made."""


class AgentLoop:
    """The loop of one run: call `run` once; `output` has its output, complete or not.

    Calls of the agent's own tools pass `gate`. `clock` returns seconds since 1970. Without `drafts`, what the models
    write beside their text is dropped.
    """

    def __init__(
        self,
        run: Run,
        provider: RestartingProvider,
        tools: AgentTools,
        gate: ApprovalDecider,
        window: ContextWindow,
        max_turns: int,
        clock: Callable[[], float],
        drafts: DraftLog | None = None,
    ) -> None:
        self._run = run
        self._provider = provider
        self._tools = tools
        self._gate = gate
        self._window = window
        self._max_turns = max_turns
        self._clock = clock
        self._drafts = drafts
        self._ended_ms: dict[str, int] = {}  # of the agent's calls
        self.output = PartialOutput()
        self._message_characters = 0
        self._own_calls = 0
        self._may_only_end = False
        self._summary_failed = False
        self._unfit: GatewayError | None = None  # the refusal for which a fallback is asked

    def run(self, request: ModelRequest) -> None:
        """Answer `request`, which has the functions and the tool choice that `tools` offer; append events to the run.

        Raises the provider's errors, and `tool_choice_not_met` without any call event if the model did not make the
        required call. The last of `max_turns` has to be an answer or calls of the caller's functions; if the model
        calls other tools nevertheless, the answer ends there with the stop reason "length". So it does once the agent
        has used its own as often as it may.
        """
        if self._drafts is not None:
            request = replace(request, drafts=self._drafts)
        for turn in range(1, self._max_turns + 1):
            if turn == self._max_turns or self._own_calls == self._tools.max_calls:
                self._may_only_end = True
                request = self._tools.limit_to_ends(request)
            request, calls = self._ask_within_window(request)
            if not calls:
                return
            own = [call for call in calls if not self._tools.is_callers(call)]
            if own:
                self._own_calls += len(own)
                self._run.append(StepEnded(self.output.usage))
            results = self._carry_out(own)
            asked = [call for call in calls if self._tools.is_callers(call)]
            if asked:
                for index, call in enumerate(asked):
                    self._run.append(ToolCallRequested(index, call))
                return
            request = replace(request, messages=(*request.messages, self.output.messages[-1 - len(results)], *results))

    def count_discarded(self, usage: Usage) -> None:
        """Count the tokens of an answer that its model has to give again."""
        self._run.step += 1
        self.output.usage += usage
        self._run.usage = self.output.usage
        if self._drafts is not None:
            self._drafts.end_call()

    def _ask_within_window(self, request: ModelRequest) -> tuple[ModelRequest, tuple[ToolCall, ...]]:
        request = self._fitted(request)
        for _ in range(MAX_OVERFLOWS):
            try:
                return request, self._ask(request)
            except GatewayError as error:
                if self.output.pieces or (self._drafts is not None and self._drafts.has_shown):
                    raise
                self._take_back()
                if self._unfit is not None and overflow_of(error) is None:
                    raise self._unfit from error
                request = self._after_refusal(request, error)
        return request, self._ask(request)

    def _fitted(self, request: ModelRequest) -> ModelRequest:
        """Return `request` compacted to the window, or unchanged if the summary fails: the model may accept it."""
        window = self._window
        request = window.addressed(request)
        limit = window.limit(request)
        if limit is None or self._summary_failed:
            return request
        try:
            return self._shortened(request, window.compactor.compact(self._provider, request, limit))
        except GatewayError as failure:
            self._summary_failed = True
            logger.warning("run %s: a summary failed (%s), all of the conversation is sent", self._run.id, failure.code)
            return request

    def _after_refusal(self, request: ModelRequest, error: GatewayError) -> ModelRequest:
        """Return the request to send instead of one refused as too long; raise any other `error`."""
        window = self._window
        window.observe_refusal(error)
        refused_by = window.models.asked
        request = window.addressed(request)  # a fallback may have refused it
        limit = window.limit(request)
        try:
            shorter = window.compactor.compact_after_overflow(self._provider, request, limit, error)
        except GatewayError as failure:
            logger.warning("run %s: a summary failed (%s) after a refusal as too long", self._run.id, failure.code)
            if window.models.skip_to_fallback(refused_by, request):
                return self._fitted(request)
            raise compaction_failed_error(error, failure) from None
        if shorter is not None:
            return self._shortened(request, shorter)
        if overflow_of(error) is None or not window.models.skip_to_fallback(refused_by, request):
            raise error
        self._unfit = error
        return self._fitted(request)

    def _shortened(self, request: ModelRequest, compaction: Compaction | None) -> ModelRequest:
        if compaction is None:
            return request
        output = self.output
        if compaction.summary is not None:
            output.summary, output.kept = compaction.summary, compaction.kept - len(output.messages)
        output.usage += compaction.usage
        return replace(request, messages=compaction.messages, unsigned=0)

    def _ask(self, request: ModelRequest) -> tuple[ToolCall, ...]:
        self._run.step += 1
        self._run.model = self._window.models.asked.ref
        if self._drafts is not None:
            self._drafts.begin_call(partial(self._index_of, request))
        asked = self._window.settled.settle(request)
        try:
            ended = self._provider.ask(asked, self._append_text, self._take_back)
        except _TooLongError:
            raise GatewayError("provider_error", f"The answer exceeds {MAX_MESSAGE_CHARACTERS} characters.") from None
        return self._end_message(request, ended)

    def _append_text(self, text: str) -> None:
        self._message_characters += len(text)
        if self._message_characters > MAX_MESSAGE_CHARACTERS:
            raise _TooLongError
        if not self.output.pieces and self.output.messages and self._has_spoken():
            self._run.append(TextDelta(PARAGRAPH))
        self.output.pieces.append(text)
        self._run.append(TextDelta(text))
        self._run.pause_output()

    def _take_back(self) -> None:
        """Retract the unfinished message."""
        pieces = self.output.pieces
        if pieces:
            paragraph = len(PARAGRAPH) if self._has_spoken() else 0
            self._run.append(TextRetracted(paragraph + sum(map(len, pieces))))
        pieces.clear()
        self._message_characters = 0
        if self._drafts is not None:
            self._drafts.take_back()

    def _has_spoken(self) -> bool:
        messages = self.output.messages
        return bool(messages) and any(message.role is Role.ASSISTANT and message.text for message in messages)

    def _has_acted(self, calls: Sequence[ToolCall]) -> bool:
        """Return True if the agent has used its own tools, or uses one with `calls`."""
        return self._own_calls > 0 or not all(map(self._tools.is_callers, calls))

    def _end_message(self, request: ModelRequest, ended: ModelEnded) -> tuple[ToolCall, ...]:
        check_tool_choice(request, ended.tool_calls)
        output = self.output
        calls = named = self._permitted(request, ended.tool_calls)
        data = ended.provider_data if calls else None
        if calls and (data is not None or self._has_acted(calls)):
            # Stateless follow-ups find the data and the agent's steps by this id.
            named = self._tools.with_own_ids(calls)
        if self._drafts is not None:
            ids = self._drafts.settle_calls(ended.tool_calls, tuple(filter(self._tools.is_callers, calls)))
            named = tuple(replace(one, id=ids.get(call.id, one.id)) for call, one in zip(calls, named, strict=True))
        data = data and data.renamed({one.id: other.id for one, other in zip(calls, named, strict=True)})
        calls = named
        text = "".join(output.pieces)
        parts = (Text(text),) if text else ()
        output.messages.append(Message(Role.ASSISTANT, parts, None, calls, None, data, at_ms=int(self._clock() * 1000)))
        output.pieces.clear()
        self._message_characters = 0
        if self._drafts is not None:
            self._drafts.end_call()
        output.usage += ended.usage
        self._run.usage, self._run.model = output.usage, self._window.models.asked.ref
        self._window.observe(request, ended.usage)
        output.stop_reason = ended.stop_reason
        if ended.tool_calls and not calls:
            logger.warning("run %s: the model still called tools when it had to answer", self._run.id)
            output.stop_reason = StopReason.LENGTH
        return calls

    def _index_of(self, request: ModelRequest, names: Sequence[str]) -> int | None:
        """Return the place of the last of an answer's calls, by their names, among those of the caller's functions."""
        calls = tuple(ToolCall(str(place), name, "") for place, name in enumerate(names))
        asked = tuple(filter(self._tools.is_callers, self._permitted(request, calls)))
        return len(asked) - 1 if asked and asked[-1] == calls[-1] else None

    def _permitted(self, request: ModelRequest, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        """Return the calls that the request permits.

        In the last turn, or with a required choice, only the caller's functions, or the one that is named; of the calls
        of the agent's own tools only as many as are left. Without parallel calls, only the first.
        """
        choice = request.tool_choice
        if self._may_only_end or choice.mode is ToolChoiceMode.REQUIRED:
            calls = tuple(call for call in calls if self._tools.is_callers(call) and choice.name in (None, call.name))
        elif self._tools.max_calls is not None:
            left = iter(range(self._tools.max_calls - self._own_calls))
            calls = tuple(call for call in calls if self._tools.is_callers(call) or next(left, None) is not None)
        return calls[:1] if request.sampling.parallel_tool_calls is False else calls

    def _carry_out(self, calls: Sequence[ToolCall]) -> list[Message]:
        if not calls:
            return []
        ended: dict[int, Message] = {}
        try:
            return self._tools.own.execute(calls, self._tools.context, self._log_call, ended, self._gate)
        finally:
            # The transcript keeps the results of an interrupted turn.
            for place in sorted(ended):
                at_ms = self._ended_ms.get(calls[place].id)
                self.output.messages.append(replace(ended[place], at_ms=at_ms))

    def _log_call(self, event: CallEvent) -> None:
        if isinstance(event, CallEnded):
            self._ended_ms[event.call.id] = int(self._clock() * 1000)
            self._run.append(ToolEnded(event.call, event.text, event.failed, event.duration_ms))
        else:
            self._run.append(ToolStarted(event.call))
