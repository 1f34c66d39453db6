"""Check a configuration's keys against its schema and the tables of OpenClaw's keys."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from service.config.key_paths import KeyPath, format_path
from service.config.openclaw_keys import IGNORED, PLACES, RESTRICTIONS, Restriction
from service.config.problems import Section, UnknownKey, find_unknown_keys

#: The similarity from which an unknown key counts as misspelt; two swapped letters of a short key reach it.
_RESEMBLANCE = 0.75

#: Names that other programs use for a key, beyond resemblance.
_ELSEWHERE = {"mcpservers": "mcp.servers", "timeout": "timeoutSeconds", "workingdirectory": "cwd"}

_STEP = re.compile(r"\[\]|[^.\[\]]+")
_LONGEST_SHOWN_VALUE = 40

#: A restriction, or the reason why a key is ignored.
Rule = Restriction | str


@dataclass(slots=True)
class RuleNode:
    """A step of the patterns: the rule that ends here, if any, and the steps below."""

    below: dict[str, RuleNode] = field(default_factory=dict)
    rule: Rule | None = None


class KeyReport(NamedTuple):
    """The problems that keep a configuration from being used, and the notices about keys without effect."""

    problems: tuple[str, ...]
    notices: tuple[str, ...]


def check_keys(schema: type[Section], data: object) -> KeyReport:
    """Find the keys of `data` that `schema` does not have, and the restrictions that cannot be enforced."""
    problems = list(_restrictions([rule_tree()], data, ()))
    notices: list[str] = []
    for key in find_unknown_keys(schema, data):
        for path, rule in _rules_of(key.path, key.value):
            if rule is None:
                problems.append(f"{format_path(path)}: {_unknown(path, key)}")
            elif isinstance(rule, str):
                notices.append(f"{format_path(path)}: ignored, as {rule}")
    return KeyReport(tuple(problems), tuple(notices))


@cache
def rule_tree() -> RuleNode:
    """Build the tree of every pattern in the tables."""
    root = RuleNode()
    rows: list[tuple[str, Rule]] = [(rule.pattern, rule) for rule in RESTRICTIONS]
    rows += [(pattern, reason) for reason, patterns in IGNORED.items() for pattern in patterns]
    for pattern, rule in rows:
        for path in expand_pattern(pattern):
            node = root
            for step in split_pattern(path):
                node = node.below.setdefault(step, RuleNode())
            node.rule = rule
    return root


def expand_pattern(pattern: str) -> Iterator[str]:
    """Yield the patterns that `pattern` stands for: one for each place of a name in braces and each `|` alternative."""
    places: tuple[str, ...] = ("",)
    if pattern.startswith("{"):
        name, _, pattern = pattern[1:].partition("}")
        places = PLACES[name]
    head, dot, last = pattern.rpartition(".")
    for place in places:
        yield from (f"{place}{head}{dot}{key}" for key in last.split("|"))


def split_pattern(pattern: str) -> list[str]:
    """Split `a.*.b[].c` into its steps."""
    return _STEP.findall(pattern)


def find_rule(path: KeyPath) -> Rule | None:
    """Return the rule whose pattern is `path`, if there is one."""
    return next((node.rule for node in _nodes_at(path) if node.rule is not None), None)


def _nodes_at(path: KeyPath) -> list[RuleNode]:
    nodes = [rule_tree()]
    for step in path:
        nodes = [below for node in nodes for below in _matching(node, step)]
    return nodes


def _matching(node: RuleNode, step: str | int) -> Iterator[RuleNode]:
    names = ("[]",) if isinstance(step, int) else dict.fromkeys((step, "*"))
    yield from (node.below[name] for name in names if name in node.below)


def _restrictions(nodes: Sequence[RuleNode], value: object, path: KeyPath) -> Iterator[str]:
    """Yield a problem for each restriction in `value`, which is at `path` and matches `nodes`."""
    for rule in (node.rule for node in nodes):
        if isinstance(rule, Restriction) and not rule.harmless.accepts(value):
            yield f"{format_path(path)}: {_shown(value)}is a restriction this gateway cannot enforce; {rule.remedy}"
            return
    if value and not isinstance(value, dict | list) and any(map(_may_hold_restrictions, nodes)):
        yield f"{format_path(path)}: {_shown(value)}is no object, so that what it restricts is unknown; remove it"
    for step, item in _children(value):
        if below := [found for node in nodes for found in _matching(node, step)]:
            yield from _restrictions(below, item, (*path, step))


def _may_hold_restrictions(node: RuleNode) -> bool:
    """Return True for a section that is ignored except for restrictions in it."""
    return isinstance(node.rule, str) and any(map(_holds_restriction, node.below.values()))


def _holds_restriction(node: RuleNode) -> bool:
    return isinstance(node.rule, Restriction) or any(map(_holds_restriction, node.below.values()))


def _rules_of(path: KeyPath, value: object) -> Iterator[tuple[KeyPath, Rule | None]]:
    """Yield the rule of the key at `path`; where only keys below have rules, those of each of its children."""
    rule = find_rule(path)
    if rule is None and _nodes_at(path):
        for step, item in _children(value):
            yield from _rules_of((*path, step), item)
    else:
        yield path, rule


def _children(value: object) -> Iterator[tuple[str | int, object]]:
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list):
        yield from enumerate(value)


def _shown(value: object) -> str:
    if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LONGEST_SHOWN_VALUE):
        return f"{json.dumps(value, ensure_ascii=False)} "
    return ""


def _unknown(path: KeyPath, key: UnknownKey) -> str:
    if path[-1] == "$include":
        return "includes are not supported; copy the content of the file here"
    nearest = _nearest(str(path[-1]), key.known) if path == key.path else None
    if nearest is not None:
        return f"is not a key of the configuration; did you mean `{nearest}`?"
    return "is not a key of the configuration; remove it"


def _nearest(key: str, known: Sequence[str]) -> str | None:
    elsewhere = _ELSEWHERE.get(_plain(key))
    if elsewhere is not None and elsewhere.partition(".")[0] in known:
        return elsewhere
    spellings = {_plain(name): name for name in known}
    found = difflib.get_close_matches(_plain(key), spellings, n=1, cutoff=_RESEMBLANCE)
    return spellings[found[0]] if found else None


def _plain(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()
