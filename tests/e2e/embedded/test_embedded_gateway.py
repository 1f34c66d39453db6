"""A fresh installation with the real embedded model, end to end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.chat import ask, chunks_of, error_of, streamed_text, text_of, user
from support.live import LiveGateway, is_model_server, live_gateway, scripted_config
from support.processes import has_ended, running_children
from support.upstream import Upstream

from service.models.catalog import EMBEDDED_REFERENCE

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA"
    "fFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveGateway, str]]:
    """A gateway in development mode, with the configuration it makes for itself, and its token."""
    directory = tmp_path_factory.mktemp("dev")
    with live_gateway(directory, {}, arguments=("--dev",), env={"OPENCLAW_CONFIG_PATH": ""}) as running:
        token = re.search(r"Bearer ([\w-]+)", running.output)
        assert token is not None, running.output
        yield running, token[1]


def children_of(gateway: LiveGateway) -> list[psutil.Process]:
    return running_children(gateway.process.pid)


def test_embedded_model_answers_and_is_called_demo_model(dev: tuple[LiveGateway, str]) -> None:
    running, token = dev
    with running.client(token, timeout=120) as client:
        answer = ask(client, "Say hello.", max_tokens=20, temperature=0)
        assert len(text_of(answer)) > 1
        usage = answer.json()["usage"]
        assert usage["prompt_tokens"] > 5
        assert 0 < usage["completion_tokens"] <= 20
        assert "demo model" in client.get("/v1/models/openclaw").json()["description"]
    assert "demo model" in running.output


def test_embedded_model_streams_tokens(dev: tuple[LiveGateway, str]) -> None:
    running, token = dev
    with running.client(token, timeout=120) as client:
        response = ask(client, "Count to five.", stream=True, max_tokens=24, temperature=0)
        texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks_of(response)]
        assert len([text for text in texts if text]) > 3
        assert streamed_text(response)


def test_embedded_model_refuses_images(dev: tuple[LiveGateway, str]) -> None:
    running, token = dev
    parts: list[Any] = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PNG}}]
    with running.client(token) as client:
        assert error_of(ask(client, user(parts))) == (400, "invalid_value", "messages[0].content")


def test_embedded_model_refuses_functions(dev: tuple[LiveGateway, str]) -> None:
    running, token = dev
    tools = [{"type": "function", "function": {"name": "weather"}}]
    with running.client(token, timeout=120) as client:
        assert error_of(ask(client, "How is it?", tools=tools)) == (400, "unsupported_parameter", "tools")
        assert text_of(ask(client, "Say hello.", tools=tools, tool_choice="none", max_tokens=4))
    assert "uses no tools" in running.output


def test_embedded_model_is_no_fallback_for_requests_with_functions(upstream: Upstream, tmp_path: Path) -> None:
    config = scripted_config()
    config["agents"]["defaults"]["model"] = {"primary": "stub/status-503", "fallbacks": [EMBEDDED_REFERENCE]}
    config["models"] = {"retry": {"attempts": 1}, "providers": {"stub": {"baseUrl": upstream.url}}}
    tools = [{"type": "function", "function": {"name": "weather"}}]
    with live_gateway(tmp_path, config) as running, running.client(timeout=120) as client:
        assert error_of(ask(client, "How is it?", tools=tools)) == (502, "provider_error", None)
        assert text_of(ask(client, "Say hello.", max_tokens=4))


def test_model_process_ends_with_killed_gateway(tmp_path: Path) -> None:
    environment = {"OPENCLAW_CONFIG_PATH": ""}
    with live_gateway(tmp_path, {}, arguments=("--dev",), env=environment) as running:
        token = re.search(r"Bearer ([\w-]+)", running.output)
        assert token is not None
        with running.client(token[1], timeout=120) as client:
            ask(client, "hi", max_tokens=1)
        children = children_of(running)
        assert children
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert all(map(has_ended, alive))


def test_workers_share_one_model_process(tmp_path: Path) -> None:
    arguments, environment = ("--dev", "--workers", "2"), {"OPENCLAW_CONFIG_PATH": ""}
    with live_gateway(tmp_path, {}, arguments=arguments, env=environment) as running:
        token = re.search(r"Bearer ([\w-]+)", running.output)
        assert token is not None

        def ask_anew(_: int) -> str:
            with running.client(token[1], timeout=120) as client:
                return text_of(ask(client, "Say hello.", max_tokens=4, temperature=0))

        workers: set[str] = set()
        with ThreadPoolExecutor(4) as pool:
            for _ in range(20):
                assert all(pool.map(ask_anew, range(4)))
                workers = set(re.findall(r"openclaw\.access\[(\d+)\]", running.output))
                if len(workers) == 2:
                    break
        assert len(workers) == 2
        servers = [child for child in children_of(running) if is_model_server(child)]
        assert len(servers) == 1
        assert running.output.count("starting smollm2") == 1
        assert running.stop() == 0
        assert not servers[0].is_running()
