"""Reasoning that Google counts in nothing but the total."""

import pytest

from service.core.messages import Usage
from service.models.openai.usage import read_usage

THOUGHT = {"prompt_tokens": 6, "completion_tokens": 9, "total_tokens": 217}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("generativelanguage.googleapis.com", Usage(6, 211, 0, 202)),
        ("us-east1-aiplatform.googleapis.com", Usage(6, 211, 0, 202)),
        ("googleapis.com.example", Usage(6, 9)),
        ("api.example", Usage(6, 9)),
    ],
)
def test_rest_of_google_total_is_reasoning(host: str, expected: Usage) -> None:
    assert read_usage(THOUGHT, Usage(), host) == expected


def test_google_answer_without_reasoning_has_none_of_it() -> None:
    plain = {**THOUGHT, "total_tokens": 15}
    assert read_usage(plain, Usage(), "generativelanguage.googleapis.com") == Usage(6, 9, 0, 0)


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        (Usage(), Usage(7, 5, 0, 3), 3),
        (Usage(7, 5, 0, 3), Usage(), 3),
        (Usage(7, 5, 0, 3), Usage(7, 5, 0, 4), 7),
        (Usage(7, 5, 0, 3), Usage(7, 5), None),
        (Usage(7, 5), Usage(7, 5, 0, 3), None),
    ],
)
def test_sum_is_known_if_every_call_was_counted(one: Usage, other: Usage, total: int | None) -> None:
    assert (one + other).reasoning_tokens == total
