"""Estimate what a check against somebody else's JSON schema can cost: a costly one must not hold up the gateway.

Validation is linear in the schema with its references replaced by what they refer to: recursion is remembered by the
library, other references are followed each time, so that thirty definitions can mean a billion steps.
"""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import unquote

#: The most values of a schema; compiling these takes less than a tenth of a second.
MAX_VALUES = 20_000

#: The most steps of a cheap check, for each value of the answer.
_MAX_STEPS = 20_000

#: The most steps of a check in the gateway's own process, where everything else waits: a tenth of a second.
_MAX_TOTAL_STEPS = 4_000_000

_MAX_LEVELS = 400
_MAX_PATTERN_STEPS = 100_000
_REPETITION = re.compile(r"\{(\d*),?(\d*)\}")
#: Members by which references can mean something else than a place in the schema.
_INDIRECT = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef")


def count_values(schema: Any) -> int:
    """Count the values in a schema, itself included."""
    count, left = 0, [schema]
    while left and count <= MAX_VALUES:
        node = left.pop()
        count += 1
        if isinstance(node, dict):
            left += node.values()
        elif isinstance(node, list):
            left += node
    return count


def steps_of(schema: dict[str, Any]) -> float:
    """Return the most steps of a check for each value of the answer, infinity if there is no bound or it is unknown."""
    return _Estimate(schema).steps(schema, 0)


def is_cheap(steps: float, characters: int = 1) -> bool:
    """Return True if a check of these `steps` is short for an answer of so many `characters`."""
    return steps <= _MAX_STEPS and steps * characters <= _MAX_TOTAL_STEPS


class _Estimate:
    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._targets: dict[str, float] = {}

    def steps(self, node: Any, level: int) -> float:
        if level > _MAX_LEVELS:
            return math.inf
        if isinstance(node, list):
            return 1 + sum(self.steps(item, level + 1) for item in node)
        if not isinstance(node, dict):
            return 1
        if any(isinstance(node.get(name), str) for name in _INDIRECT):
            return math.inf
        if isinstance(node.get("$id"), str) and node is not self._schema:
            return math.inf
        found: float = 1 + sum(self.steps(item, level + 1) for item in node.values())
        reference, pattern, patterns = node.get("$ref"), node.get("pattern"), node.get("patternProperties")
        if isinstance(reference, str):
            found += self._of_target(reference, level)
        for text in (pattern, *(patterns if isinstance(patterns, dict) else ())):
            found += _pattern_steps(text) if isinstance(text, str) else 0
        return found

    def _of_target(self, reference: str, level: int) -> float:
        if reference not in self._targets:
            self._targets[reference] = 1  # where it refers to itself
            self._targets[reference] = self.steps(self._resolve(reference), level + 1)
        return self._targets[reference]

    def _resolve(self, reference: str) -> Any:
        """Return what a reference refers to; a name that is not a place in the schema, for an estimate, to no end."""
        node: Any = self._schema
        if reference not in ("#", "") and not reference.startswith("#/"):
            return {"$dynamicRef": reference}
        for step in unquote(reference).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            else:
                node = node.get(name) if isinstance(node, dict) else None
        return node


def _pattern_steps(pattern: str) -> float:
    size = len(pattern)
    for repetition in _REPETITION.finditer(pattern):
        size *= max(1, *(int(number[:9]) for number in repetition.groups() if number))
    return math.inf if size > _MAX_PATTERN_STEPS else 1
