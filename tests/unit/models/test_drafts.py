"""What is certain of the arguments of a call while they arrive."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import accumulate

import pytest

from service.models.drafts import ArgumentsDraft

VALUES = ["Hanoi", 'a "b" \\\\', "}{][", "\U0001d11e\n", 7, None, [], {}, [[{"x": "}"}]], {"y": {"z": '"'}}]


def drafted(pieces: Sequence[str]) -> tuple[str, int]:
    """Return what is certain of arguments, and after how many pieces the first of it was."""
    draft, text, first = ArgumentsDraft(), "", 0
    for count in range(1, len(pieces) + 1):
        text += draft.extend(pieces[:count])
        first = first or (count if text else 0)
    return text, first


def cut(text: str, chance: random.Random) -> list[str]:
    places = sorted(chance.sample(range(1, len(text)), chance.randrange(1, min(9, len(text)))))
    return [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("seed", range(200))
def test_all_but_the_last_brace_is_certain_wherever_the_object_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    whole = {f"k{number}": chance.choice(VALUES) for number in range(chance.randrange(1, 5))}
    text = json.dumps(whole, indent=chance.choice([None, 1]), ensure_ascii=chance.random() < 0.5)
    pieces = cut(text, chance)
    if pieces[1].startswith(pieces[0]):
        return  # as if it repeated the first piece
    assert drafted(pieces) == (text[:-1], 2)
    chance.shuffle(pieces)
    spaced = [space for piece in cut(text, chance) for space in ("", piece)]
    assert text.startswith(drafted(spaced)[0])


@pytest.mark.parametrize(
    ("pieces", "certain"),
    [
        (['{"a":1}'], ""),  # the next piece decides
        (["", '{"a":', "", "1}"], '{"a":1'),
        (list(accumulate('{"a":1}')), ""),  # each piece repeats those before it
        (["{}", '{"a":1}'], "{"),  # an empty object first
        (["{", "}", '{"a":1}'], "{"),
        (['{"a"', ":1}", '{"a":1}'], '{"a":1'),  # everything twice
        (['"{', '\\"a\\":1}"'], ""),  # encoded twice
        (["nu", "ll"], ""),
        ([" ", '\n{"a":', "1}"], ' \n{"a":1'),
        (['{"a":"\ud834', '\udd1e"}'], '{"a":"\U0001d11e"'),
    ],
)
def test_what_hosts_take_back_is_never_certain(pieces: list[str], certain: str) -> None:
    assert drafted(pieces)[0] == certain


def test_replaced_pieces_end_what_is_certain() -> None:
    draft = ArgumentsDraft()
    assert draft.extend(['{"a"', ":"]) == '{"a":'
    assert draft.extend(['{"a":1}']) == ""
    assert draft.extend(['{"a":1}', "x", "y"]) == ""
