"""Every configuration in the documents and examples is accepted as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.documents import ROOT, Block, blocks, blocks_of

from service.config.loading import check_config_text
from service.config.source import parse_json5

EXAMPLES = sorted([*ROOT.glob("examples/*.json5"), *ROOT.glob("deploy/*.json5")])


def check(text: str, source: str) -> None:
    variables = dict.fromkeys(re.findall(r"(?<!\$)\$\{(\w+)\}", text), "x")
    assert check_config_text(text, source, variables).notices == ()


@pytest.mark.parametrize("block", blocks("json5"), ids=str)
def test_configuration_in_document_is_accepted_without_notice(block: Block) -> None:
    check(block.text, str(block))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_accepted_without_notice(path: Path) -> None:
    check(path.read_text(encoding="utf-8"), path.name)


def test_recipe_for_team_is_the_example() -> None:
    example = ROOT / "examples" / "team.json5"
    [recipe] = [block for block in blocks_of(ROOT / "docs" / "recipes.md") if block.language == "json5"]
    assert parse_json5(recipe.text, str(recipe)) == parse_json5(example.read_text(encoding="utf-8"), example.name)
