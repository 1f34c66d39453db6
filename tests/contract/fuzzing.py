"""Run Schemathesis as a library against a live gateway: all phases, all checks, one outcome.

No check depends on timing, and runs share no state.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.engine import StopReason, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from contract.checks import conformance_check, registered
from contract.derived import to_streaming_document
from contract.seeds import Seeds
from contract.steering import (
    CALL_TOOL,
    CANCEL_RESPONSE,
    CANCEL_RUN,
    CHAT_STREAM,
    COMPLETION,
    CREATE_RUN,
    DECIDE_APPROVAL,
    DELETE_RESPONSE,
    DELETE_SESSION,
    EMBEDDINGS,
    FORK_SESSION,
    GET_RESPONSE,
    HEAD_CHAT_STREAM,
    HEAD_INPUT_ITEMS,
    HEAD_MODEL,
    HEAD_RESPONSE,
    HEAD_RUN,
    HEAD_RUN_EVENTS,
    HEAD_SESSION,
    INPUT_ITEMS,
    MODEL,
    RESPONSE,
    RUN,
    RUN_EVENTS,
    SESSION,
    Steering,
)

PHASES = ("examples", "coverage", "fuzzing", "stateful")
#: For operations with few inputs, generated requests suffice, without the enumerated ones.
GENERATED = ("examples", "fuzzing")
DOCS_ASSET = "GET /docs/{asset}"
ERROR_PAGE = "GET /docs/errors/{code}"
PAGE_ASSET = "GET /ui/{asset}"
PAGE_LIBRARY = "GET /ui/vendor/{library}"

_LISTS = ("models", "sessions", "runs", "usage", "approvals", "tools")

#: The statuses for wrong input by operation: 401 where credentials are required, 404 where a part of the path can be
#: wrong, 415 where there is a body.
REJECTIONS = {
    COMPLETION: ["400", "401", "415"],
    RESPONSE: ["400", "401", "415"],
    **{label: ["400", "401", "404"] for label in (GET_RESPONSE, DELETE_RESPONSE, CANCEL_RESPONSE, INPUT_ITEMS)},
    **{label: ["400", "401", "404"] for label in (HEAD_RESPONSE, HEAD_INPUT_ITEMS)},
    CREATE_RUN: ["400", "401", "415"],
    EMBEDDINGS: ["400", "401", "404", "415"],
    CALL_TOOL: ["400", "401", "404", "415"],
    DECIDE_APPROVAL: ["400", "401", "404", "415"],
    FORK_SESSION: ["400", "401", "404", "415"],
    **{
        label: ["400", "401", "404"]
        for label in (MODEL, SESSION, DELETE_SESSION, RUN, RUN_EVENTS, CHAT_STREAM, CANCEL_RUN)
    },
    **{
        label: ["400", "401", "404"]
        for label in (HEAD_MODEL, HEAD_SESSION, HEAD_RUN, HEAD_RUN_EVENTS, HEAD_CHAT_STREAM)
    },
    **{f"{method} /v1/{name}": ["400", "401"] for method in ("GET", "HEAD") for name in _LISTS},
    **{f"{method} /v1/runs": ["400", "401", "414"] for method in ("GET", "HEAD")},  # keys and cursors may be long
    DOCS_ASSET: ["400", "404"],
    PAGE_ASSET: ["400", "404"],
    f"HEAD {PAGE_ASSET.partition(' ')[2]}": ["400", "404"],
    PAGE_LIBRARY: ["400", "404"],
    f"HEAD {PAGE_LIBRARY.partition(' ')[2]}": ["400", "404"],
    ERROR_PAGE: ["400", "404"],
    f"HEAD {ERROR_PAGE.partition(' ')[2]}": ["400", "404"],
    f"HEAD {DOCS_ASSET.partition(' ')[2]}": ["400", "404"],
}

_LONGEST_STREAM_EVENTS = 1_000_000
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Plan:
    """The target and options of a run: `document` is the contract, `examples` the number of cases per operation.

    `operations` are labels such as `GET /healthz`; none means all. With `streaming`, completions are requested as
    streams and validated against the derived document; with `failing`, their models fail. `accepted` are the statuses
    for right input, `rejections` those for wrong input by operation; elsewhere 400. `fault` is that of a gateway with
    seeded faults.
    """

    url: str
    document: Mapping[str, Any] = field(repr=False)
    token: str | None = field(repr=False)
    seed: int
    examples: int
    phases: Sequence[str] = PHASES
    operations: Sequence[str] = ()
    streaming: bool = False
    failing: bool = False
    accepted: Sequence[str] = ("200", "201", "202", "204", "304")
    rejections: Mapping[str, Sequence[str]] = field(default_factory=lambda: REJECTIONS)
    fault: str | None = None


@dataclass(frozen=True)
class Exchange:
    """A request and its response; `is_right` if the request conforms to the contract."""

    operation: str
    method: str
    parameters: frozenset[str]
    is_right: bool
    status: int
    content_type: str


@dataclass
class Outcome:
    """The result of a run: `failures` (check -> one message per failure) and the counted exchanges.

    `failed` has each operation with each check that it failed.
    """

    failures: dict[str, list[str]] = field(default_factory=dict)
    failed: set[tuple[str, str]] = field(default_factory=set, repr=False)
    exchanges: Counter[Exchange] = field(default_factory=Counter, repr=False)

    def report(self) -> str:
        """Format the failures, with a command to reproduce each."""
        return "\n\n".join(f"{check}: {text}" for check, texts in self.failures.items() for text in texts)


def fuzz(plan: Plan) -> Outcome:
    """Run `plan` to its end; raises errors of Schemathesis itself."""
    outcome = Outcome()
    # A copy: Schemathesis writes the links it infers into its document.
    document = to_streaming_document(plan.document) if plan.streaming else copy.deepcopy(dict(plan.document))
    schema = schemathesis.openapi.from_dict(document, config=_to_config(plan))
    seeds = None if plan.token is None else Seeds(plan.url, plan.token)
    Steering(plan.document, seeds, streaming=plan.streaming, failing=plan.failing).register(schema)
    try:
        with registered(conformance_check(plan.document)):
            for event in from_schema(schema).execute():
                _note(event, outcome)
    finally:
        if seeds is not None:
            seeds.close()
    return outcome


def _note(event: events.EngineEvent, outcome: Outcome) -> None:
    match event:
        case events.ScenarioFinished():
            _note_scenario(event.recorder, outcome)
        case events.NonFatalError():
            outcome.failures.setdefault("error", []).append(f"{event.label}: {event.info.title}: {event.info.message}")
        case events.FatalError():
            raise event.exception
        case events.Interrupted():
            raise KeyboardInterrupt
        case events.EngineFinished() if event.stop_reason is not StopReason.COMPLETED:
            outcome.failures.setdefault("error", []).append(f"the run stopped early: {event.stop_reason}")


def _note_scenario(recorder: ScenarioRecorder, outcome: Outcome) -> None:
    for case_id, node in recorder.cases.items():
        interaction = recorder.interactions.get(case_id)
        if interaction is None or interaction.response is None:
            continue
        case, response = node.value, interaction.response
        body = case.body if isinstance(case.body, dict) else {}
        carried = {*(name.lower() for name in case.headers), *case.path_parameters, *(f"body {name}" for name in body)}
        carried |= set(case.query)
        content_type = response.headers.get("content-type", [""])[0].partition(";")[0]
        exchange = Exchange(
            operation=case.operation.label,
            method=interaction.request.method,
            parameters=frozenset(carried),
            is_right=case.meta is not None and case.meta.generation.mode.is_positive,
            status=response.status_code,
            content_type=content_type,
        )
        outcome.exchanges[exchange] += 1
        for check in recorder.checks.get(case_id, []):
            if check.failure_info is not None:
                info = check.failure_info
                text = f"{case.operation.label} -> {response.status_code}: {info.failure.message}\n{info.code_sample}"
                outcome.failures.setdefault(check.name, []).append(f"{text}\n{response.content[:500]!r}")
                outcome.failed.add((case.operation.label, check.name))


def _to_config(plan: Plan) -> schemathesis.Config:
    phases: dict[str, Any] = {name: {"enabled": name in plan.phases} for name in PHASES}
    # Error messages are not part of the contract: values must not be inferred from them.
    phases["fuzzing"]["error-feedback"] = {"enabled": False}
    operations: list[dict[str, Any]] = [
        {"include-name": name, "checks": {"negative_data_rejection": {"expected-statuses": list(statuses)}}}
        for name, statuses in plan.rejections.items()
    ]
    # The path of a fork is that of a session, too, whose key may have slashes.
    operations.append({"include-name": FORK_SESSION, "checks": {"allow_header_conformance": {"enabled": False}}})
    if plan.operations:
        # By path: methods that a path does not have are tried only where nothing excludes them.
        paths = [operation.partition(" ")[2] for operation in plan.operations]
        operations.append({"exclude-path": paths, "enabled": False})
    config: dict[str, Any] = {
        "base-url": plan.url,
        "seed": plan.seed,
        "continue-on-failure": True,
        "request-timeout": _TIMEOUT_SECONDS,
        "max-stream-events": _LONGEST_STREAM_EVENTS,
        "suppress-health-check": ["all"],
        "cache": {"enabled": False},
        "output": {"sanitization": {"enabled": False}},
        "generation": {"max-examples": plan.examples, "mode": "all", "database": "none", "no-shrink": True},
        "phases": phases,
        "checks": {
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", *plan.accepted]},
            "positive_data_acceptance": {"expected-statuses": list(plan.accepted)},
            "negative_data_rejection": {"expected-statuses": ["400"]},
            "missing_required_header": {"expected-statuses": ["401"]},
        },
        "operations": operations,
    }
    headers = {} if plan.token is None else {"Authorization": f"Bearer {plan.token}"}
    if headers or plan.fault:
        config["headers"] = headers | ({"X-Seeded-Fault": plan.fault} if plan.fault else {})
    return schemathesis.Config.from_dict(config)
