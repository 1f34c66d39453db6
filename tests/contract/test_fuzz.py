"""Schemathesis against a live gateway: all phases and checks, right and wrong data, JSON and streams.

`--examples=N` sets the cases per operation, `--seed=N` or `--random-seed` selects other cases than the default seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import openapi_spec_validator
import pytest
from support.live import TOKEN, LiveGateway

from contract.derived import to_streaming_document
from contract.fuzzing import GENERATED, PHASES, Outcome, Plan
from contract.fuzzing import fuzz as run_plan
from contract.steering import (
    APPROVALS,
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
    TOOLS,
)
from contract.tally import never_accepted, never_answered, never_successful, to_table

#: The minimum share of completions that succeed; about half of the generated requests are wrong.
LEAST_SHARE = 0.15
#: A single operation has no links.
UNLINKED = tuple(phase for phase in PHASES if phase != "stateful")
SECURED = {
    **dict.fromkeys(
        (
            COMPLETION,
            CREATE_RUN,
            CALL_TOOL,
            EMBEDDINGS,
            RESPONSE,
            TOOLS,
            "GET /v1/models",
            "GET /v1/sessions",
            "GET /v1/runs",
            APPROVALS,
        ),
        ("401",),
    ),
    **dict.fromkeys(
        ("HEAD /v1/models", "HEAD /v1/sessions", "HEAD /v1/runs", "HEAD /v1/approvals", "HEAD /v1/tools"), ("401",)
    ),
    **dict.fromkeys(
        (MODEL, SESSION, DELETE_SESSION, RUN, RUN_EVENTS, CHAT_STREAM, CANCEL_RUN, DECIDE_APPROVAL, FORK_SESSION),
        ("401", "404"),
    ),
    **dict.fromkeys((HEAD_MODEL, HEAD_SESSION, HEAD_RUN, HEAD_RUN_EVENTS, HEAD_CHAT_STREAM), ("401", "404")),
    **dict.fromkeys((GET_RESPONSE, DELETE_RESPONSE, CANCEL_RESPONSE, INPUT_ITEMS), ("401", "404")),
    **dict.fromkeys((HEAD_RESPONSE, HEAD_INPUT_ITEMS), ("401", "404")),
    **dict.fromkeys(("GET /v1/runs", "HEAD /v1/runs"), ("401", "414")),
}


@pytest.fixture(scope="module")
def plan(gateway: LiveGateway, seed: int, examples: int) -> Plan:
    """All operations of the served contract, with the right credentials."""
    with gateway.client() as client:
        document: dict[str, Any] = client.get("/openapi.json").json()
    return Plan(gateway.url, document, TOKEN, seed, examples)


@pytest.fixture(scope="module")
def fuzz(table: Callable[[str], None]) -> Iterator[Callable[[Plan], Outcome]]:
    """Run a plan; the number of all requests is printed at the end."""
    cases = Counter[str]()

    def run(plan: Plan) -> Outcome:
        outcome = run_plan(plan)
        cases["sent"] += outcome.exchanges.total()
        return outcome

    yield run
    table(f"cases: {cases['sent']}")


@pytest.fixture(scope="module")
def everything(plan: Plan, fuzz: Callable[[Plan], Outcome], table: Callable[[str], None]) -> Outcome:
    outcome = fuzz(plan)
    for line in to_table(outcome, plan.document):
        table(line)
    return outcome


@pytest.fixture(scope="module")
def streams(plan: Plan, fuzz: Callable[[Plan], Outcome]) -> Outcome:
    return fuzz(replace(plan, phases=UNLINKED, operations=(COMPLETION, RESPONSE), streaming=True))


def shares(outcome: Outcome) -> dict[str, float]:
    """Return the share of completions that were right and succeeded, by content type."""
    asked = {one: count for one, count in outcome.exchanges.items() if one.operation == COMPLETION}
    answered: Counter[str] = Counter()
    for exchange, count in asked.items():
        if exchange.status == 200 and exchange.is_right:
            answered[exchange.content_type] += count
    return {content_type: count / sum(asked.values()) for content_type, count in answered.items()}


def test_every_response_conforms_to_contract(everything: Outcome) -> None:
    assert not everything.failures, everything.report()


def test_every_reachable_status_was_returned(everything: Outcome, plan: Plan) -> None:
    assert not never_answered(everything, plan.document)


def test_every_operation_succeeded(everything: Outcome, plan: Plan) -> None:
    assert not never_successful(everything, plan.document)


def test_every_parameter_and_field_was_accepted_once(everything: Outcome, plan: Plan) -> None:
    assert not never_accepted(everything, plan.document)


def test_completions_return_json_and_streams(everything: Outcome) -> None:
    assert shares(everything)["application/json"] > LEAST_SHARE
    assert shares(everything)["text/event-stream"] > 0


def test_every_stream_event_conforms_to_contract(streams: Outcome) -> None:
    assert not streams.failures, streams.report()


def test_streaming_requests_return_streams(streams: Outcome) -> None:
    assert shares(streams).keys() == {"text/event-stream"}
    assert shares(streams)["text/event-stream"] > LEAST_SHARE


@pytest.mark.parametrize("streaming", [False, True], ids=["json", "stream"])
def test_failing_model_conforms_to_contract(plan: Plan, fuzz: Callable[[Plan], Outcome], streaming: bool) -> None:
    failing = replace(
        plan,
        examples=max(plan.examples // 4, 200),  # enough for each model to fail once
        phases=GENERATED,
        operations=(COMPLETION, RESPONSE),
        streaming=streaming,
        failing=True,
        accepted=("200", "429", "502", "503", "504"),
    )
    outcome = fuzz(failing)
    assert not outcome.failures, outcome.report()
    seen = {str(exchange.status) for exchange in outcome.exchanges if exchange.is_right}
    assert seen >= set(failing.accepted) - {"200"}  # a stream may begin before its model fails


def test_unauthenticated_requests_return_401(plan: Plan, fuzz: Callable[[Plan], Outcome]) -> None:
    stranger = replace(
        plan,
        token=None,
        examples=max(plan.examples // 4, 50),
        phases=GENERATED,
        operations=tuple(SECURED),
        accepted=("401",),
        rejections=SECURED,
    )
    outcome = fuzz(stranger)
    assert not outcome.failures, outcome.report()
    assert all(exchange.status != 200 for exchange in outcome.exchanges)


def test_derived_document_is_valid_openapi(plan: Plan) -> None:
    openapi_spec_validator.validate(to_streaming_document(plan.document))
