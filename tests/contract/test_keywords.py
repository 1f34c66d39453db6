"""Each keyword in the schemas of requests: a request that has it is accepted, one that breaks only it is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis import Case
from support.live import TOKEN, LiveGateway

from contract.keyword_cases import BODY, KeywordCase, Keywords, Subject, Values, derive_cases, list_subjects
from contract.keywords import Place
from contract.seeds import Seeds
from contract.steering import Steering
from contract.tally import percentage
from service.api.http.contract import load_contract

ACCEPTED = {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT}
#: What the gateway reads of a body; a text within it may be as long.
LARGEST_BODY_BYTES = 20 << 20


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The contract as the gateway binds it; the published one says of some choices less."""
    return load_contract()


@pytest.fixture(scope="module")
def keywords(document: dict[str, Any]) -> Keywords:
    return derive_cases(document)


@pytest.fixture(scope="module")
def seeds(gateway: LiveGateway) -> Iterator[Seeds]:
    made = Seeds(gateway.url, TOKEN)
    yield made
    made.close()


@pytest.fixture(scope="module")
def send(gateway: LiveGateway, document: dict[str, Any], seeds: Seeds) -> Iterator[Callable[[KeywordCase], str | None]]:
    """Send the request of a case, and return what is wrong with the answer."""
    schema = schemathesis.openapi.from_dict(copy.deepcopy(document))
    steering = Steering(document, seeds)
    subjects = list(list_subjects(document))
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {TOKEN}"

        def send(one: KeywordCase) -> str | None:
            method, _, path = one.subject.label.partition(" ")
            needed = [other for other in subjects if other.label == one.subject.label and _is_needed(other)]
            case = schema[path][method].Case(**_parts({each: Values(each.schemas).simplest() for each in needed}))
            return _judge(one, _with_value(case, one, steering), session, gateway.url)

        yield send


def _is_needed(subject: Subject) -> bool:
    return subject.location in {"path", BODY}


def _parts(values: dict[Subject, Any]) -> dict[str, Any]:
    """The arguments of a case."""
    named = {"path": "path_parameters", "query": "query", "header": "headers"}
    parts: dict[str, Any] = {}
    for subject, value in values.items():
        if subject.location == BODY:
            parts |= {"body": value, "media_type": "application/json"}
        else:
            sent = str(value).lower() if isinstance(value, bool) else value
            parts.setdefault(named[subject.location], {})[subject.name] = sent
    return parts


def _with_value(case: Case[Any], one: KeywordCase, steering: Steering) -> Case[Any]:
    """The value of `one` in a case whose other parts name what exists; a right value is steered, too."""
    parts = _parts({one.subject: one.value})
    if one.is_right:
        _put(case, parts)
        steering.steer(case)
    else:
        steering.steer(case)
        _put(case, parts)
    return case


def _put(case: Case[Any], parts: dict[str, Any]) -> None:
    for name, value in parts.items():
        old = getattr(case, name)
        setattr(case, name, {**old, **value} if name in {"path_parameters", "query", "headers"} and old else value)


def _judge(one: KeywordCase, case: Case[Any], session: requests.Session, url: str) -> str | None:
    if one.is_right and one.subject.location == BODY:
        reached, broken = one.subject.schemas.inspect(case.body)
        if broken or one.place not in reached:
            return f"steering took it away: {case.body!r:.300}"
    response = case.call(base_url=url, session=session)
    wanted = ACCEPTED if one.is_right else {_refusal_of(one)}
    if response.status_code in wanted:
        return None
    return f"{one.value!r:.300} -> {response.status_code} {response.content[:300]!r}"


def _refusal_of(one: KeywordCase) -> HTTPStatus:
    if one.subject.location == "path":
        return HTTPStatus.NOT_FOUND
    is_large = one.subject.location == BODY and len(json.dumps(one.value)) > LARGEST_BODY_BYTES
    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_large else HTTPStatus.BAD_REQUEST


def test_every_keyword_is_satisfied_and_broken_by_a_request(
    keywords: Keywords, send: Callable[[KeywordCase], str | None], table: Callable[[str], None]
) -> None:
    assert not keywords.missing
    failed = [(one, wrong) for one in keywords.cases if (wrong := send(one)) is not None]
    for name, side in (("accepted", True), ("refused", False)):
        whole = sum(one.is_right is side for one in keywords.cases)
        bad = sum(one.is_right is side for one, _ in failed)
        table(f"keywords of requests {name}: {percentage(whole - bad, whole)}")
    for rule, places in keywords.excluded.items():
        table(f"    without {rule}: {len(places)}")
    assert not failed, "\n".join(f"{one.place} {wrong}" for one, wrong in failed)


def test_keyword_that_the_gateway_does_not_check_is_found(
    document: dict[str, Any], send: Callable[[KeywordCase], str | None]
) -> None:
    narrower = copy.deepcopy(document)
    fields = narrower["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    fields["temperature"]["maximum"] = 1
    fields["top_p"]["minimum"] = 1
    places = {
        Place("ChatCompletionRequest/temperature", "maximum"),
        Place("ChatCompletionRequest/top_p", "minimum"),
    }
    refused = [one for one in derive_cases(narrower).cases if one.place in places and not one.is_right]
    assert [one.place for one in refused if send(one) is not None] == [one.place for one in refused]
    assert {one.place for one in refused} == places
