"""Sums of token counts."""

from __future__ import annotations

from itertools import product

import pytest

from service.core.messages import Usage

USAGES = (
    Usage(),
    Usage(3, 4, 1, None, 2, 5),
    Usage(0, 0, 7),
    Usage(cache_write_tokens=2),
    Usage(cost_nano=None),
    Usage(2, 1, 0, 1, 0, 0),
)


@pytest.mark.parametrize(("first", "second"), [*product(USAGES, USAGES)])
def test_no_count_of_a_sum_is_lost(first: Usage, second: Usage) -> None:
    total = first + second
    for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"):
        assert getattr(total, name) == getattr(first, name) + getattr(second, name)
    costs = (first.cost_nano, second.cost_nano)
    assert total.cost_nano == (None if None in costs else sum(costs))  # type: ignore[arg-type]
