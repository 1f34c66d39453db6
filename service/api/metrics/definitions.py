"""The metrics of signals, a row each; `gauges` has those that are read when they are asked for.

Names are those of OpenClaw's Prometheus plugin where it has them. The values of labels are bounded: agents, tools,
routes and error codes are those of the configuration and of this program, and models beyond the first hundred count as
"other".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from operator import attrgetter
from typing import Any

from service.core import signals
from service.core.dataclass import record
from service.core.signals import Signal
from service.core.usage import NANO

Labels = tuple[str, ...]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)  # OpenTelemetry's, for up to a million
_OPERATIONS = (1, 2, 4, 8, 16, 32, 64, 128)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_MODELS = 100
_OTHER = "other"
_NO_MODEL, _OTHER_MODEL = ("", ""), (_OTHER, _OTHER)
_models: dict[str, tuple[str, str]] = {}


class Kind(Enum):
    """The kinds of metrics of signals."""

    COUNTER = auto()
    HISTOGRAM = auto()


@record
class Events:
    """The events of a signal, counted once `batch` of them have happened, or when the figures are read.

    Those with the same values of the fields `key` have the same labels in every metric, and are counted together.
    """

    signal: Signal[Any]
    key: tuple[str, ...]
    batch: int = 100


@record
class Amounts:
    """Amounts that events add to a metric: `read` returns that of one, without it each adds 1.

    `None` adds nothing, and without `with_zero` nor does 0. A sum is divided by `divisor`.
    """

    read: Callable[[Any], float | None] | None = None
    with_zero: bool = True
    divisor: int = 1


AmountsByLabels = Mapping[Labels, Amounts]


@record
class Row:
    """A metric of events: the values of their key give its `labels` by `to_labels`.

    The keys of `amounts` are the values of further labels.
    """

    kind: Kind
    name: str
    text: str
    labels: Labels
    events: Events
    to_labels: Callable[..., Labels]
    amounts: AmountsByLabels
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


def _no_labels(*_: object) -> Labels:
    return ()


def _to_label(value: str) -> Labels:
    return (value,)


def _to_request_labels(method: str, route: str | None, status: int) -> Labels:
    return method if method in _METHODS else _OTHER, route or _OTHER, str(status)


def _to_run_labels(agent: str, model: str | None, protocol: str, outcome: str) -> Labels:
    return agent, *_split(model), protocol, outcome


def _to_outcome_labels(_agent: str, model: str | None, *others: str) -> Labels:
    return *_split(model), others[-1]


def _to_model_labels(_agent: str, model: str | None, *_: str) -> Labels:
    return _split(model)


def _to_agent_labels(agent: str, model: str | None, *_: str) -> Labels:
    return agent, *_split(model)


def _to_call_labels(model: str, outcome: str) -> Labels:
    return *_split(model), outcome


def _to_failover_labels(model: str, fallback: str, reason: str) -> Labels:
    return *_split(model), *_split(fallback), reason


def _to_tool_labels(name: str, is_known: bool, outcome: str) -> Labels:
    return name if is_known else _OTHER, outcome


_REQUESTS = Events(signals.request_ended, ("method", "route", "status"))
_RUNS = Events(signals.run_finished, ("agent", "model", "protocol", "outcome"))
_CALLS = Events(signals.model_called, ("model", "outcome"))
_EMBEDDINGS = Events(signals.embedding_called, ("asked.agent", "asked.model", "outcome"))
_FAILOVERS = Events(signals.model_replaced, ("model", "fallback", "reason"))
_TOOLS = Events(signals.tool_executed, ("name", "is_known", "outcome"), batch=1)  # results may be large
_COMMITS = Events(signals.committed, ("outcome",))
_LOGINS = Events(signals.login_failed, ("outcome",))

_ONE: AmountsByLabels = {(): Amounts()}
_DURATION: AmountsByLabels = {(): Amounts(attrgetter("seconds"))}
_INPUT_TOKENS = Amounts(attrgetter("usage.input_tokens"), with_zero=False)
_TOKEN_USAGE: AmountsByLabels = {
    ("input",): _INPUT_TOKENS,
    ("output",): Amounts(attrgetter("usage.output_tokens"), with_zero=False),
    ("cache_read",): Amounts(attrgetter("usage.cached_tokens"), with_zero=False),
    ("reasoning",): Amounts(attrgetter("usage.reasoning_tokens"), with_zero=False),
}
_COST: AmountsByLabels = {(): Amounts(attrgetter("usage.cost_nano"), with_zero=False, divisor=NANO)}

_MODEL = ("provider", "model")
_OUTCOME = (*_MODEL, "outcome")

ROWS = (
    Row(
        Kind.HISTOGRAM,
        "openclaw_http_request_duration_seconds",
        "HTTP requests by path, from their first byte to the end of their response; a WebSocket's until it is closed.",
        ("method", "route", "status"),
        _REQUESTS,
        _to_request_labels,
        _DURATION,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_run_completed",
        "Runs that have ended or were refused before they began. The outcome is ok or an error code.",
        ("agent", *_MODEL, "trigger", "outcome"),
        _RUNS,
        _to_run_labels,
        _ONE,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_run_duration_seconds",
        "Runs, from their begin to their end.",
        _OUTCOME,
        _RUNS,
        _to_outcome_labels,
        _DURATION,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_run_time_to_first_token_seconds",
        "From the acceptance of a run to its first output.",
        _MODEL,
        _RUNS,
        _to_model_labels,
        {(): Amounts(attrgetter("first_output_seconds"))},
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_run_queue_wait_seconds",
        "Wait of runs for earlier ones of their session, and for a free slot.",
        (),
        _RUNS,
        _no_labels,
        {(): Amounts(attrgetter("queued_seconds"))},
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_tokens",
        "Tokens of runs. Those read from a cache are part of the input, and those of reasoning of the output.",
        ("agent", *_MODEL, "token_type"),
        _RUNS,
        _to_agent_labels,
        _TOKEN_USAGE,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_cost_usd",
        "Cost of runs in US dollars, of those whose cost is known.",
        ("agent", *_MODEL),
        _RUNS,
        _to_agent_labels,
        _COST,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_gen_ai_client_token_usage",
        "Tokens of a run.",
        (*_MODEL, "token_type"),
        _RUNS,
        _to_model_labels,
        _TOKEN_USAGE,
        _TOKENS,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_call",
        "Attempts to have a model answer. The outcome is ok, cancelled, or an error code.",
        _OUTCOME,
        _CALLS,
        _to_call_labels,
        _ONE,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_model_call_duration_seconds",
        "Attempts to have a model answer.",
        _OUTCOME,
        _CALLS,
        _to_call_labels,
        _DURATION,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_embedding_duration_seconds",
        "Requests for embeddings, from a free slot to their vectors, retries included.",
        _OUTCOME,
        _EMBEDDINGS,
        _to_outcome_labels,
        _DURATION,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_embedding_tokens",
        "Tokens of embeddings.",
        ("agent", *_MODEL),
        _EMBEDDINGS,
        _to_agent_labels,
        {(): _INPUT_TOKENS},
    ),
    Row(
        Kind.COUNTER,
        "openclaw_embedding_cost_usd",
        "Cost of embeddings in US dollars, of those whose cost is known.",
        ("agent", *_MODEL),
        _EMBEDDINGS,
        _to_agent_labels,
        _COST,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_model_failover",
        "Changes to a fallback. The reason is the error code of the model that failed.",
        ("from_provider", "from_model", "to_provider", "to_model", "reason"),
        _FAILOVERS,
        _to_failover_labels,
        _ONE,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_tool_execution",
        "Calls of the agents' own tools.",
        ("tool", "outcome"),
        _TOOLS,
        _to_tool_labels,
        _ONE,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_tool_execution_duration_seconds",
        "Calls of the agents' own tools.",
        ("tool", "outcome"),
        _TOOLS,
        _to_tool_labels,
        _DURATION,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_database_commit_duration_seconds",
        "Transactions that write, retries included.",
        ("outcome",),
        _COMMITS,
        _to_label,
        _DURATION,
    ),
    Row(
        Kind.HISTOGRAM,
        "openclaw_database_commit_operations",
        "Changes that were committed together.",
        (),
        _COMMITS,
        _no_labels,
        {(): Amounts(attrgetter("operations"))},
        _OPERATIONS,
    ),
    Row(
        Kind.COUNTER,
        "openclaw_login_failures",
        "Wrong tokens and passwords, and attempts of addresses that are locked out. The outcome is the error code.",
        ("outcome",),
        _LOGINS,
        _to_label,
        _ONE,
    ),
)
