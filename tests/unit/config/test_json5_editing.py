"""Editing one value of a JSON5 document without other changes to its text."""

from __future__ import annotations

import copy
import re
from typing import Any

import pyjson5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.config.json5.editing import EditError, get_value, remove_value, set_value
from service.config.key_paths import KeyPath, format_path, parse_path

FILE = """// mine
{
  gateway: {
    port: 18789, // the usual one
    auth: { mode: "token", token: "t" },
    /* about
       http */
    http: { endpoints: {} },
  },
  agents: {
    list: [
      { id: "main" }, // first
      { id: "beta" },
    ],
  },
  // models: { ... }
}
"""

MODELS_ADDED = """  },
  models: {
    providers: {
      "my.host": {
        models: [
          { id: "x" },
        ],
      },
    },
  },
  // models"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        ("gateway.port", 1, "port: 18789, // the", "port: 1, // the"),
        ("gateway.bind", "lan", "{} },\n  },", '{} },\n    bind: "lan",\n  },'),
        ("gateway.auth.mode", "none", '"token",', '"none",'),
        ("gateway.auth.rateLimit.maxAttempts", 3, '"t" }', '"t", rateLimit: { maxAttempts: 3 } }'),
        ("gateway.http.endpoints.chatCompletions.enabled", True, "{} }", "{ chatCompletions: { enabled: true } } }"),
        ("agents.list[1].id", "gamma", '"beta"', '"gamma"'),
        ("agents.list.1.name", "B b", '"beta" }', '"beta", name: "B b" }'),
        ("agents.list[2]", {"id": "c"}, '"beta" },\n', '"beta" },\n      { id: "c" },\n'),
        ("agents.defaults", {"model": "a/b"}, "    ],\n", '    ],\n    defaults: { model: "a/b" },\n'),
        (
            'models.providers["my.host"]',
            {"models": [{"id": "x"}]},
            "  },\n  // models",
            MODELS_ADDED,
        ),
    ],
)
def test_set_value_changes_nothing_else(path: str, value: Any, old: str, new: str) -> None:
    assert set_value(FILE, parse_path(path), value) == FILE.replace(old, new)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("gateway.port", "    port: 18789, // the usual one\n", ""),
        ("gateway.auth.mode", 'mode: "token", ', ""),
        ("gateway.auth.token", ', token: "t" }', " }"),
        ("agents.list[0]", '      { id: "main" }, // first\n', ""),
        ("agents.list[1]", '      { id: "beta" },\n', ""),
        ("gateway.http.endpoints", "{ endpoints: {} }", "{ }"),
    ],
)
def test_remove_value_removes_its_comment_on_line(path: str, old: str, new: str) -> None:
    assert remove_value(FILE, parse_path(path)) == FILE.replace(old, new)


def test_plain_json_stays_plain_json() -> None:
    text = '{\n    "a": {\n        "b": 1\n    }\n}\n'
    longer = set_value(text, ("a", "c"), {"d": [1, {"e": 2}]})
    assert longer.startswith('{\n    "a": {\n        "b": 1,\n        "c": {\n')
    assert not re.search(r",\s*[}\]]", longer)
    assert pyjson5.decode(longer) == {"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}}
    assert remove_value(longer, ("a", "c")) == text
    assert set_value("{}", ("a", "b"), 1) == "{\n  a: { b: 1 },\n}"


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("{a: 1}", "a.b", "a is neither an object nor a list"),
        ("{a: [1]}", "a[2]", "a is a list of 1; the next index is 1"),
        ("{a: [1]}", "a.b", "a is a list of 1"),
        ("{a: {}}", "a[0]", "a is an object"),
        ("{}", "a[1]", "begin with the index 0"),
        ("3", "a", "is neither an object"),
    ],
)
def test_set_value_at_impossible_path_is_refused(text: str, path: str, words: str) -> None:
    with pytest.raises(EditError) as caught:
        set_value(text, parse_path(path), 1)
    assert words in str(caught.value)


def test_remove_value_that_is_not_set_is_refused() -> None:
    for path in ("b", "a.b.c"):
        with pytest.raises(EditError, match="is not set"):
            remove_value("{a: {}}", parse_path(path))


def test_repeated_key_is_set_at_last_place_and_removed_everywhere() -> None:
    assert set_value("{a: 1, a: 2}", ("a",), 3) == "{a: 1, a: 3}"
    assert pyjson5.decode(remove_value("{a: 1, b: 2, a: 3}", ("a",))) == {"b": 2}


@pytest.mark.parametrize(
    "text", ["gateway.port", "agents.list[0].model", 'models.providers["my.host"].api', "a-b[3][4]"]
)
def test_path_round_trip(text: str) -> None:
    assert format_path(parse_path(text)) == text


@pytest.mark.parametrize("text", ["", ".", "a..b", "a.", "[x]", 'a["b', "a]b"])
def test_invalid_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        parse_path(text)


# Any document in any layout: what is written between the tokens of a JSON5 text carries a number, so that it can be
# found again.

KEYS = st.sampled_from(["a", "b", "c d", "ünï", '"', "e.f", "$g"])
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x // y", "/* z */", "it's", "\u2028"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


class Layout:
    """Writes a document with white space and comments that hypothesis draws."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.comments = 0

    def gap(self) -> str:
        kind = self.data.draw(st.sampled_from(["", "", " ", "\n", "\r\n", "\n  ", "//", "/**/", "\u2028", "/*\n*/"]))
        if "/" not in kind:
            return kind
        self.comments += 1
        return f"//<{self.comments}>\n" if kind == "//" else kind.replace("/*", f"/*<{self.comments}>")

    def coin(self) -> bool:
        return bool(self.data.draw(st.booleans()))

    def write(self, value: Any) -> str:
        if isinstance(value, dict):
            items = [f"{self.key(key)}{self.gap()}:{self.gap()}{self.write(item)}" for key, item in value.items()]
            return self.container("{", items, "}")
        if isinstance(value, list):
            return self.container("[", [self.write(item) for item in value], "]")
        if isinstance(value, str) and self.coin():
            return "'" + value.replace("'", "\\'") + "'"
        return str(pyjson5.encode(value))

    def key(self, key: str) -> str:
        bare = key.isidentifier() and self.coin()
        return key if bare else str(pyjson5.encode(key))

    def container(self, opening: str, items: list[str], closing: str) -> str:
        inner = f"{self.gap()},{self.gap()}".join(items)
        trailing = "," if items and self.coin() else ""
        return f"{opening}{self.gap()}{inner}{self.gap()}{trailing}{self.gap()}{closing}"


def paths_of(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*path, key) for key, _ in items] + [p for key, item in items for p in paths_of(item, (*path, key))]


def holder_of(document: Any, path: KeyPath) -> Any:
    return get_value(document, path[:-1])


@settings(max_examples=400)
@given(data=st.data(), document=DOCUMENTS, value=VALUES)
def test_any_document_changes_only_at_path(data: st.DataObject, document: dict[str, Any], value: Any) -> None:
    layout = Layout(data)
    text = layout.gap() + layout.write(document) + layout.gap()
    known = paths_of(document)
    added: list[KeyPath] = [("new",), ("new", "er")]
    added += [(*p, "new") for p in known if isinstance(get_value(document, p), dict)]
    added += [(*p, len(get_value(document, p))) for p in known if isinstance(get_value(document, p), list)]
    path = data.draw(st.sampled_from(known + added))

    expected = copy.deepcopy(document)
    if path == ("new", "er"):
        expected["new"] = {"er": value}
    elif isinstance(holder := holder_of(expected, path), list) and path[-1] == len(holder):
        holder.append(value)
    else:
        holder_of(expected, path)[path[-1]] = value
    changed = set_value(text, path, value)
    assert pyjson5.decode(changed) == expected
    if path not in known:
        assert re.findall(r"<\d+>", changed) == re.findall(r"<\d+>", text)

    if path in known:
        expected = copy.deepcopy(document)
        del holder_of(expected, path)[path[-1]]
        assert pyjson5.decode(remove_value(text, path)) == expected
