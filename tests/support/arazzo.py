"""Play the workflows of an Arazzo document against a live gateway.

It has the runtime expressions and the criteria that the project's document uses; an unknown one raises `ValueError`.
https://spec.openapis.org/arazzo/v1.0.1.html#runtime-expressions
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

_CONDITION = re.compile(r"(?P<left>\S+) == (?P<right>.+)")


class Workflows:
    """The workflows of `document`, whose operations are those of `contract`; `played` names the steps so far."""

    def __init__(self, document: Mapping[str, Any], contract: Mapping[str, Any]) -> None:
        self._workflows = {one["workflowId"]: one for one in document["workflows"]}
        self._operations = {
            operation["operationId"]: (method, path)
            for path, item in contract["paths"].items()
            for method, operation in item.items()
        }
        self.played: list[str] = []

    @property
    def names(self) -> list[str]:
        return list(self._workflows)

    def play(self, name: str, client: httpx.Client, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Play a workflow and return its outputs; a criterion that is not met raises `AssertionError`."""
        workflow = self._workflows[name]
        assert set(workflow["inputs"]["required"]) <= inputs.keys()
        state: dict[str, Any] = {"$inputs": inputs, "$steps": {}}
        for step in workflow["steps"]:
            response = self._send(step, client, state)
            seen = state | {"$response": response}
            for criterion in step["successCriteria"]:
                assert _is_met(criterion, seen), (name, step["stepId"], criterion, response.status_code, response.text)
            outputs = {key: _evaluate(value, seen) for key, value in step.get("outputs", {}).items()}
            state["$steps"][step["stepId"]] = {"outputs": outputs}
            self.played.append(f"{name}.{step['stepId']}")
        return {key: _evaluate(value, state) for key, value in workflow["outputs"].items()}

    def _send(self, step: Mapping[str, Any], client: httpx.Client, state: Mapping[str, Any]) -> httpx.Response:
        method, path = self._operations[step["operationId"]]
        places: dict[str, dict[str, Any]] = {"header": {}, "query": {}, "path": {}}
        for parameter in step.get("parameters", ()):
            places[parameter["in"]][parameter["name"]] = _evaluate(parameter["value"], state)
        for name, value in places["path"].items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        body = {"json": _evaluate(step["requestBody"]["payload"], state)} if "requestBody" in step else {}
        return client.request(method, path, headers=places["header"], params=places["query"], **body)


def _is_met(criterion: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    if criterion.get("type", "simple") == "regex":
        return re.search(criterion["condition"], _evaluate(criterion["context"], state)) is not None
    found = _CONDITION.fullmatch(criterion["condition"])
    if found is None:
        raise ValueError(criterion["condition"])
    right = found["right"]
    expected = right.strip("'") if right.startswith("'") else int(right)
    return bool(_evaluate(found["left"], state) == expected)


def _evaluate(value: Any, state: Mapping[str, Any]) -> Any:
    """Replace the runtime expressions in a value."""
    if isinstance(value, Mapping):
        return {name: _evaluate(part, state) for name, part in value.items()}
    if isinstance(value, list):
        return [_evaluate(part, state) for part in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    expression, _, pointer = value.partition("#/")
    if expression == "$statusCode":
        return state["$response"].status_code
    if expression == "$response.body":
        return _at(state["$response"].json(), pointer.split("/")) if pointer else state["$response"].text
    return _at(state, expression.split("."))


def _at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value
