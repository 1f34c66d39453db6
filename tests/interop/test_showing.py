"""A stream that shows reasoning, tools and arguments as they come says the same to every library as one without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documents import reader_environment, succeed
from support.live import LiveGateway
from support.showing import EVENTS, SAID, showing_gateway

from interop.conftest import Published

READER = Path(__file__).with_name("showing_reader.mjs")


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory, published: Published) -> Iterator[LiveGateway]:
    with showing_gateway(tmp_path_factory.mktemp("showing")) as running:
        (running.directory / "node_modules").symlink_to(published.modules)
        (running.directory / READER.name).write_bytes(READER.read_bytes())
        yield running


@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("library", ["openai", "ai-sdk", "langchain"])
def test_library_finds_text_and_calls(showing: LiveGateway, published: Published, library: str, events: str) -> None:
    environment = {**reader_environment(showing), "EVENTS": events}
    printed = succeed([str(published.node), READER.name, library], environment, showing.directory)
    assert json.loads(printed) == SAID
