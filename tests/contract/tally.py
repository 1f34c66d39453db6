"""Coverage of a run: operations, their statuses, and the parameters and fields sent.

A run without failures proves little if it tried little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from contract.fuzzing import Outcome

#: Statuses that no generated request can cause at a healthy gateway, by the reason; other tests cause them.
UNPROVOKED = {
    "keys of narrower scope": {"403"},
    "larger or slower requests": {"408", "413", "414", "431"},
    "what happened before": {"409", "410", "429"},
    "failures": {"500", "502", "503", "504"},
}


def to_table(outcome: Outcome, document: Mapping[str, Any]) -> list[str]:
    """Format each operation's statuses, then its parameters as `name accepted/sent`."""
    lines = []
    for label, operation in _operations(document):
        answers = _answers_of(label, outcome)
        statuses = ", ".join(f"{status} {kind} {count}" for (status, kind), count in sorted(answers.items()))
        never = sorted(set(operation["responses"]) - {str(status) for status, _ in answers})
        lines += [label, f"    answered  {statuses}", f"    never     {' '.join(never) or '-'}"]
        sent, accepted = _parameters_of(label, outcome)
        names = sorted(_declared(operation, document))
        lines.append(f"    sent      {', '.join(f'{name} {accepted[name]}/{sent[name]}' for name in names)}")
    return lines + to_shares(outcome, document)


def to_shares(outcome: Outcome, document: Mapping[str, Any]) -> list[str]:
    """Format the shares of operations, reachable statuses, and parameters and fields that were covered."""
    operations = dict(_operations(document))
    reachable = sum(len(_reachable(label, operation, outcome, document)) for label, operation in operations.items())
    declared = sum(len(set(_declared(operation, document))) for operation in operations.values())
    declared_statuses = [status for operation in operations.values() for status in operation["responses"]]
    idle = len(never_successful(outcome, document))
    return [
        f"operations that succeeded: {percentage(len(operations) - idle, len(operations))}",
        f"reachable statuses returned: {percentage(reachable - len(never_answered(outcome, document)), reachable)}",
        f"parameters and fields accepted: {percentage(declared - len(never_accepted(outcome, document)), declared)}",
        *(
            f"    without statuses that need {need}: {sum(map(these.__contains__, declared_statuses))}"
            for need, these in UNPROVOKED.items()
        ),
    ]


def percentage(part: int, whole: int) -> str:
    """Format a share, never rounded up to all."""
    return f"{part}/{whole} ({int(1000 * part / whole) / 10 if whole else 100.0} %)"


def never_successful(outcome: Outcome, document: Mapping[str, Any]) -> list[str]:
    """List the operations that no request succeeded with."""
    labels = [label for label, _ in _operations(document)]
    return [
        label for label in labels if all(status >= HTTPStatus.BAD_REQUEST for status, _ in _answers_of(label, outcome))
    ]


def never_accepted(outcome: Outcome, document: Mapping[str, Any]) -> list[str]:
    """List the parameters and fields of the contract that no accepted request had."""
    found = []
    for label, operation in _operations(document):
        accepted = _parameters_of(label, outcome)[1]
        found += [f"{label}: {name}" for name in sorted(_declared(operation, document)) if not accepted[name]]
    return found


def never_answered(outcome: Outcome, document: Mapping[str, Any]) -> list[str]:
    """List the reachable statuses of the contract that were never returned."""
    found = []
    for label, operation in _operations(document):
        seen = {str(status) for status, _ in _answers_of(label, outcome)}
        found += [f"{label}: {status}" for status in sorted(_reachable(label, operation, outcome, document) - seen)]
    return found


def _reachable(label: str, operation: Mapping[str, Any], outcome: Outcome, document: Mapping[str, Any]) -> set[str]:
    wanted = set(operation["responses"]) - set().union(*UNPROVOKED.values())
    if "requestBody" not in operation:
        wanted.discard("415")
    if "{" not in label:
        wanted.discard("404")
    path = label.partition(" ")[2]
    labels = [f"{method.upper()} {path}" for method in document["paths"][path]]
    first = next(
        (
            one
            for one in labels
            if any(status == HTTPStatus.METHOD_NOT_ALLOWED for status, _ in _answers_of(one, outcome))
        ),
        label,
    )
    if first != label:
        wanted.discard("405")  # methods that a path does not have are tried once for each path
    return wanted


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def _answers_of(label: str, outcome: Outcome) -> Counter[tuple[int, str]]:
    answers: Counter[tuple[int, str]] = Counter()
    for exchange, count in outcome.exchanges.items():
        if exchange.operation == label:
            answers[exchange.status, exchange.content_type.rpartition("/")[2]] += count
    return answers


def _parameters_of(label: str, outcome: Outcome) -> tuple[Counter[str], Counter[str]]:
    """Count how often each parameter was sent, and how often accepted."""
    sent: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for exchange, count in outcome.exchanges.items():
        if exchange.operation == label and exchange.method == label.partition(" ")[0]:
            for name in exchange.parameters:
                sent[name] += count
                accepted[name] += count * (exchange.status in (200, 201, 202, 204))
    return sent, accepted


def _declared(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    components = document["components"]
    for listed in operation.get("parameters", ()):
        name = listed.get("$ref", "").rpartition("/")[2]
        parameter = components["parameters"][name] if name else listed
        yield parameter["name"].lower() if parameter["in"] == "header" else parameter["name"]
    if "requestBody" in operation:
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for field in components["schemas"][reference.rpartition("/")[2]]["properties"]:
            yield f"body {field}"
