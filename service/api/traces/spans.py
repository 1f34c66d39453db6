"""Make spans of what the signals of this process report: runs, in them calls of models and tools, and embeddings.

Names and attributes are those of OpenTelemetry's semantic conventions for generative AI; what these lack begins with
`openclaw.`. A span is the greenlet's current work (`service.core.work_context`) until it ends, so that log lines have
its id and requests to other services its headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.api.traces.content import to_input, to_instructions, to_output
from service.core import signals
from service.core.messages import Sampling, Usage
from service.core.signals import Signal
from service.core.usage import to_dollars
from service.core.work_context import WorkContext, current_work

_AGENT, _CHAT, _TOOL, _EMBEDDINGS = "invoke_agent", "chat", "execute_tool", "embeddings"

#: The conventions' names of providers that are called otherwise here.
_PROVIDERS = {"gemini": "gcp.gemini", "google": "gcp.gemini", "mistral": "mistral_ai", "xai": "x_ai"}

_NANO = 1_000_000_000


class Spans:
    """Begins and ends the spans of `tracer`; `connect` begins. Contents are attributes only `with_content`."""

    def __init__(self, tracer: Tracer, *, with_content: bool) -> None:
        self._tracer = tracer
        self._with_content = with_content
        self._propagator = TraceContextTextMapPropagator()
        self._receivers: list[tuple[Signal[Any], Any]] = [
            (signals.run_accepted, self._begin_run),
            (signals.run_finished, self._end_run),
            (signals.model_calling, self._begin_call),
            (signals.model_called, self._end_call),
            (signals.tool_calling, self._begin_tool),
            (signals.tool_executed, self._end_tool),
            (signals.embedding_calling, self._begin_embeddings),
            (signals.embedding_called, self._end_embeddings),
        ]
        if with_content:
            self._receivers.append((signals.model_answered, self._add_content))

    def connect(self) -> None:
        """Begin to make spans."""
        for signal, receiver in self._receivers:
            signal.connect(receiver)

    def disconnect(self) -> None:
        """Make no more spans."""
        for signal, receiver in self._receivers:
            signal.disconnect(receiver)

    def _begin_run(self, event: signals.RunAccepted) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": _AGENT,
            "gen_ai.agent.id": event.agent,
            "gen_ai.agent.name": event.agent,
            "gen_ai.conversation.id": event.session_key,
            "openclaw.run.id": event.run_id,
            "openclaw.protocol": event.protocol,
            **_caller_attributes(event),
        }
        around = self._around(event.caller_trace)
        span = self._tracer.start_span(
            f"{_AGENT} {event.agent}", around, SpanKind.INTERNAL, attributes, start_time=int(event.accepted_at * _NANO)
        )
        _make_current(_AGENT, span)

    def _around(self, caller_trace: Mapping[str, str] | None) -> Context:
        """Return the caller's span, if its request names one, as the parent of another."""
        return Context() if caller_trace is None else self._propagator.extract(caller_trace, Context())

    def _end_run(self, event: signals.RunFinished) -> None:
        span = _take_current(_AGENT)
        if span is None or not span.is_recording():
            return
        attributes = _usage_attributes(event.usage)
        attributes["openclaw.queue.seconds"] = event.queued_seconds
        attributes["openclaw.model_calls"] = event.model_calls
        if event.model is not None:
            attributes |= _model_attributes(event.model)
        span.set_attributes(attributes)
        if event.first_output_seconds is not None:
            _add_first_token(span, event.first_output_seconds)
        _end(span, event.outcome, event.reason)

    def _begin_call(self, event: signals.ModelCalling) -> None:
        model = _model_attributes(event.model)
        attributes = {"gen_ai.operation.name": _CHAT, **model, "gen_ai.request.stream": True}
        if event.attempt > 1:
            attributes |= {"openclaw.attempt": event.attempt, "openclaw.wait.seconds": event.waited_seconds}
        attributes |= _sampling_attributes(event.sampling)
        self._begin(_CHAT, model["gen_ai.request.model"], SpanKind.CLIENT, attributes)

    def _add_content(self, event: signals.ModelAnswered) -> None:
        work = current_work.get()
        if work.kind == _CHAT and work.span is not None and work.span.is_recording():
            work.span.set_attribute("gen_ai.input.messages", to_input(event.messages))
            work.span.set_attribute("gen_ai.output.messages", to_output(event))
            if event.system:
                work.span.set_attribute("gen_ai.system_instructions", to_instructions(event.system))

    def _end_call(self, event: signals.ModelCalled) -> None:
        span = _take_current(_CHAT)
        if span is None or not span.is_recording():
            return
        attributes = _usage_attributes(event.usage)
        if event.stop_reason is not None:
            attributes["gen_ai.response.finish_reasons"] = (event.stop_reason,)
        if event.first_output_seconds is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = event.first_output_seconds
            _add_first_token(span, event.first_output_seconds)
        span.set_attributes(attributes)
        _end(span, event.outcome, event.reason)

    def _begin_embeddings(self, event: signals.EmbeddingCalling) -> None:
        model = _model_attributes(event.model)
        attributes = {
            "gen_ai.operation.name": _EMBEDDINGS,
            **model,
            "gen_ai.agent.id": event.agent,
            **_caller_attributes(event),
        }
        if event.dimensions is not None:
            attributes["gen_ai.embeddings.dimension.count"] = event.dimensions
        name = f"{_EMBEDDINGS} {model['gen_ai.request.model']}"
        span = self._tracer.start_span(name, self._around(event.caller_trace), SpanKind.CLIENT, attributes)
        _make_current(_EMBEDDINGS, span)

    def _end_embeddings(self, event: signals.EmbeddingCalled) -> None:
        span = _take_current(_EMBEDDINGS)
        if span is None or not span.is_recording():
            return
        span.set_attributes(_usage_attributes(event.usage))
        if event.attempts > 1:
            span.set_attribute("openclaw.model_calls", event.attempts)
        _end(span, event.outcome, event.reason)

    def _begin_tool(self, event: signals.ToolCalling) -> None:
        attributes = {
            "gen_ai.operation.name": _TOOL,
            "gen_ai.tool.name": event.name,
            "gen_ai.tool.call.id": event.call_id,
            "gen_ai.tool.type": "function",
        }
        self._begin(_TOOL, event.name, SpanKind.INTERNAL, attributes)

    def _end_tool(self, event: signals.ToolExecuted) -> None:
        span = _take_current(_TOOL)
        if span is None or not span.is_recording():
            return
        if self._with_content:
            span.set_attribute("gen_ai.tool.call.arguments", event.arguments)
            span.set_attribute("gen_ai.tool.call.result", event.result)
        _end(span, {"error": "tool_error"}.get(event.outcome, event.outcome))

    def _begin(self, kind: str, subject: str, span_kind: SpanKind, attributes: Mapping[str, Any]) -> None:
        work = current_work.get()
        if work.span is None:
            return  # traces were switched on while the run went on
        around = set_span_in_context(work.span, Context())
        span = self._tracer.start_span(f"{kind} {subject}", around, span_kind, attributes)
        _make_current(kind, span)


def _make_current(kind: str, span: Span) -> None:
    work, made = current_work.get(), span.get_span_context()
    trace_id, span_id = f"{made.trace_id:032x}", f"{made.span_id:016x}"
    headers = {"traceparent": f"00-{trace_id}-{span_id}-{made.trace_flags:02x}"}
    if made.trace_state:
        headers["tracestate"] = made.trace_state.to_header()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    current_work.set(
        WorkContext({**work.ids, "trace_id": trace_id, "span_id": span_id}, headers, lines, kind, span, work)
    )


def _take_current(kind: str) -> Span | None:
    """Return the span of the current work if it is of this kind, and go back to the work around it."""
    work = current_work.get()
    if work.kind != kind or work.around is None:
        return None
    current_work.set(work.around)
    span: Span = work.span
    return span


def _end(span: Span, outcome: str, reason: str | None = None) -> None:
    if outcome != "ok":
        span.set_attribute("error.type", outcome)
        span.set_status(Status(StatusCode.ERROR, reason))
    span.end()


def _add_first_token(span: Any, seconds: float) -> None:
    span.add_event("openclaw.first_token", timestamp=span.start_time + int(seconds * _NANO))


def _model_attributes(ref: str) -> dict[str, Any]:
    provider, _, model = ref.partition("/")
    return {"gen_ai.provider.name": _PROVIDERS.get(provider, provider), "gen_ai.request.model": model}


def _caller_attributes(event: signals.RunAccepted | signals.EmbeddingCalling) -> dict[str, Any]:
    values = {"openclaw.key.id": event.key_id, "openclaw.request.id": event.request_id}
    return {name: value for name, value in values.items() if value is not None}


def _usage_attributes(usage: Usage) -> dict[str, Any]:
    counts = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        "openclaw.cost.usd": to_dollars(usage.cost_nano),
    }
    return {name: count for name, count in counts.items() if count}


def _sampling_attributes(sampling: Sampling) -> dict[str, Any]:
    values = {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.request.stop_sequences": sampling.stop or None,
        "gen_ai.request.max_tokens": sampling.max_tokens,
    }
    return {name: value for name, value in values.items() if value is not None}
