"""The metrics, a row each: counters and histograms of signals, and gauges that are read when they are asked for.

Names are those of OpenClaw's Prometheus plugin where it has them. The values of labels are bounded: agents, tools,
routes and error codes are those of the configuration and of this program, and models beyond the first hundred count as
"other".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any

from service.core import signals
from service.core.dataclass import record
from service.core.signals import Signal
from service.core.usage import to_dollars

#: Values of the labels, and the amount to add or observe.
Sample = tuple[tuple[str, ...], float]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)  # OpenTelemetry's, for up to a million
_OPERATIONS = (1, 2, 4, 8, 16, 32, 64, 128)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_MODELS = 100
_OTHER = "other"
_NO_MODEL, _OTHER_MODEL = ("", ""), (_OTHER, _OTHER)
_models: dict[str, tuple[str, str]] = {}


class Kind(Enum):
    """The kinds of metrics of signals. A gauge is that of a process, and ends with it."""

    COUNTER = auto()
    GAUGE = auto()
    HISTOGRAM = auto()


@record
class Row:
    """A metric of a signal: `read` returns what an event adds to it."""

    kind: Kind
    name: str
    text: str
    labels: tuple[str, ...]
    signal: Signal[Any]
    read: Callable[[Any], Iterable[Sample]]
    buckets: tuple[float, ...] = _SECONDS


def _split(ref: str | None) -> tuple[str, str]:
    """Return the provider and the model of `provider/model`."""
    if ref is None:
        return _NO_MODEL
    known = _models.get(ref)
    if known is not None:
        return known
    if len(_models) >= _MAX_MODELS:
        return _OTHER_MODEL
    provider, _, model = ref.partition("/")
    _models[ref] = provider, model
    return provider, model


def _request(event: signals.RequestEnded) -> Iterable[Sample]:
    method = event.method if event.method in _METHODS else _OTHER
    return (((method, event.route or _OTHER, str(event.status)), event.seconds),)


def _run(event: signals.RunFinished) -> Iterable[Sample]:
    return (((event.agent, *_split(event.model), event.protocol, event.outcome), 1),)


def _run_seconds(event: signals.RunFinished) -> Iterable[Sample]:
    return () if event.seconds is None else (((*_split(event.model), event.outcome), event.seconds),)


def _first_output(event: signals.RunFinished) -> Iterable[Sample]:
    return () if event.first_output_seconds is None else ((_split(event.model), event.first_output_seconds),)


def _tokens(event: signals.RunFinished) -> Iterable[Sample]:
    return (((event.agent, *labels), count) for labels, count in _token_usage(event))


def _token_usage(event: signals.RunFinished) -> Iterable[Sample]:
    usage, model = event.usage, _split(event.model)
    counts = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cached_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    return [((*model, kind), count) for kind, count in counts.items() if count]


def _cost(event: signals.RunFinished) -> Iterable[Sample]:
    cost = to_dollars(event.usage.cost_nano)
    return (((event.agent, *_split(event.model)), cost),) if cost else ()


def _call(event: signals.ModelCalled) -> Iterable[Sample]:
    return (((*_split(event.model), event.outcome), 1),)


def _call_seconds(event: signals.ModelCalled) -> Iterable[Sample]:
    return (((*_split(event.model), event.outcome), event.seconds),)


def _failover(event: signals.ModelReplaced) -> Iterable[Sample]:
    return (((*_split(event.model), *_split(event.fallback), event.reason), 1),)


def _tool(event: signals.ToolExecuted) -> Iterable[Sample]:
    return (((event.name or _OTHER, event.outcome), 1),)


def _tool_seconds(event: signals.ToolExecuted) -> Iterable[Sample]:
    return (((event.name or _OTHER, event.outcome), event.seconds),)


def _commit(event: signals.Committed) -> Iterable[Sample]:
    return ((("error" if event.failed else "ok",), event.seconds),)


_MODEL = ("provider", "model")
_OUTCOME = (*_MODEL, "outcome")

ROWS = (
    Row(
        Kind.HISTOGRAM,
        "openclaw_http_request_duration_seconds",
        "HTTP requests by path, from their first byte to the end of their response; a WebSocket's until it is closed.",
        ("method", "route", "status"),
        signals.request_ended,
        _request,
    ),
    Row(
        Kind.GAUGE,
        "openclaw_http_streams",
        "Open streams of Server-Sent Events.",
        (),
        signals.stream_changed,
        lambda event: (((), event.change),),
    ),
    Row(
        Kind.COUNTER,
        "openclaw_run_completed",
        "Runs that have ended or were refused before they began. The outcome is ok or an error code.",
        ("agent", *_MODEL, "trigger", "outcome"),
        signals.run_finished,
        _run,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_run_duration_seconds",
        "Runs, from their begin to their end.",
        _OUTCOME,
        signals.run_finished,
        _run_seconds,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_run_time_to_first_token_seconds",
        "From the acceptance of a run to its first output.",
        _MODEL,
        signals.run_finished,
        _first_output,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_run_queue_wait_seconds",
        "Wait of runs for earlier ones of their session, and for a free slot.",
        (),
        signals.run_finished,
        lambda event: (((), event.queued_seconds),),
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_tokens",
        "Tokens of runs. Those read from a cache are part of the input, and those of reasoning of the output.",
        ("agent", *_MODEL, "token_type"),
        signals.run_finished,
        _tokens,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_cost_usd",
        "Cost of runs in US dollars, of those whose cost is known.",
        ("agent", *_MODEL),
        signals.run_finished,
        _cost,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_gen_ai_client_token_usage",
        "Tokens of a run.",
        (*_MODEL, "token_type"),
        signals.run_finished,
        _token_usage,
        _TOKENS,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_call",
        "Attempts to have a model answer. The outcome is ok, cancelled, or an error code.",
        _OUTCOME,
        signals.model_called,
        _call,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_model_call_duration_seconds",
        "Attempts to have a model answer.",
        _OUTCOME,
        signals.model_called,
        _call_seconds,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_failover",
        "Changes to a fallback. The reason is the error code of the model that failed.",
        ("from_provider", "from_model", "to_provider", "to_model", "reason"),
        signals.model_replaced,
        _failover,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_tool_execution",
        "Calls of the agents' own tools.",
        ("tool", "outcome"),
        signals.tool_executed,
        _tool,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_tool_execution_duration_seconds",
        "Calls of the agents' own tools.",
        ("tool", "outcome"),
        signals.tool_executed,
        _tool_seconds,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_database_commit_duration_seconds",
        "Transactions that write, retries included.",
        ("outcome",),
        signals.committed,
        _commit,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_database_commit_operations",
        "Changes that were committed together.",
        (),
        signals.committed,
        lambda event: (((), event.operations),),
        _OPERATIONS,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_login_failures",
        "Wrong tokens and passwords.",
        (),
        signals.login_failed,
        lambda _: (((), 1),),
    ),
)

#: Gauges that are read when they are asked for: name, text and labels.
GAUGES = (
    ("openclaw_runs", "Runs that go on.", ("state",)),
    ("openclaw_websocket_connections", "Authenticated WebSockets.", ()),
    ("openclaw_in_flight_bytes", "Memory for bodies, messages and output that is not read yet.", ()),
    ("openclaw_in_flight_limit_bytes", "The limit of this memory.", ()),
)

#: Figures of prometheus_client's collector of a process that can be added up over several.
CPU_SECONDS = "process_cpu_seconds_total"
PROCESS = {
    CPU_SECONDS: "CPU time, in seconds.",
    "process_resident_memory_bytes": "Resident memory.",
    "process_virtual_memory_bytes": "Virtual memory.",
    "process_open_fds": "Open file descriptors.",
}
