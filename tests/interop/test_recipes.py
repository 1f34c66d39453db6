"""The recipes for Node's libraries work as they are written, against a live gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.documents import Block, blocks, reader_environment, succeed
from support.live import LiveGateway

from interop.conftest import Published

PROGRAMS = blocks("js")


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_recipe_prints_the_answer(block: Block, gateway: LiveGateway, published: Published, tmp_path: Path) -> None:
    program = tmp_path / "recipe.mjs"
    program.write_text(block.at(gateway.address), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(published.modules)
    assert succeed([str(published.node), str(program)], reader_environment(gateway), tmp_path) == "hi"


def test_there_are_recipes() -> None:
    assert len(PROGRAMS) == len(["OpenAI SDK", "Vercel AI SDK"])
