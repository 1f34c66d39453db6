"""The number of values in a JSON body is limited before it is parsed."""

from __future__ import annotations

import re
import timeit
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from service.api.http.body_limits import MAX_FIELDS, MAX_VALUES, check_value_count
from service.api.http.contract import load_contract
from service.api.http.schema_validation import CompiledSchema
from service.core.errors import GatewayError

MANY = MAX_VALUES + 1
USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    "make_body",
    [
        lambda: orjson.dumps({"messages": [USER] * 650_000}),
        lambda: b'{"x":[' + b"[]," * MANY + b"1]}",
        lambda: b'{"x":[' + b"{}," * MANY + b"1]}",
        lambda: b'{"x":[' + b"1," * MANY + b"1]}",
        lambda: b'{"x":[' + b'"",' * MANY + b'""]}',
        lambda: b'{"x":[' + b'"\\\\",' * MANY + b'""]}',
        lambda: b'{"x":[' + b'"\\"",' * MANY + b'""]}',
        lambda: b"[" * MANY * 2,
    ],
    ids=["messages", "arrays", "objects", "numbers", "strings", "backslashes", "quotes", "depth"],
)
def test_body_with_too_many_values_is_refused(make_body: Callable[[], bytes]) -> None:
    with pytest.raises(GatewayError, match="more than 200000 values") as caught:
        check_value_count(make_body())
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize(
    "make_members",
    [
        lambda: {f"key{key}": 1 for key in range(MAX_FIELDS)},
        lambda: {"logit_bias": {str(key): 1 for key in range(1_500_000)}},
        lambda: {"metadata": [{"a": 1, "b": 2}] * (MAX_FIELDS // 2)},
    ],
    ids=["one-object", "large-object", "many-objects"],
)
def test_body_with_too_many_fields_is_refused(make_members: Callable[[], dict[str, object]]) -> None:
    with pytest.raises(GatewayError, match="more than 100000 fields") as caught:
        check_value_count(orjson.dumps({"messages": [USER], **make_members()}))
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("word ", 3_000_000),
        ('{"a": [1, 2]}, ', 200_000),
        ("\\", 1_900_000),
        ('\\"', 1_200_000),
        ("\n", 3_900_000),
        ("ñ", 3_900_000),
    ],
    ids=["words", "json", "backslashes", "escaped-quotes", "line-breaks", "letters"],
)
def test_long_text_is_accepted_whatever_it_contains(text: str, times: int) -> None:
    check_value_count(orjson.dumps({"messages": [{"role": "user", "content": text * times}]}))


@pytest.mark.parametrize(("text", "times"), [("\\", 2_100_000), ("\n", 4_100_000), ("ñ", 5_000_000), ("漢", 3_500_000)])
def test_text_that_takes_long_to_parse_is_limited(text: str, times: int) -> None:
    with pytest.raises(GatewayError, match="more than 8 MiB of text that is escaped or not ASCII") as caught:
        check_value_count(orjson.dumps({"messages": [{"role": "user", "content": text * times}]}))
    assert caught.value.code == "request_too_large"


@pytest.mark.parametrize("escaped", ['"', "\\", '\\"', '\\\\"'])
@pytest.mark.parametrize("shift", range(5))
def test_escapes_at_the_end_of_a_piece_do_not_end_a_string(escaped: str, shift: int) -> None:
    text = "x" * (1024 * 1024 - len('{"text":"') - shift) + escaped + "," * MANY
    check_value_count(orjson.dumps({"text": text}))
    with pytest.raises(GatewayError, match="more than 200000 values"):
        check_value_count(orjson.dumps({"text": text})[:-1] + b"," * MANY + b"}")


def test_ten_thousand_messages_with_tool_calls_are_accepted() -> None:
    function = {"name": "f", "arguments": '{"a": [1, 2, 3]}'}
    call = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    check_value_count(orjson.dumps({"messages": [call] * 10_000}))


def check(body: object) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        CompiledSchema({"$ref": "#/components/schemas/ChatCompletionRequest"}, load_contract()).check(body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"messages": [7] * 10_001}, "invalid_value", "messages"),
        ({"messages": [USER], "logit_bias": dict.fromkeys(map(str, range(1025)), "x")}, "invalid_value", "logit_bias"),
        ({str(key): 1 for key in range(1000)}, "missing_required_parameter", "messages"),
        ({**{str(key): 1 for key in range(1000)}, "messages": [USER], "top_p": "x"}, "invalid_type", "top_p"),
        ({"messages": [USER], "tools": "x" * 200}, "invalid_type", "tools"),
    ],
)
def test_sizes_are_checked_before_elements(body: object, code: str, param: str) -> None:
    error = check(body)
    assert (error.code, error.param) == (code, param)


LONG = list(range(99_999))
WRONG_PART = {"type": "input_text"}
PARTS = [{"type": "input_text", "text": "x"}] * 64 + [WRONG_PART] * 40_000


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("EmbeddingRequest", {"input": ["x"] * 199_000}, "`input` must have at most 2048 elements."),
        ("EmbeddingRequest", {"input": [[1]] * 60_000}, "`input` must have at most 2048 elements."),
        ("EmbeddingRequest", {"input": [*LONG, "x"]}, "`input[99999]` must be an integer, not a string."),
        ("EmbeddingRequest", {"input": [[*LONG, "x"]]}, "`input[0][99999]` must be an integer, not a string."),
        ("EmbeddingRequest", {"input": [1.5] * 199_000}, "`input[0]` must be an integer, a string or an array"),
        ("EmbeddingRequest", {"input": []}, "`input` must have at least 1 element."),
        ("ResponseRequest", {"input": [{"role": "user", "content": PARTS}]}, "content[64].text` is missing."),
    ],
    ids=["texts", "lists", "last token", "last token of a list", "numbers", "empty", "parts"],
)
def test_error_of_a_large_body_is_found_quickly(name: str, body: dict[str, Any], message: str) -> None:
    schema = CompiledSchema({"$ref": f"#/components/schemas/{name}"}, load_contract())

    def fastest(look: Callable[[], object]) -> float:
        return min(timeit.repeat(look, number=1, repeat=3))

    def fail() -> None:
        with pytest.raises(GatewayError, match=re.escape(message)):
            schema.check({"model": "m", **body})

    embedding = CompiledSchema({"$ref": "#/components/schemas/EmbeddingRequest"}, load_contract())
    assert fastest(fail) < 100 * fastest(lambda: embedding.is_valid({"model": "m", "input": [LONG]}))
