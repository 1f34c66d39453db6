"""The recipes for Python libraries and tools work as they are written, against a live gateway."""

from __future__ import annotations

import re
import sys

import pytest
from support.documents import ROOT, Block, blocks, blocks_of, reader_environment, succeed
from support.live import TOKEN, LiveGateway

PROGRAMS = [
    block
    for block in blocks("python")
    if block.calls_gateway and block.needs_more_libraries and "openclaw_client" not in block.text
]

#: LiteLLM otherwise downloads a list of prices when it is imported.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def test_every_library_of_the_recipes_is_here() -> None:
    imported = {name for block in PROGRAMS for name in re.findall(r"^(?:from|import) (\w+)", block.text, re.MULTILINE)}
    assert imported >= {"langchain_openai", "litellm", "pydantic_ai"}


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_recipe_prints_the_answer(block: Block, gateway: LiveGateway) -> None:
    environment = reader_environment(gateway) | OFFLINE
    assert succeed([sys.executable, "-c", block.at(gateway.address)], environment, gateway.directory) == "hi\n"


def test_recipe_for_llm_prints_the_answer(gateway: LiveGateway) -> None:
    recipes = blocks_of(ROOT / "docs" / "recipes.md")
    [models] = [block for block in recipes if block.language == "yaml" and "model_id" in block.text]
    directory = gateway.directory / "llm"
    directory.mkdir()
    (directory / "extra-openai-models.yaml").write_text(models.at(gateway.address), encoding="utf-8")
    environment = reader_environment(gateway) | {"LLM_USER_PATH": str(directory)}
    program = [sys.executable, "-m", "llm"]
    succeed([*program, "keys", "set", "openclaw", "--value", TOKEN], environment, directory)
    assert succeed([*program, "-m", "openclaw", "hi"], environment, directory) == "hi\n"
