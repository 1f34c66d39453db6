"""A stream that shows reasoning, tools and arguments as they come says the same to every library as one without."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documents import reader_environment, succeed
from support.live import LiveGateway
from support.showing import EVENTS, SAID, showing_gateway

READER = Path(__file__).with_name("showing_reader.py")


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with showing_gateway(tmp_path_factory.mktemp("showing")) as running:
        yield running


@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("library", ["openai", "langchain", "litellm", "pydantic-ai"])
def test_library_finds_text_and_calls(showing: LiveGateway, library: str, events: str) -> None:
    environment = {**reader_environment(showing), "EVENTS": events, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    printed = succeed([sys.executable, str(READER), library], environment, showing.directory)
    assert json.loads(printed) == SAID
